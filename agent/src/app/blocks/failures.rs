//! The circuit breaker's other half: a rule that takes from a service what it needs makes the service fail its own
//! callers. Counted by service: what it answered, what of that failed, and which rules refused calls that it made.
//!
//! Only a rule that refuses a service's calls can be the cause, so another service's errors, and errors of before, move
//! nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::breaker::Tripped;
use crate::model::{End, Exchange, Kind, Operation, Verdict};

const SECOND: u64 = 1_000_000_000;
/// Services that are watched at once. What is beyond is not watched.
const SERVICES: usize = 1024;
/// Rules that are watched at once for one service.
const RULES: usize = 64;
/// It must be so for this long: the answers of one moment are not enough.
const STEADY_NS: u64 = 2 * SECOND;

/// When a rule is taken for a mistake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rise {
    /// So many failed answers at least, before and after as many answers at least; 0: never.
    pub(super) errors: u32,
    /// And a share of failed answers that is higher by more than this.
    pub(super) more: f64,
    /// Length of both windows, seconds.
    pub(super) seconds: u32,
}

/// Answers, and those that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    answers: u64,
    failed: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.failed += other.failed;
    }

    fn share(self) -> f64 {
        if self.answers == 0 { 0.0 } else { self.failed as f64 / self.answers as f64 }
    }
}

/// A rule that refuses calls of a service.
#[derive(Debug)]
struct Suspect {
    rule: Arc<str>,
    /// First and last refusal; a pause of a whole window ends the suspicion.
    first: u64,
    last: u64,
    refused: u64,
    /// Answers of the window before the first refusal.
    before: Count,
    after: Count,
    /// Since when the condition holds.
    since: Option<u64>,
}

#[derive(Debug, Default)]
struct Service {
    /// Whole seconds with answers, oldest first.
    seconds: VecDeque<(u64, Count)>,
    suspects: Vec<Suspect>,
}

/// Who fails.
#[derive(Debug)]
pub(super) struct Failures {
    rise: Rise,
    services: HashMap<Arc<str>, Service, RandomState>,
}

/// An answer that failed for a reason of the server's.
fn failed(exchange: &Exchange) -> bool {
    let Operation::Http(http) = &exchange.call.operation;
    http.status.is_some_and(|status| status >= 500) || exchange.call.end == End::ServerAborted
}

impl Failures {
    pub(super) fn new(rise: Rise) -> Self {
        Self { rise, services: HashMap::default() }
    }

    /// Takes other thresholds; what was counted stays.
    pub(super) fn set(&mut self, rise: Rise) {
        self.rise = rise;
    }

    fn window(&self) -> u64 {
        u64::from(self.rise.seconds) * SECOND
    }

    fn service(&mut self, name: &Arc<str>) -> Option<&mut Service> {
        if self.rise.errors == 0 {
            return None;
        }
        if !self.services.contains_key(name) {
            if self.services.len() >= SERVICES {
                return None;
            }
            self.services.insert(Arc::clone(name), Service::default());
        }
        self.services.get_mut(name)
    }

    /// A call ended; `now`: `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn came(&mut self, exchange: &Exchange, now: u64) {
        match (&exchange.verdict, exchange.kind) {
            // Refused where it arrives. Whose call it was is known where that is on this node too; what is refused where
            // it is sent comes without a call.
            (Verdict::Dropped { rule, .. }, Kind::Server) => {
                if let Some(caller) = &exchange.peer {
                    self.refused(&caller.name, rule, now);
                }
            }
            (_, Kind::Server) => {
                let count = Count { answers: 1, failed: u64::from(failed(exchange)) };
                self.answered(&exchange.service.name, count, now);
            }
            (_, Kind::Client) => {}
        }
    }

    fn answered(&mut self, name: &Arc<str>, count: Count, now: u64) {
        let oldest = now.saturating_sub(self.window()) / SECOND;
        let Some(service) = self.service(name) else { return };
        match service.seconds.back_mut() {
            Some((second, counted)) if *second == now / SECOND => counted.add(count),
            _ => {
                service.seconds.retain(|(second, _)| *second >= oldest);
                service.seconds.push_back((now / SECOND, count));
            }
        }
        service.suspects.iter_mut().for_each(|suspect| suspect.after.add(count));
    }

    /// A rule refused a call that a service made.
    pub(super) fn refused(&mut self, name: &Arc<str>, rule: &Arc<str>, now: u64) {
        let window = self.window();
        let Some(service) = self.service(name) else { return };
        if let Some(known) = service.suspects.iter_mut().find(|suspect| suspect.rule == *rule) {
            known.last = now;
            known.refused += 1;
            return;
        }
        if service.suspects.len() >= RULES {
            return;
        }
        let oldest = now.saturating_sub(window) / SECOND;
        let mut before = Count::default();
        let of_window = service.seconds.iter().filter(|(second, _)| *second >= oldest);
        of_window.for_each(|(_, count)| before.add(*count));
        let (rule, after, since) = (Arc::clone(rule), Count::default(), None);
        service.suspects.push(Suspect { rule, first: now, last: now, refused: 1, before, after, since });
    }

    /// Rules that make a service fail; to be asked about once a second at least. Each is told once.
    pub(super) fn look(&mut self, now: u64) -> Vec<Tripped> {
        let (Rise { errors, more, seconds }, window) = (self.rise, self.window());
        let mut tripped = Vec::new();
        for (name, service) in &mut self.services {
            service.suspects.retain_mut(|suspect| {
                let Suspect { before, after, .. } = *suspect;
                // Neither side may rest on few answers.
                let enough = before.answers >= u64::from(errors) && after.failed >= u64::from(errors);
                if errors == 0 || !enough || after.share() <= before.share() + more {
                    suspect.since = None;
                    // A rule that was watched for a window and did no harm is watched anew after a pause.
                    return now.saturating_sub(suspect.first) < window || now.saturating_sub(suspect.last) < window;
                }
                let since = *suspect.since.get_or_insert(now);
                if now.saturating_sub(since) < STEADY_NS {
                    return true;
                }
                let why = format!(
                    "service {name} failed {} of {} answers in the {} s since the rule refuses calls that it makes ({} of them), and {} of {} in the {seconds} s before",
                    after.failed,
                    after.answers,
                    now.saturating_sub(suspect.first) / SECOND,
                    suspect.refused,
                    before.failed,
                    before.answers,
                );
                tripped.push(Tripped { rule: Arc::clone(&suspect.rule), why, reason: "errors" });
                false
            });
            // Only the first window counts: what comes later has other causes.
            service.suspects.iter_mut().filter(|suspect| now.saturating_sub(suspect.first) >= window).for_each(
                |suspect| {
                    suspect.after = Count::default();
                    suspect.since = None;
                },
            );
        }
        let oldest = now.saturating_sub(window) / SECOND;
        self.services.retain(|_, service| {
            !service.suspects.is_empty() || service.seconds.back().is_some_and(|(second, _)| *second >= oldest)
        });
        tripped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stage {
        failures: Failures,
        now: u64,
    }

    impl Stage {
        fn new() -> Self {
            let failures = Failures::new(Rise { errors: 20, more: 0.2, seconds: 30 });
            Self { failures, now: 1_000 * SECOND }
        }

        /// A second in which a service gives so many answers, so many of them failed, and a rule refuses calls of it.
        fn second(&mut self, name: &str, answers: u64, failed: u64, refused: Option<&str>) -> Vec<Tripped> {
            self.now += SECOND;
            let name = Arc::from(name);
            for _ in 0..u64::from(refused.is_some()) {
                self.failures.refused(&name, &refused.unwrap_or_default().into(), self.now);
            }
            self.failures.answered(&name, Count { answers, failed }, self.now);
            self.failures.look(self.now)
        }
    }

    #[test]
    fn a_rule_that_makes_a_service_fail_trips() {
        let mut stage = Stage::new();
        for _ in 0..10 {
            assert_eq!(stage.second("shop", 10, 1, None), []);
        }
        // Failures rise at once; they must last.
        assert_eq!(stage.second("shop", 10, 9, Some("r")), []);
        for _ in 0..3 {
            assert_eq!(stage.second("shop", 10, 9, Some("r")), []);
        }
        let tripped = stage.second("shop", 10, 9, Some("r"));
        assert_eq!(tripped.len(), 1);
        let why = &tripped[0].why;
        assert!(why.contains("shop failed 45 of 50 answers in the 4 s") && why.contains("(5 of them)"), "{why}");
        assert!(why.contains("10 of 100 in the 30 s before"), "{why}");
    }

    #[test]
    fn what_has_another_cause_does_not() {
        let mut stage = Stage::new();
        for _ in 0..10 {
            stage.second("shop", 10, 0, None);
            stage.second("other", 10, 0, None);
        }
        for _ in 0..40 {
            // Another service fails; the rule refuses calls of this one, which serves on.
            assert_eq!(stage.second("other", 10, 9, None), []);
            assert_eq!(stage.second("shop", 10, 1, Some("r")), []);
        }
        // It fails long after: not for the rule.
        for _ in 0..20 {
            assert_eq!(stage.second("shop", 10, 9, Some("r")), []);
        }
        // One that failed before fails on.
        for _ in 0..20 {
            stage.second("bad", 10, 9, None);
        }
        for _ in 0..20 {
            assert_eq!(stage.second("bad", 10, 10, Some("q")), []);
        }
        // Of one that was hardly asked before nothing can be said, nor of a few failures.
        stage.second("idle", 1, 0, None);
        stage.second("calm", 100, 0, None);
        for n in 0..20 {
            assert_eq!(stage.second("idle", 10, 9, Some("i")), []);
            assert_eq!(stage.second("calm", 1, u64::from(n < 19), Some("c")), []);
        }
    }

    #[test]
    fn memory_is_bounded_and_zero_turns_it_off() {
        let mut stage = Stage::new();
        for n in 0..3_000_u32 {
            stage.failures.answered(&n.to_string().into(), Count { answers: 1, failed: 0 }, stage.now);
        }
        for n in 0..100_u32 {
            stage.failures.refused(&"1".into(), &n.to_string().into(), stage.now);
        }
        assert_eq!((stage.failures.services.len(), stage.failures.services["1"].suspects.len()), (SERVICES, RULES));
        stage.failures.look(stage.now + 61 * SECOND);
        assert!(stage.failures.services.is_empty(), "{:?}", stage.failures.services.len());
        stage.failures.set(Rise { errors: 0, more: 0.0, seconds: 30 });
        stage.failures.refused(&"1".into(), &"r".into(), stage.now);
        assert!(stage.failures.services.is_empty());
    }
}
