//! Slots and identity groups: who has which, and who would have them.

use std::sync::Arc;

use weir_common::verdict::Slot;

use super::SetError;
use crate::policy::machine::Conditions;
use crate::policy::rule::{Rule, Who};
use crate::policy::shape::{Shape, shapes};

/// A slot that is taken.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) shape: Shape,
    pub(super) slot: Slot,
    users: u32,
}

/// Group bits of a rule's two ends.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::policy) struct GroupBits {
    pub(in crate::policy) client: u64,
    pub(in crate::policy) server: u64,
}

pub(super) fn bits(groups: &[Option<(Who, u32)>], rule: &Rule) -> GroupBits {
    let of = |who: &[Who]| {
        let known = groups.iter().enumerate().filter_map(|(bit, group)| group.as_ref().map(|(who, _)| (bit, who)));
        known.filter(|(_, group)| who.contains(group)).fold(0, |bits, (bit, _)| bits | 1 << bit)
    };
    GroupBits { client: of(&rule.client_who), server: of(&rule.server_who) }
}

/// The slots of a rule.
pub(super) fn places(slots: &[Option<Kept>], groups: &[Option<(Who, u32)>], rule: &Rule) -> Vec<Option<u16>> {
    shapes(rule, &bits(groups, rule)).iter().map(|shape| position(slots, shape)).collect()
}

pub(super) fn position(slots: &[Option<Kept>], shape: &Shape) -> Option<u16> {
    slots.iter().position(|kept| kept.as_ref().is_some_and(|kept| kept.shape == *shape)).map(|at| at as u16)
}

pub(super) fn requests(slots: &[Option<Kept>]) -> Vec<(u16, &Conditions)> {
    slots
        .iter()
        .enumerate()
        .filter_map(|(at, kept)| kept.as_ref().map(|kept| (at as u16, kept)))
        .filter(|(_, kept)| kept.shape.reads_requests)
        .map(|(at, kept)| (at, &kept.shape.request))
        .collect()
}

/// Bits that stand for another identity in `new` than in `old`.
pub(super) fn renamed(old: &[Option<(Who, u32)>], new: &[Option<(Who, u32)>]) -> u64 {
    let who = |group: &Option<(Who, u32)>| group.as_ref().map(|(who, _)| who.clone());
    let pairs = old.iter().zip(new).enumerate();
    pairs.filter(|(_, (old, new))| new.is_some() && who(old) != who(new)).fold(0, |bits, (bit, _)| bits | 1 << bit)
}

/// Slots and groups as they would be.
pub(super) struct Draft<'a> {
    before: &'a [Option<Kept>],
    pub(super) slots: Vec<Option<Kept>>,
    pub(super) groups: Vec<Option<(Who, u32)>>,
    pub(super) written: Vec<(u16, Slot)>,
}

impl<'a> Draft<'a> {
    pub(super) fn of(slots: &'a [Option<Kept>], groups: &[Option<(Who, u32)>]) -> Self {
        Self { before: slots, slots: slots.to_vec(), groups: groups.to_vec(), written: Vec::new() }
    }

    pub(super) fn leave(&mut self, rule: &Rule) {
        for shape in shapes(rule, &bits(&self.groups, rule)) {
            if let Some(at) = position(&self.slots, &shape)
                && let Some(kept) = &mut self.slots[usize::from(at)]
            {
                kept.users -= 1;
                if kept.users == 0 {
                    self.slots[usize::from(at)] = None;
                }
            }
        }
        for who in rule.client_who.iter().chain(&rule.server_who) {
            for group in &mut self.groups {
                if let Some((_, users)) = group.as_mut().filter(|(known, _)| known == who) {
                    *users -= 1;
                    if *users == 0 {
                        *group = None;
                    }
                }
            }
        }
    }

    pub(super) fn arrive(&mut self, rule: &Arc<Rule>) -> Result<(), SetError> {
        for who in rule.client_who.iter().chain(&rule.server_who) {
            if let Some((_, users)) = self.groups.iter_mut().flatten().find(|(known, _)| known == who) {
                *users += 1;
            } else {
                let free = self.groups.iter_mut().find(|group| group.is_none());
                *free.ok_or_else(|| SetError::Groups(Arc::clone(&rule.id)))? = Some((who.clone(), 1));
            }
        }
        for shape in shapes(rule, &bits(&self.groups, rule)) {
            if let Some(at) = position(&self.slots, &shape) {
                if let Some(kept) = &mut self.slots[usize::from(at)] {
                    kept.users += 1;
                }
                continue;
            }
            // The slot of a rule that leaves and comes again stays as it is.
            let before = self.before.iter().zip(&self.slots);
            let same = before
                .into_iter()
                .position(|(old, new)| new.is_none() && old.as_ref().is_some_and(|old| old.shape == shape));
            if let Some(at) = same {
                let slot = shape.slot();
                self.slots[at] = Some(Kept { shape, slot, users: 1 });
                continue;
            }
            // A slot that the old generation still reads is not written.
            let both = self.slots.iter().zip(self.before);
            let free = both.into_iter().position(|(new, old)| new.is_none() && old.is_none());
            let free = free.ok_or_else(|| SetError::Slots(Arc::clone(&rule.id)))?;
            let slot = shape.slot();
            self.slots[free] = Some(Kept { shape, slot, users: 1 });
            self.written.push((free as u16, slot));
        }
        Ok(())
    }

    pub(super) fn freed(&self) -> Vec<u16> {
        let pairs = self.before.iter().zip(&self.slots).enumerate();
        pairs.filter(|(_, (old, new))| old.is_some() && new.is_none()).map(|(at, _)| at as u16).collect()
    }
}
