//! The rules in force with everything that belongs to them, and changes of them: in the kernel half too, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::policy::meet::Buckets;
use crate::policy::rule::{Mode, Rule};
use crate::policy::set::RuleSet;

use super::Refused;
use super::allow::Allowed;
use super::attempts::Attempts;
use super::breaker::Breaker;
use super::ends::Ends;
use super::gate::Kernel;
use super::hits::Hits;
use super::log::Log;
use super::said::Said;

/// What the lock of [`super::Blocks`] guards.
pub(super) struct Book {
    pub(super) set: RuleSet,
    pub(super) buckets: Buckets,
    pub(super) hits: BTreeMap<Arc<str>, Hits>,
    pub(super) allowed: Allowed,
    pub(super) log: Log,
    pub(super) made: u64,
    pub(super) kernel: Option<Kernel>,
    pub(super) breaker: Breaker,
    /// Why rules are in monitor mode that were in enforce mode.
    pub(super) tripped: BTreeMap<Arc<str>, String>,
    /// What was refused unanswered.
    pub(super) attempts: Attempts,
    /// How often the circuit breaker tripped, by reason.
    pub(super) trips: BTreeMap<&'static str, u64>,
    /// What it did and was not exported yet.
    pub(super) alarms: Vec<(Arc<str>, String)>,
    /// When rules that come by themselves end.
    pub(super) ends: Ends,
    /// The configuration's mode.
    pub(super) configured: Mode,
    /// Why the kernel half could not be opened when it was last asked for.
    pub(super) refused: Option<String>,
    /// What the log tells of drops.
    pub(super) said: Said,
    /// The kernel half was tried and refuses: said once.
    pub(super) beaten: bool,
}

impl Book {
    /// Rules in enforce mode are carried out by the kernel half.
    pub(super) fn enforces(&self) -> bool {
        self.set.mode() == Mode::Enforce
    }

    /// Removes and adds rules, in the kernel half too: all of it or nothing.
    pub(super) fn change(&mut self, remove: &[Arc<str>], add: Vec<Rule>) -> Result<(), Refused> {
        let leaving: Vec<Rule> =
            remove.iter().filter_map(|id| self.set.get(id).map(|rule| Rule::clone(rule))).collect();
        let arriving: Vec<Arc<str>> = add.iter().map(|rule| Arc::clone(&rule.id)).collect();
        let before = self.kernel.as_ref().map(|kernel| self.attempts.before(&self.set, kernel));
        let change = self.set.change(remove, add)?;
        if let (Some(kernel), Some(before)) = (&self.kernel, before) {
            self.attempts.changed(before, &self.set, kernel, &change);
        }
        let Some(kernel) = self.kernel.clone().filter(|_| self.enforces()) else { return Ok(()) };
        let Err(error) = kernel.apply(&self.set, &change) else { return Ok(()) };
        drop(self.set.change(&arriving, leaving)?);
        if let Err(again) = kernel.open(&self.set, &self.allowed) {
            tracing::error!(error = %again, "the rules as they were can't be put back: the node is in monitor mode, nothing is dropped");
            drop(self.set.set_mode(Mode::Monitor));
            self.refused = Some(again.to_string());
        }
        Err(error.into())
    }

    /// Sets the node's mode, in the kernel half too.
    pub(super) fn set_mode(&mut self, mode: Mode) -> Result<(), Refused> {
        if mode == self.set.mode() {
            return Ok(());
        }
        let kernel = self.kernel.clone();
        match (mode, kernel) {
            (Mode::Enforce, None) => return Err(Refused::NoGate),
            (Mode::Enforce, Some(kernel)) => {
                drop(self.set.set_mode(mode));
                if let Err(error) = kernel.open(&self.set, &self.allowed) {
                    drop(self.set.set_mode(Mode::Monitor));
                    self.refused = Some(error.to_string());
                    return Err(error.into());
                }
                self.refused = None;
            }
            (Mode::Monitor, kernel) => {
                drop(self.set.set_mode(mode));
                self.refused = None;
                kernel.map_or(Ok(()), |kernel| kernel.close())?;
            }
        }
        Ok(())
    }
}
