//! What time does: rules end, the kernel half hears that the agent lives, the circuit breaker looks.

use std::sync::Arc;

use serde_json::Value;

use super::breaker::Tripped;
use super::document::document;
use super::gate::Kernel;
use super::{Blocks, Book};
use crate::clock;
use crate::policy::rule::{Mode, Rule};

/// Alarms that may wait to be exported; more are in the log, the audit log and the metric only.
const ALARMS: usize = 256;

impl Blocks {
    /// The agent lives: to be called once a second at least. Rules whose time is over end.
    pub(in crate::app) fn beat(&self) {
        let mut book = self.book();
        Self::heard(&mut book);
        self.expire(&mut book);
        if book.enforces() {
            self.trip(&mut book);
        }
    }

    /// Tells the kernel half first of all: what follows may take its time.
    fn heard(book: &mut Book) {
        if !book.enforces() {
            return;
        }
        let Some(result) = book.kernel().map(Kernel::beat) else { return };
        if let (Err(error), false) = (&result, book.beaten) {
            tracing::error!(%error, "the kernel half will take the agent for dead: only rules with an end are enforced");
        }
        book.beaten = result.is_err();
    }

    /// Removes rules whose time is over.
    pub(super) fn expire(&self, book: &mut Book) {
        let over = book.set().expired(clock::monotonic_ns());
        if over.is_empty() {
            return;
        }
        for id in &over {
            let told = book.set().get(id).map_or(Value::Null, |rule| document(rule));
            book.log.note("weir", "expire", Some(id), "its time is over", told, Value::Null);
        }
        // At once: the beat waits for it, and many may have come with one end.
        if let Err(error) = book.log.sync() {
            tracing::warn!(%error, rules = over.len(), "the end of rules is not in the audit log");
        }
        if let Err(error) = book.change(&over, Vec::new()) {
            tracing::warn!(%error, rules = over.len(), "rules whose time is over stay listed; they meet nothing");
        }
        for id in &over {
            book.tally().hits.remove(id);
        }
        self.note(book);
    }

    /// Puts rules that refuse most clients of a service back to monitor mode.
    fn trip(&self, book: &mut Book) {
        let now = clock::monotonic_ns();
        let mut tripped = self.in_force.tally().breaker.look(now);
        tripped.extend(self.failures().look(now));
        for Tripped { rule, why, reason } in tripped {
            let Some(before) = book.set().get(&rule).cloned().filter(|rule| rule.mode == Mode::Enforce) else {
                continue;
            };
            let after = Rule { mode: Mode::Monitor, ..Rule::clone(&before) };
            let told = document(&after);
            if let Err(error) = book.change(&[Arc::clone(&rule)], vec![after]) {
                tracing::error!(%error, %rule, why, "a rule that refuses too many can't be put back to monitor mode");
                continue;
            }
            tracing::warn!(%rule, why, "circuit breaker: the rule is in monitor mode now");
            if let Err(error) = book.log.write("weir", "breaker", Some(&rule), &why, document(&before), told) {
                tracing::warn!(%error, %rule, "what the circuit breaker did is not in the audit log");
            }
            {
                let mut tally = self.in_force.tally();
                *tally.trips.entry(reason).or_default() += 1;
                if tally.alarms.len() < ALARMS {
                    tally.alarms.push((Arc::clone(&rule), why.clone()));
                }
            }
            book.tripped.insert(rule, why);
            self.note(book);
        }
    }

    /// Rules that the circuit breaker put back to monitor mode and that were not told of yet: rule and reason.
    pub(in crate::app) fn alarms(&self) -> Vec<(Arc<str>, String)> {
        std::mem::take(&mut self.in_force.tally().alarms)
    }

    /// How often the circuit breaker tripped, by reason.
    pub(in crate::app) fn trips(&self) -> Vec<(&'static str, u64)> {
        self.in_force.tally().trips.iter().map(|(reason, count)| (*reason, *count)).collect()
    }
}
