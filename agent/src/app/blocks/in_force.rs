//! What is in force, as those who meet calls look at it: the capturing and the judging thread. A change of rules may take
//! its time (the kernel half is written, the audit log reaches the disk, programs are loaded); they never wait for it,
//! only for the moment in which it is taken over here.
//!
//! Whoever changes anything holds [`super::Book`]'s lock, and is so the only one that writes. Of several locks the
//! allow-list's comes behind the rules', and the tally's last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use super::allow::Allowed;
use super::breaker::Breaker;
use super::gate::Kernel;
use super::hits::Hits;
use super::said::Said;
use super::session::Session;
use crate::identity::kube::State;
use crate::policy::meet::Buckets;
use crate::policy::rule::{Mode, Rule};
use crate::policy::set::{Change, RuleSet, SetError};

/// Rules, allow-list, and what they met.
pub(super) struct InForce {
    set: RwLock<RuleSet>,
    allowed: RwLock<Allowed>,
    tally: Mutex<Tally>,
    /// There once the kernel half is loaded.
    kernel: OnceLock<Kernel>,
    /// Rules in enforce mode are carried out by the kernel half: the node's mode, once that is done.
    enforces: AtomicBool,
}

/// What calls count in.
pub(super) struct Tally {
    pub(super) buckets: Buckets,
    pub(super) hits: BTreeMap<Arc<str>, Hits>,
    pub(super) breaker: Breaker,
    /// What the log tells of drops.
    pub(super) said: Said,
    /// How often the circuit breaker tripped, by reason.
    pub(super) trips: BTreeMap<&'static str, u64>,
    /// What it did and was not exported yet.
    pub(super) alarms: Vec<(Arc<str>, String)>,
}

impl InForce {
    pub(super) fn new(set: RuleSet, allowed: Allowed, breaker: Breaker) -> Self {
        let tally = Tally {
            buckets: Buckets::default(),
            hits: BTreeMap::new(),
            breaker,
            said: Said::default(),
            trips: BTreeMap::new(),
            alarms: Vec::new(),
        };
        Self {
            set: set.into(),
            allowed: allowed.into(),
            tally: tally.into(),
            kernel: OnceLock::new(),
            enforces: false.into(),
        }
    }

    /// The rules.
    pub(super) fn set(&self) -> RwLockReadGuard<'_, RuleSet> {
        self.set.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The allow-list.
    pub(super) fn allowed(&self) -> RwLockReadGuard<'_, Allowed> {
        self.allowed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What calls count in. Not to be held while anything else is waited for.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel half.
    pub(super) fn kernel(&self) -> Option<&Kernel> {
        self.kernel.get()
    }

    /// Rules in enforce mode are carried out by the kernel half.
    pub(super) fn enforces(&self) -> bool {
        self.enforces.load(Ordering::Acquire)
    }
}

/// For who holds the book.
impl InForce {
    pub(super) fn has_kernel(&self, kernel: Kernel) {
        // There is one for as long as the agent lives.
        let _ = self.kernel.set(kernel);
    }

    /// Removes and adds rules.
    pub(super) fn change(&self, remove: &[Arc<str>], add: Vec<Rule>) -> Result<Change, SetError> {
        self.set.write().unwrap_or_else(PoisonError::into_inner).change(remove, add)
    }

    /// The kernel half carries rules out, or does not.
    pub(super) fn carries_out(&self, on: bool) {
        self.enforces.store(on, Ordering::Release);
    }

    /// Sets the rules' mode of the node.
    pub(super) fn set_mode(&self, mode: Mode) {
        drop(self.set.write().unwrap_or_else(PoisonError::into_inner).set_mode(mode));
    }

    /// See [`Allowed::know`].
    pub(super) fn know(&self, cluster: Arc<State>) {
        self.allowed.write().unwrap_or_else(PoisonError::into_inner).know(cluster);
    }

    /// See [`Allowed::renew`].
    pub(super) fn renew(&self, fresh: Allowed) -> bool {
        // Looked for before, because that takes its time.
        let living = self.allowed().living();
        self.allowed.write().unwrap_or_else(PoisonError::into_inner).renew(fresh, living)
    }

    /// See [`Allowed::admin`].
    pub(super) fn admin(&self, session: Session) -> bool {
        let known = self.allowed().knows(&session);
        !known && self.allowed.write().unwrap_or_else(PoisonError::into_inner).admin(session)
    }
}
