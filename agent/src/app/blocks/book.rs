//! Changes of the rules in force with everything that belongs to them: in the kernel half too, or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, RwLockReadGuard};

use super::Refused;
use super::allow::Allowed;
use super::attempts::Attempts;
use super::ends::Ends;
use super::gate::Kernel;
use super::in_force::{InForce, Tally};
use super::log::Log;
use crate::kernel::gate::GateError;
use crate::policy::rule::{Mode, Rule};
use crate::policy::set::RuleSet;

/// What the lock of [`super::Blocks`] guards: one change after the other.
pub(super) struct Book {
    pub(super) in_force: Arc<InForce>,
    pub(super) log: Log,
    pub(super) made: u64,
    /// Why rules are in monitor mode that were in enforce mode.
    pub(super) tripped: BTreeMap<Arc<str>, String>,
    /// What was refused unanswered.
    pub(super) attempts: Attempts,
    /// When rules that come by themselves end.
    pub(super) ends: Ends,
    /// The configuration's mode.
    pub(super) configured: Mode,
    /// Why the kernel half could not be opened when it was last asked for.
    pub(super) refused: Option<String>,
    /// The kernel half was tried and refuses: said once.
    pub(super) beaten: bool,
}

impl Book {
    pub(super) fn set(&self) -> RwLockReadGuard<'_, RuleSet> {
        self.in_force.set()
    }

    pub(super) fn allowed(&self) -> RwLockReadGuard<'_, Allowed> {
        self.in_force.allowed()
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.in_force.tally()
    }

    pub(super) fn kernel(&self) -> Option<&Kernel> {
        self.in_force.kernel()
    }

    /// Rules in enforce mode are carried out by the kernel half.
    pub(super) fn enforces(&self) -> bool {
        self.in_force.enforces()
    }

    /// Removes and adds rules, in the kernel half too: all of it or nothing.
    pub(super) fn change(&mut self, remove: &[Arc<str>], add: Vec<Rule>) -> Result<(), Refused> {
        let changed = self.exchange(remove, add);
        self.attempts_settle();
        changed
    }

    /// What rules had counted that are gone is forgotten.
    pub(super) fn attempts_settle(&mut self) {
        let in_force = Arc::clone(&self.in_force);
        self.attempts.only(&in_force.set());
    }

    /// As [`Self::change`]; what a rule had counted that leaves is kept until [`Self::attempts_settle`], should it come back.
    pub(super) fn exchange(&mut self, remove: &[Arc<str>], add: Vec<Rule>) -> Result<(), Refused> {
        let in_force = Arc::clone(&self.in_force);
        let (leaving, before) = {
            let set = in_force.set();
            let leaving: Vec<Arc<Rule>> = remove.iter().filter_map(|id| set.get(id).cloned()).collect();
            let before = in_force.kernel().map(|kernel| self.attempts.before(&set, kernel, &leaving));
            (leaving, before)
        };
        let arriving: Vec<Arc<str>> = add.iter().map(|rule| Arc::clone(&rule.id)).collect();
        let change = in_force.change(remove, add)?;
        let Some(kernel) = in_force.kernel() else { return Ok(()) };
        let set = in_force.set();
        self.attempts.changed(before.unwrap_or_default(), kernel, &change);
        if set.mode() != Mode::Enforce {
            return Ok(());
        }
        let Err(error) = kernel.apply(&set, &change) else { return Ok(()) };
        drop(set);
        let leaving = leaving.iter().map(|rule| Rule::clone(rule)).collect();
        drop(in_force.change(&arriving, leaving)?);
        if let Err(again) = kernel.open(&in_force.set(), &in_force.allowed()) {
            tracing::error!(error = %again, "the rules as they were can't be put back: the node is in monitor mode, nothing is dropped");
            in_force.set_mode(Mode::Monitor);
            in_force.carries_out(false);
            self.refused = Some(again.to_string());
        }
        Err(error.into())
    }

    /// Sets the node's mode, in the kernel half too. `ready`: what became of the gate's programs, which are loaded before
    /// the book is locked.
    pub(super) fn set_mode(&mut self, mode: Mode, ready: Result<(), GateError>) -> Result<(), Refused> {
        let in_force = Arc::clone(&self.in_force);
        if mode == in_force.set().mode() {
            return Ok(());
        }
        match (mode, in_force.kernel()) {
            (Mode::Enforce, None) => return Err(Refused::NoGate),
            (Mode::Enforce, Some(kernel)) => {
                in_force.set_mode(mode);
                let opened = ready.and_then(|()| kernel.open(&in_force.set(), &in_force.allowed()));
                if let Err(error) = opened {
                    in_force.set_mode(Mode::Monitor);
                    self.refused = Some(error.to_string());
                    return Err(error.into());
                }
                in_force.carries_out(true);
                self.refused = None;
            }
            (Mode::Monitor, kernel) => {
                in_force.set_mode(mode);
                in_force.carries_out(false);
                self.refused = None;
                kernel.map_or(Ok(()), Kernel::close)?;
            }
        }
        Ok(())
    }
}
