//! What is in the set.

use std::sync::Arc;

use weir_common::verdict::{Act, Active};

use super::RuleSet;
use super::draft::{Kept, places};
use crate::policy::machine::Machine;
use crate::policy::prefix::Prefix;
use crate::policy::rule::{Mode, Rule, Who};

impl RuleSet {
    /// All rules, by id.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Arc<Rule>> {
        self.rules.values()
    }

    /// A rule.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Rule>> {
        self.rules.get(id)
    }

    /// The node's mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The generation that counts.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The word that makes the generation count.
    #[must_use]
    pub fn active(&self) -> Active {
        self.generation << 1 | self.generation & 1
    }

    /// The table of the generation that counts.
    #[must_use]
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Identities that rules name, by group number.
    pub fn groups(&self) -> impl Iterator<Item = (u8, &Who)> {
        self.groups.iter().enumerate().filter_map(|(bit, group)| group.as_ref().map(|(who, _)| (bit as u8, who)))
    }

    /// Rules that a slot stands for and that a client's address does not rule out, whichever of the prefixes around it
    /// they have.
    pub fn of_slot(&self, slot: u16, client: std::net::IpAddr) -> impl Iterator<Item = &Arc<Rule>> {
        let shape = self.slots.get(usize::from(slot)).and_then(Option::as_ref).map(|kept| &kept.shape);
        self.around(client).filter(move |rule| shape.is_some_and(|shape| shape.is_of(rule)))
    }

    /// Slots whose rules refuse: in silence, or what comes before its connection has a socket.
    pub fn refusing(&self) -> impl Iterator<Item = u16> {
        let refuses = |kept: &Kept| kept.slot.act == Act::DENY.0 || kept.slot.act == Act::LIMIT.0;
        (0..).zip(&self.slots).filter(move |(_, kept)| kept.as_ref().is_some_and(refuses)).map(|(at, _)| at)
    }

    /// The slots of a rule in force.
    pub fn places(&self, rule: &Rule) -> impl Iterator<Item = u16> {
        places(&self.slots, &self.groups, rule).into_iter().flatten()
    }

    /// All rules that a slot stands for, by id.
    pub fn sharing(&self, slot: u16) -> impl Iterator<Item = &Arc<Rule>> {
        let shape = self.slots.get(usize::from(slot)).and_then(Option::as_ref).map(|kept| &kept.shape);
        self.rules.values().filter(move |rule| shape.is_some_and(|shape| shape.is_of(rule)))
    }

    /// Rules that a client's address does not rule out; a rule with several prefixes around it comes as often.
    pub fn around(&self, client: std::net::IpAddr) -> impl Iterator<Item = &Arc<Rule>> {
        let host = Prefix::host(client);
        let rows = self.lengths.keys().filter_map(move |len| self.rows.get(&host.cut(*len))).flatten();
        rows.chain(self.free.values())
    }

    /// Some rule in enforce mode has an end: it holds until then whether the agent lives or not.
    #[must_use]
    pub fn outlives(&self) -> bool {
        self.rules.values().any(|rule| rule.until.is_some() && rule.mode == Mode::Enforce)
    }

    /// Rules whose time is over.
    #[must_use]
    pub fn expired(&self, monotonic_ns: u64) -> Vec<Arc<str>> {
        let over = self.ends.iter().take_while(|(end, _)| *end <= monotonic_ns);
        over.map(|(_, id)| Arc::clone(id)).collect()
    }
}
