//! Decisions of a CrowdSec local API as its stream tells them (`GET /v1/decisions/stream`): what began, what ended.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{FEW, ListError};
use crate::policy::check::TTL_MAX;
use crate::policy::prefix::Prefix;

/// Ends of one address that differ by less are the same: each answer counts a decision's time anew.
const JITTER_NS: u64 = 2_000_000_000;

#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    new: Option<Vec<Decision>>,
    #[serde(default)]
    deleted: Option<Vec<Decision>>,
}

#[derive(Deserialize)]
struct Decision {
    #[serde(default)]
    duration: String,
    #[serde(default)]
    scope: String,
    #[serde(default, rename = "type")]
    kind: String,
    value: String,
    #[serde(default)]
    simulated: bool,
}

impl Decision {
    /// The address, where the decision is a ban of one.
    fn prefix(&self) -> Option<Result<Prefix, String>> {
        let of_address = self.scope.eq_ignore_ascii_case("ip") || self.scope.eq_ignore_ascii_case("range");
        if !of_address || !self.kind.eq_ignore_ascii_case("ban") || self.simulated {
            return None;
        }
        Some(self.value.parse::<Prefix>().map_err(|error| error.to_string()))
    }
}

/// What an answer changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Decisions that are not about addresses, or do not ban.
    pub others: usize,
    /// Decisions that were left out.
    pub left_out: usize,
    /// Why the first of them was.
    pub first: Option<String>,
}

/// Bans in force, with their ends in `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions(BTreeMap<Prefix, u64>);

impl Decisions {
    /// Bans in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes an answer, all of it or nothing. `whole`: it was asked for everything, else for what changed. `saves`: whom
    /// a ban would hit that must not be met.
    pub fn take(
        &mut self,
        bytes: &[u8],
        whole: bool,
        now: u64,
        max: usize,
        saves: impl Fn(&Prefix) -> Option<Box<str>>,
    ) -> Result<Told, ListError> {
        let stream: Stream = serde_json::from_slice(bytes).map_err(|error| {
            ListError::Json(error.to_string().chars().filter(|c| !c.is_control()).take(200).collect())
        })?;
        let mut next = if whole { BTreeMap::new() } else { self.0.clone() };
        if !whole {
            for prefix in stream.deleted.iter().flatten().filter_map(|decision| decision.prefix()?.ok()) {
                next.remove(&prefix);
            }
        }
        let mut told = Told::default();
        for decision in stream.new.iter().flatten() {
            let Some(prefix) = decision.prefix() else {
                told.others += 1;
                continue;
            };
            let taken = prefix.and_then(|prefix| match saves(&prefix) {
                _ if prefix.is_too_wide() => Err(format!("{prefix} holds more addresses than a ban can mean")),
                Some(what) => Err(format!("{prefix} would hit {what}")),
                None => Ok((prefix, duration(&decision.duration).ok_or("a duration that is none")?)),
            });
            match taken {
                Ok((_, 0)) => {}
                Ok((prefix, left)) => {
                    let end = now.saturating_add(left);
                    let kept = self.0.get(&prefix).filter(|old| old.abs_diff(end) < JITTER_NS);
                    let end = kept.copied().unwrap_or(end);
                    next.entry(prefix).and_modify(|old| *old = end.max(*old)).or_insert(end);
                }
                Err(why) => {
                    told.left_out += 1;
                    told.first.get_or_insert_with(|| why.chars().filter(|c| !c.is_control()).take(200).collect());
                }
            }
        }
        if next.len() > max {
            return Err(ListError::Long(max));
        }
        if whole && self.len() >= FEW && next.len() * 2 < self.len() {
            return Err(ListError::Shrunk { before: self.len(), now: next.len() });
        }
        self.0 = next;
        Ok(told)
    }

    /// Forgets bans whose time is over; gives the end of the next one.
    pub fn expire(&mut self, now: u64) -> Option<u64> {
        self.0.retain(|_, end| *end > now);
        self.0.values().min().copied()
    }

    /// Disjoint addresses with their ends. Of a ban inside another the outer one counts while it lasts.
    #[must_use]
    pub fn clients(&self) -> (Vec<Prefix>, Vec<u64>) {
        let (mut prefixes, mut ends) = (Vec::<Prefix>::new(), Vec::new());
        for (prefix, end) in &self.0 {
            if !prefixes.last().is_some_and(|last| last.covers(prefix)) {
                prefixes.push(*prefix);
                ends.push(*end);
            }
        }
        (prefixes, ends)
    }
}

/// Nanoseconds of a duration as Go writes it, `3h59m58.12s`; 0 for one that is over.
fn duration(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("h", 3.6e12), ("m", 6e10), ("s", 1e9)];
    if text.starts_with('-') || text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, factor) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * factor;
        rest = after.get(unit.len()..)?;
    }
    if text.is_empty() {
        return None;
    }
    let exact = std::time::Duration::try_from_secs_f64(total / 1e9).unwrap_or(TTL_MAX);
    Some(exact.min(TTL_MAX).as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn ban(value: &str, duration: &str) -> serde_json::Value {
        let scope = if value.contains('/') { "Range" } else { "Ip" };
        serde_json::json!({ "id": 1, "origin": "cscli", "scope": scope, "type": "ban", "value": value, "duration": duration })
    }

    fn answer(new: &[serde_json::Value], deleted: &[serde_json::Value]) -> Vec<u8> {
        serde_json::json!({ "new": new, "deleted": deleted }).to_string().into_bytes()
    }

    fn nobody(_: &Prefix) -> Option<Box<str>> {
        None
    }

    fn held(decisions: &Decisions) -> Vec<(String, u64)> {
        let (prefixes, ends) = decisions.clients();
        prefixes.iter().map(ToString::to_string).zip(ends.iter().map(|end| end / S)).collect()
    }

    #[test]
    fn durations_of_go_are_read() {
        for (text, ns) in [
            ("3h59m58.5s", Some(14_398_500_000_000)),
            ("1m29.227387722s", Some(89_227_387_722)),
            ("800ms", Some(800_000_000)),
            ("-1.03s", Some(0)),
            ("1.5µs", Some(1500)),
            ("", None),
            ("5", None),
            ("1x", None),
            ("..s", None),
            ("9999999999999999999h", Some(TTL_MAX.as_nanos() as u64)),
        ] {
            assert_eq!(duration(text), ns, "{text}");
        }
    }

    #[test]
    fn bans_begin_and_end_as_told() {
        let mut all = Decisions::default();
        let country = serde_json::json!({ "scope": "Country", "type": "ban", "value": "XX", "duration": "1h" });
        let captcha = serde_json::json!({ "scope": "Ip", "type": "captcha", "value": "192.0.2.9", "duration": "1h" });
        let first = answer(&[ban("192.0.2.7", "60s"), ban("198.51.100.0/24", "10s"), country, captcha], &[]);
        let told = all.take(&first, true, 0, 10, nobody).unwrap();
        assert_eq!((told.others, told.left_out), (2, 0));
        assert_eq!(held(&all), [("192.0.2.7".to_owned(), 60), ("198.51.100.0/24".to_owned(), 10)]);
        // Ended and begun in one answer: it is in force.
        let second = answer(&[ban("198.51.100.0/24", "30s"), ban("0.0.0.0/0", "1h")], &[ban("198.51.100.0/24", "-1s")]);
        let told = all.take(&second, false, 5 * S, 10, nobody).unwrap();
        assert_eq!((held(&all)[1].1, told.left_out), (35, 1));
        assert_eq!(all.take(b"{\"new\":null,\"deleted\":null}", false, 0, 10, nobody), Ok(Told::default()));
        assert_eq!((all.expire(40 * S), all.len()), (Some(60 * S), 1));
        all.take(&answer(&[], &[ban("192.0.2.7", "-2s")]), false, 41 * S, 10, nobody).unwrap();
        assert!(all.is_empty() && all.expire(0).is_none());
    }

    #[test]
    fn an_answer_that_lies_changes_nothing() {
        let mut all = Decisions::default();
        let many: Vec<_> = (0..20).map(|n| ban(&format!("10.0.0.{n}"), "1h")).collect();
        all.take(&answer(&many, &[]), true, 0, 20, nobody).unwrap();
        let before = all.clone();
        assert!(all.take(&answer(&many[..9], &[]), true, 0, 20, nobody).is_err());
        assert!(all.take(b"{}", true, 0, 20, nobody).is_err());
        assert!(all.take(b"<html>", false, 0, 20, nobody).is_err());
        assert!(all.take(&answer(&[ban("192.0.2.1", "1h")], &[]), false, 0, 20, nobody).is_err());
        assert_eq!(all, before);
        // A little later the same answer has little shorter times: the same ends.
        let again: Vec<_> = (0..20).map(|n| ban(&format!("10.0.0.{n}"), "59m59.5s")).collect();
        all.take(&answer(&again, &[]), true, S, 20, nobody).unwrap();
        assert_eq!(all, before);
    }

    proptest! {
        #[test]
        fn hostile_answers_are_bounded(text in "[\\x00-\\x7f]{0,80}", value in "[0-9a-f.:/]{0,20}", time in ".{0,12}") {
            let mut all = Decisions::default();
            let _ = all.take(text.as_bytes(), false, 0, 3, nobody);
            let _ = all.take(&answer(&[ban(&value, &time)], &[ban(&value, &time)]), true, u64::MAX - 5, 3, nobody);
            prop_assert!(all.len() <= 3);
            let (prefixes, ends) = all.clients();
            prop_assert_eq!(prefixes.len(), ends.len());
        }
    }
}
