//! Which identities of rules a process has. Rules name identities; the kernel half knows processes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Blocks;
use crate::model::Service;
use crate::policy::rule::Who;

/// What the capturing thread keeps: the identities that rules name, and the groups of the processes that have some.
#[derive(Debug, Default)]
pub(in crate::app) struct Known {
    version: u64,
    groups: Vec<(u8, Who)>,
    processes: HashMap<u32, u64>,
}

impl Known {
    /// Rules in force name identities.
    pub(in crate::app) fn is_wanted(&self) -> bool {
        !self.groups.is_empty()
    }

    fn of(&self, service: &Service) -> u64 {
        self.groups.iter().filter(|(_, who)| who.is(service)).fold(0, |bits, (bit, _)| bits | 1 << bit)
    }
}

impl Blocks {
    /// Brings `known` up to date; true: the identities changed, and every process is to be told again.
    pub(in crate::app) fn identities(&self, known: &mut Known) -> bool {
        let version = self.identities.load(Ordering::Acquire);
        if version == known.version {
            return false;
        }
        let book = self.book();
        known.version = version;
        known.processes.clear();
        known.groups =
            if book.enforces() { book.set.groups().map(|(bit, who)| (bit, who.clone())).collect() } else { Vec::new() };
        true
    }

    /// A process is of this service.
    pub(in crate::app) fn process(&self, known: &mut Known, pid: u32, service: &Arc<Service>) {
        let groups = known.of(service);
        let before = known.processes.get(&pid).copied().unwrap_or_default();
        if groups != before {
            self.tell(pid, groups);
            known.processes.insert(pid, groups);
        }
    }

    /// Who listens there, since before the agent, is of this service.
    pub(in crate::app) fn listener(&self, known: &Known, place: (u64, u16), service: &Arc<Service>) {
        let groups = known.of(service);
        let kernel = self.book().kernel.clone();
        if groups != 0
            && let Some(Err(error)) = kernel.map(|kernel| kernel.listener(place, groups))
        {
            tracing::warn!(%error, port = place.1, "rules that name this listener's identity don't meet it");
        }
    }

    /// A process ended.
    pub(in crate::app) fn gone(&self, known: &mut Known, pid: u32) {
        if known.processes.remove(&pid).is_some() {
            self.tell(pid, 0);
        }
    }

    fn tell(&self, pid: u32, groups: u64) {
        let kernel = self.book().kernel.clone();
        if let Some(Err(error)) = kernel.map(|kernel| kernel.process(pid, groups)) {
            tracing::warn!(%error, pid, "rules that name this process's identity don't meet it");
        }
    }
}
