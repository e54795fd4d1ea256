//! Which identities of rules a process has. Rules name identities; the kernel half knows processes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Blocks;
use crate::model::Service;
use crate::policy::rule::Who;

/// How long a change waits for the capturing thread.
const SETTLE: Duration = Duration::from_secs(2);

/// What the capturing thread keeps: the identities that rules name, and the groups of the processes that have some.
#[derive(Debug, Default)]
pub(in crate::app) struct Known {
    version: u64,
    groups: Vec<(u8, Who)>,
    processes: HashMap<u32, u64>,
    listeners: HashMap<(u64, u16), u64>,
    /// What was told before everybody is told anew.
    before: (HashMap<u32, u64>, HashMap<(u64, u16), u64>),
    /// Services are named otherwise than before.
    stale: bool,
}

impl Known {
    /// Rules in force name identities.
    pub(in crate::app) fn is_wanted(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Services are named otherwise than before: every process is to be told again.
    pub(in crate::app) fn renamed(&mut self) {
        self.stale = true;
    }

    fn of(&self, service: &Service) -> u64 {
        self.groups.iter().filter(|(_, who)| who.is(service)).fold(0, |bits, (bit, _)| bits | 1 << bit)
    }
}

impl Blocks {
    /// Brings `known` up to date; true: the identities changed, and every process is to be told again.
    pub(in crate::app) fn identities(&self, known: &mut Known) -> bool {
        let version = self.identities.load(Ordering::Acquire);
        if version == known.version && !known.stale {
            return false;
        }
        known.version = version;
        known.stale = false;
        let told = (std::mem::take(&mut known.processes), std::mem::take(&mut known.listeners));
        // What came in between belongs to both.
        known.before.0.extend(told.0);
        known.before.1.extend(told.1);
        known.groups = if self.in_force.enforces() {
            self.in_force.set().groups().map(|(bit, who)| (bit, who.clone())).collect()
        } else {
            Vec::new()
        };
        true
    }

    /// Every process and listener was told since the identities changed.
    pub(in crate::app) fn told(&self, known: &mut Known) {
        let (processes, listeners) = std::mem::take(&mut known.before);
        for pid in processes.into_keys() {
            self.tell(pid, 0);
        }
        for place in listeners.into_keys() {
            self.tell_listener(place, 0);
        }
        self.told.store(known.version, Ordering::Release);
    }

    /// Waits until a change of the rules counts for the processes that are known, 2 s at most: who asked for a rule that
    /// names one may rely on it. Not to be called by the capturing thread, which tells them.
    pub(in crate::app) fn settle(&self) {
        let (wanted, any) = {
            let any = self.in_force.enforces() && self.in_force.set().groups().next().is_some();
            (self.identities.load(Ordering::Acquire), any)
        };
        let end = Instant::now() + SETTLE;
        while any && self.told.load(Ordering::Acquire) < wanted {
            if Instant::now() >= end {
                tracing::warn!("rules that name identities may not meet all processes yet");
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A process is of this service.
    pub(in crate::app) fn process(&self, known: &mut Known, pid: u32, service: &Arc<Service>) {
        let groups = known.of(service);
        let was = known.processes.get(&pid).copied().unwrap_or_default();
        // Told even where it is as before: the kernel half may have been emptied meanwhile.
        let before = known.before.0.remove(&pid).unwrap_or_default();
        if groups != was || groups != before {
            self.tell(pid, groups);
        }
        if groups == 0 {
            known.processes.remove(&pid);
        } else {
            known.processes.insert(pid, groups);
        }
    }

    /// Who listens there, since before the agent, is of this service.
    pub(in crate::app) fn listener(&self, known: &mut Known, place: (u64, u16), service: &Arc<Service>) {
        let groups = known.of(service);
        let before = known.before.1.remove(&place).unwrap_or_default();
        if groups != 0 {
            known.listeners.insert(place, groups);
        }
        if groups != 0 || before != 0 {
            self.tell_listener(place, groups);
        }
    }

    fn tell_listener(&self, place: (u64, u16), groups: u64) {
        if let Some(Err(error)) = self.in_force.kernel().map(|kernel| kernel.listener(place, groups)) {
            tracing::warn!(%error, port = place.1, "rules that name this listener's identity don't meet it");
        }
    }

    /// A process ended.
    pub(in crate::app) fn gone(&self, known: &mut Known, pid: u32) {
        let told = known.processes.remove(&pid).is_some();
        if known.before.0.remove(&pid).is_some() || told {
            self.tell(pid, 0);
        }
    }

    fn tell(&self, pid: u32, groups: u64) {
        if let Some(Err(error)) = self.in_force.kernel().map(|kernel| kernel.process(pid, groups)) {
            tracing::warn!(%error, pid, "rules that name this process's identity don't meet it");
        }
    }
}
