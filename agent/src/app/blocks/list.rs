//! Every rule with what it met, as lists and metrics tell it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Blocks;
use super::document::document;
use crate::policy::rule::{Mode, Rule};

impl Blocks {
    /// Every rule with what it met.
    pub(in crate::app) fn list(&self) -> Vec<Value> {
        let mut book = self.book();
        self.expire(&mut book);
        let set = book.set();
        let attempts = book.kernel().map(|kernel| book.attempts.all(&set, kernel)).unwrap_or_default();
        let rows = set.rules().map(|rule| {
            let mut told = document(rule);
            told["effective_mode"] = effective(set.mode(), rule).into();
            told["hits"] = 0.into();
            if let Some(why) = book.tripped.get(&rule.id) {
                told["tripped"] = why.clone().into();
            }
            // Not held for all of them: calls are to be counted meanwhile.
            if let Some(hits) = book.tally().hits.get(&rule.id) {
                hits.tell(&mut told);
            }
            if let Some(of) = attempts.get(&rule.id) {
                told["attempts"] = of.count.into();
                if of.rules > 1 {
                    told["attempts_of_rules"] = of.rules.into();
                }
            }
            told
        });
        rows.collect()
    }

    /// Rule, mode, and calls met and attempts to connect that were refused unanswered, for `weir_blocked_total`.
    pub(in crate::app) fn counts(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let book = self.book();
        let hits = book.tally().hits.iter().map(|(id, hits)| (Arc::clone(id), hits.calls)).collect();
        let mut counts: BTreeMap<Arc<str>, u64> = hits;
        let set = book.set();
        let attempts = book.kernel().map(|kernel| book.attempts.all(&set, kernel)).unwrap_or_default();
        for (id, of) in attempts.into_iter().filter(|(_, of)| of.first) {
            *counts.entry(id).or_default() += of.count;
        }
        let told = counts.into_iter().filter_map(|(id, count)| {
            let mode = effective(set.mode(), set.get(&id)?);
            Some((id, mode, count))
        });
        told.collect()
    }
}

fn effective(node: Mode, rule: &Rule) -> &'static str {
    if node == Mode::Enforce { rule.mode.as_str() } else { Mode::Monitor.as_str() }
}
