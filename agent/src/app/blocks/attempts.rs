//! What the kernel half refused unanswered: attempts to connect (`end: drop`), and data that comes before its connection
//! has a socket. No call comes of them, only a count.
//!
//! The kernel half counts by slot, and never starts anew. What a slot had counted when it was written is its base; what
//! a rule had when it left its slot is carried over if it comes again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gate::Kernel;
use crate::policy::rule::Rule;
use crate::policy::set::{Change, RuleSet};

/// What was refused unanswered, by rule.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    base: HashMap<u16, u64>,
    carried: BTreeMap<Arc<str>, u64>,
}

/// Of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Of {
    /// Packets that asked for a connection and got no answer; a client tries again by itself.
    pub(super) count: u64,
    /// Rules that share the slot and this count: they differ only in their clients. 1: it is this rule's alone.
    pub(super) rules: usize,
    /// It is the first by name of these, which is charged.
    pub(super) first: bool,
}

impl Attempts {
    /// By rule; rules without any are left out.
    pub(super) fn all(&self, set: &RuleSet, kernel: &Kernel) -> BTreeMap<Arc<str>, Of> {
        let mut out: BTreeMap<Arc<str>, Of> = BTreeMap::new();
        for (id, count) in self.carried.iter().filter(|(id, count)| **count > 0 && set.get(id).is_some()) {
            out.insert(Arc::clone(id), Of { count: *count, rules: 1, first: true });
        }
        for slot in set.refusing() {
            let count = self.counted(kernel, slot);
            if count == 0 {
                continue;
            }
            let rules: Vec<&Arc<Rule>> = set.sharing(slot).collect();
            for (n, rule) in rules.iter().enumerate() {
                let of = out.entry(Arc::clone(&rule.id)).or_default();
                of.count += count;
                (of.rules, of.first) = (rules.len().max(of.rules), n == 0);
            }
        }
        out
    }

    /// What each slot that rules may leave has counted and for whom: to be taken before the set changes.
    pub(super) fn before(&self, set: &RuleSet, kernel: &Kernel, leaving: &[Arc<Rule>]) -> Vec<(u16, u64, Arc<str>)> {
        let mut slots: Vec<u16> = leaving.iter().flat_map(|rule| set.places(rule)).collect();
        slots.sort_unstable();
        slots.dedup();
        let of = |slot| {
            let count = self.counted(kernel, slot);
            let first = set.sharing(slot).next().filter(|_| count > 0)?;
            Some((slot, count, Arc::clone(&first.id)))
        };
        slots.into_iter().filter_map(of).collect()
    }

    /// The set has changed, and the change is not in the kernel half yet.
    pub(super) fn changed(&mut self, before: Vec<(u16, u64, Arc<str>)>, kernel: &Kernel, change: &Change) {
        for (_, count, id) in before.into_iter().filter(|(slot, ..)| change.freed.contains(slot)) {
            *self.carried.entry(id).or_default() += count;
        }
        for (slot, _) in &change.slots {
            self.base.insert(*slot, kernel.look(|gate| gate.met(*slot)).attempts);
        }
    }

    /// A rule of this name has nothing to do with the one that had it before.
    pub(super) fn forget(&mut self, id: &str) {
        self.carried.remove(id);
    }

    /// Forgets rules that are no longer in the set.
    pub(super) fn only(&mut self, set: &RuleSet) {
        self.carried.retain(|id, _| set.get(id).is_some());
    }

    fn counted(&self, kernel: &Kernel, slot: u16) -> u64 {
        kernel.look(|gate| gate.met(slot)).attempts - self.base.get(&slot).copied().unwrap_or_default()
    }
}
