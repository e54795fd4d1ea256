//! What the set comes to, as the kernel half reads it.

use std::sync::Arc;

use weir_common::verdict::{AddressRow, Bank, Mask};

use super::draft::{Kept, bits, position};
use super::{Change, RuleSet};
use crate::policy::machine;
use crate::policy::prefix::Prefix;
use crate::policy::rule::Mode;
use crate::policy::shape::shapes;

impl RuleSet {
    /// Everything that the generation that counts comes to, for tables that are empty.
    #[must_use]
    pub fn whole(&self) -> Change {
        let slots = (0..).zip(&self.slots).filter_map(|(at, kept)| kept.as_ref().map(|kept| (at, kept.slot)));
        Change {
            generation: self.generation,
            slots: slots.collect(),
            rows: self.rows.keys().filter_map(|prefix| Some((*prefix, self.row(*prefix)?))).collect(),
            machine: Some(Arc::clone(&self.machine)),
            bank: self.bank(),
            ..Change::default()
        }
    }

    /// The row of a prefix. Where rules of one prefix end at different times, the earliest end counts in the kernel half
    /// (it must never drop for too long), and the row is written anew when it comes.
    #[must_use]
    pub fn row(&self, prefix: Prefix) -> Option<AddressRow> {
        let users = self.rows.get(&prefix)?;
        let mut row = AddressRow { len: u32::from(prefix.len), from: self.active(), ..AddressRow::default() };
        for rule in users {
            for shape in shapes(rule, &bits(&self.groups, rule)) {
                if let Some(slot) = position(&self.slots, &shape) {
                    machine::set(&mut row.slots, slot);
                }
            }
            row.until = match (row.until, rule.end_of(&prefix)) {
                (until, 0) => until,
                (0, end) => end,
                (until, end) => until.min(end),
            };
        }
        Some(row)
    }

    pub(super) fn bank(&self) -> Bank {
        let (mut any, mut request): (Mask, Mask) = ([0; 4], [0; 4]);
        let (mut identity, mut pairs) = (0, 0);
        for (at, kept) in self.slots.iter().enumerate() {
            let Some(Kept { shape, slot, .. }) = kept else { continue };
            if shape.any_client {
                machine::set(&mut any, at as u16);
            }
            if shape.reads_requests {
                machine::set(&mut request, at as u16);
            }
            identity |= u32::from(slot.client_groups | slot.server_groups != 0);
            pairs |= u32::from(slot.client_groups != 0 && slot.server_groups != 0);
        }
        Bank { any, request, table: self.table, enforce: u32::from(self.mode == Mode::Enforce), identity, pairs }
    }
}
