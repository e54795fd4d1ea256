//! A change: checked whole, then taken.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use weir_common::verdict::{NESTED, PREFIXES};

use super::draft::{Draft, places, renamed, requests};
use super::{Change, RULES_MAX, RuleSet, SetError};
use crate::policy::machine::Machine;
use crate::policy::prefix::Prefix;
use crate::policy::rule::Rule;

/// New prefixes of a change that are few.
const FEW: usize = 64;

impl RuleSet {
    /// Removes and adds rules, all of them or none. A rule may be removed and added anew in one change.
    pub fn change(&mut self, remove: &[Arc<str>], add: Vec<Rule>) -> Result<Change, SetError> {
        let leaving = self.leaving(remove)?;
        let arriving = self.arriving(remove, add)?;
        if self.rules.len() + arriving.len() - leaving.len() > RULES_MAX {
            return Err(SetError::Rules);
        }
        let fresh: usize = arriving
            .iter()
            .map(|rule| rule.clients.iter().filter(|prefix| !self.rows.contains_key(prefix)).count())
            .sum();
        if self.rows.len() + fresh > PREFIXES as usize {
            return Err(SetError::Prefixes);
        }
        self.nested(remove, &arriving)?;
        let mut draft = Draft::of(&self.slots, &self.groups);
        for rule in &leaving {
            draft.leave(rule);
        }
        for rule in &arriving {
            draft.arrive(rule)?;
        }
        let freed = draft.freed();
        let mut same = HashMap::new();
        for new in &arriving {
            // A rule in its own place, as one of a feed is when its list changes: only rows that differ are written.
            let old = self
                .rules
                .get(&new.id)
                .filter(|old| places(&self.slots, &self.groups, old) == places(&draft.slots, &draft.groups, new));
            if let Some(old) = old {
                same.insert(Arc::clone(&new.id), differing(old, new));
            }
        }
        let mut machine = None;
        if requests(&draft.slots) != requests(&self.slots) {
            machine = Some(Arc::new(Machine::build(&requests(&draft.slots))?));
        }

        // Nothing can fail from here on.
        if let Some(machine) = &machine {
            self.machine = Arc::clone(machine);
            self.table = self.table.wrapping_add(1);
        }
        let Draft { slots: kept, groups, written: slots, .. } = draft;
        self.slots = kept;
        let renamed = renamed(&self.groups, &groups);
        self.groups = groups;
        self.generation += 1;
        let touched = self.take(&leaving, &arriving, same);
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        for prefix in touched {
            match self.row(prefix) {
                Some(row) => rows.push((prefix, row)),
                None => gone.push(prefix),
            }
        }
        Ok(Change { generation: self.generation, slots, freed, rows, gone, machine, renamed, bank: self.bank() })
    }

    /// Refuses a prefix that would lie in more others than the kernel half looks at.
    fn nested(&self, remove: &[Arc<str>], arriving: &[Arc<Rule>]) -> Result<(), SetError> {
        let new: HashSet<Prefix> = arriving.iter().flat_map(|rule| &rule.clients).copied().collect();
        let lengths: BTreeSet<u8> = self.lengths.keys().copied().chain(new.iter().map(|prefix| prefix.len)).collect();
        if lengths.len() <= NESTED as usize || new.is_empty() {
            return Ok(());
        }
        let removed: HashSet<&str> = remove.iter().map(|id| &**id).collect();
        let stays = |users: &Vec<Arc<Rule>>| users.iter().any(|rule| !removed.contains(&*rule.id));
        let around = |prefix: &Prefix| {
            let outer = lengths.range(..prefix.len).map(|len| prefix.cut(*len));
            outer.filter(|outer| new.contains(outer) || self.rows.get(outer).is_some_and(stays)).count()
        };
        // Old ones that lie in a new one count anew; of many new ones all old ones are asked.
        let few = new.len() <= FEW;
        let old =
            self.rows.iter().filter(|(row, users)| (!few || new.iter().any(|new| new.covers(row))) && stays(users));
        let deep = new.iter().chain(old.map(|(row, _)| row)).find(|prefix| around(prefix) >= NESTED as usize);
        deep.map_or(Ok(()), |prefix| Err(SetError::Nested(*prefix)))
    }

    fn leaving(&self, remove: &[Arc<str>]) -> Result<Vec<Arc<Rule>>, SetError> {
        let mut seen = BTreeSet::new();
        remove
            .iter()
            .filter(|id| seen.insert(Arc::clone(id)))
            .map(|id| self.rules.get(id).cloned().ok_or_else(|| SetError::Unknown(Arc::clone(id))))
            .collect()
    }

    fn arriving(&self, remove: &[Arc<str>], add: Vec<Rule>) -> Result<Vec<Arc<Rule>>, SetError> {
        let mut seen = HashSet::new();
        for rule in &add {
            let kept = self.rules.contains_key(&rule.id) && !remove.contains(&rule.id);
            if kept || !seen.insert(Arc::clone(&rule.id)) {
                return Err(SetError::Exists(Arc::clone(&rule.id)));
            }
        }
        Ok(add.into_iter().map(Arc::new).collect())
    }

    /// Takes the rules; returns the prefixes whose rows may differ. `same`: rules that only come anew, and of which
    /// prefixes it is known.
    fn take(
        &mut self,
        leaving: &[Arc<Rule>],
        arriving: &[Arc<Rule>],
        same: HashMap<Arc<str>, Vec<Prefix>>,
    ) -> Vec<Prefix> {
        let mut touched = Vec::new();
        for rule in leaving.iter().chain(arriving).filter(|rule| !same.contains_key(&rule.id)) {
            touched.extend_from_slice(&rule.clients);
        }
        touched.extend(same.into_values().flatten());
        for rule in leaving {
            self.rules.remove(&rule.id);
            self.free.remove(&rule.id);
            if let Some(until) = rule.until {
                self.ends.remove(&(until.monotonic_ns, Arc::clone(&rule.id)));
            }
            for prefix in &rule.clients {
                if let Some(many) = self.lengths.get_mut(&prefix.len) {
                    *many -= 1;
                    if *many == 0 {
                        self.lengths.remove(&prefix.len);
                    }
                }
                if let Some(users) = self.rows.get_mut(prefix) {
                    users.retain(|user| user.id != rule.id);
                    if users.is_empty() {
                        self.rows.remove(prefix);
                    }
                }
            }
        }
        for rule in arriving {
            self.rules.insert(Arc::clone(&rule.id), Arc::clone(rule));
            if let Some(until) = rule.until {
                self.ends.insert((until.monotonic_ns, Arc::clone(&rule.id)));
            }
            if rule.clients.is_empty() {
                self.free.insert(Arc::clone(&rule.id), Arc::clone(rule));
            }
            for prefix in &rule.clients {
                *self.lengths.entry(prefix.len).or_default() += 1;
                self.rows.entry(*prefix).or_default().push(Arc::clone(rule));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched
    }
}

/// Prefixes that only one of two rules with the same slots has, or for which they end at different times.
fn differing(old: &Rule, new: &Rule) -> Vec<Prefix> {
    let ends = |rule: &Rule| rule.clients.iter().map(|prefix| (*prefix, rule.end_of(prefix))).collect::<Vec<_>>();
    let (old, new) = (ends(old), ends(new));
    let only = |some: &[(Prefix, u64)], others: &[(Prefix, u64)]| {
        some.iter().filter(|one| others.binary_search(one).is_err()).map(|(prefix, _)| *prefix).collect::<Vec<_>>()
    };
    [only(&old, &new), only(&new, &old)].concat()
}
