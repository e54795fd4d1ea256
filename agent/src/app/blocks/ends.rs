//! When rules that come by themselves end: a time to live begins with the rule, not with the agent, so that a restart does
//! not prolong it. What began when is kept in `ends.json` of the state folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::app::whole;
use crate::clock;
use crate::policy::rule::{Rule, Source, Until};
use crate::policy::written::WrittenRule;

/// Rules whose ends are kept; those of more begin anew with the agent.
const RULES: usize = 16_384;
/// Bytes of the file at most.
const BYTES: u64 = 8 << 20;

/// When a rule ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct End {
    /// Hash of the rule as written: another one has another end.
    rule: u64,
    /// Nanoseconds since the Unix epoch.
    unix_ns: u64,
}

/// Ends of rules by source and id.
#[derive(Debug, Default)]
pub(super) struct Ends {
    file: Option<PathBuf>,
    known: BTreeMap<String, End>,
    fresh: bool,
    warned: bool,
}

fn key(source: &Source, id: &str) -> String {
    // A rule of a file is the same one in another file.
    match source {
        Source::File(_) => format!("file {id}"),
        other => format!("{other} {id}"),
    }
}

impl Ends {
    /// Of this state folder. A file that can't be read is said, and taken for empty.
    pub(super) fn of(state: Option<&Path>) -> Self {
        let Some(file) = state.map(|state| state.join("ends.json")) else { return Self::default() };
        let known = match fs::metadata(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error.to_string()),
            Ok(data) if data.len() > BYTES || !data.is_file() => Err("it is no file of at most 8 MiB".to_owned()),
            Ok(_) => fs::read(&file)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string())),
        };
        let known = known.unwrap_or_else(|why| {
            tracing::warn!(file = %file.display(), why, "when rules began is not known: their times begin anew");
            BTreeMap::new()
        });
        Self { file: Some(file), known, fresh: false, warned: false }
    }

    /// Gives a rule the end that it had when it was first seen as it is written.
    pub(super) fn settle(&mut self, rule: &mut Rule, written: &WrittenRule) {
        let key = key(&rule.source, &rule.id);
        let Some(until) = rule.until else {
            self.fresh |= self.known.remove(&key).is_some();
            return;
        };
        let hash = serde_json::to_vec(written).map(|bytes| SipHasher13::new().hash(&bytes)).unwrap_or_default();
        match self.known.get(&key).filter(|end| end.rule == hash) {
            // Never later than as if it began now: the wall clock may have been set back.
            Some(end) if end.unix_ns < until.unix_ns => {
                let left = end.unix_ns.saturating_sub(clock::unix_ns());
                rule.until = Some(Until { monotonic_ns: clock::monotonic_ns() + left, unix_ns: end.unix_ns });
            }
            None if self.known.len() < RULES || self.known.contains_key(&key) => {
                self.known.insert(key, End { rule: hash, unix_ns: until.unix_ns });
                self.fresh = true;
            }
            Some(_) | None => {}
        }
    }

    /// Forgets rules of a kind of source that are not among these any more: should they come again, they begin anew.
    pub(super) fn only<'a>(&mut self, of: &Source, ids: impl Iterator<Item = &'a str>) {
        let wanted: std::collections::BTreeSet<String> = ids.map(|id| key(of, id)).collect();
        let kind = key(of, "");
        let before = self.known.len();
        self.known.retain(|known, _| !known.starts_with(&kind) || wanted.contains(known));
        self.fresh |= self.known.len() != before;
    }

    /// Writes what changed.
    pub(super) fn save(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| std::mem::take(&mut self.fresh)) else { return };
        let text = serde_json::to_vec(&self.known).map_err(Into::into);
        if let Err(error) = text.and_then(|text| whole::write(file, &text))
            && !std::mem::replace(&mut self.warned, true)
        {
            let file = file.display();
            tracing::warn!(%error, %file, "a restart of the agent will prolong rules with a time to live; see enforce.state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::check::{Arrival, Nowhere, check};

    fn rule(ttl: &str, path: &str) -> (Rule, WrittenRule) {
        let written = serde_json::json!({ "id": "r", "path": path, "ttl": ttl });
        let written: WrittenRule = serde_json::from_value(written).unwrap();
        let (monotonic_ns, unix_ns) = (clock::monotonic_ns(), clock::unix_ns());
        let arrival = Arrival { source: Source::Config, author: "t".into(), monotonic_ns, unix_ns, id: "r".into() };
        (check(&written, &arrival, &Nowhere).unwrap(), written)
    }

    #[test]
    fn an_end_stays_where_it_was() {
        let folder = std::env::temp_dir().join(format!("weir-ends-{}", std::process::id()));
        let of = |ends: &mut Ends, (mut rule, written): (Rule, WrittenRule)| {
            ends.settle(&mut rule, &written);
            rule.until.unwrap().unix_ns
        };
        let mut ends = Ends::of(Some(&folder));
        let first = of(&mut ends, rule("1h", "/a"));
        ends.save();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let mut again = Ends::of(Some(&folder));
        assert_eq!(of(&mut again, rule("1h", "/a")), first, "it began anew");
        assert!(of(&mut again, rule("1h", "/b")) > first, "another rule has its own time");
        again.only(&Source::Config, std::iter::empty());
        assert!(of(&mut again, rule("1h", "/a")) > first, "one that was gone begins anew");
        // Over is over.
        let (mut over, written) = rule("1ns", "/a");
        again.settle(&mut over, &written);
        assert!(over.is_over(clock::monotonic_ns()));
        fs::write(folder.join("ends.json"), "{").unwrap();
        assert!(of(&mut Ends::of(Some(&folder)), rule("1h", "/a")) > first);
        fs::remove_dir_all(&folder).unwrap();
    }
}
