//! The kernel's half of the rules in force: a change is written whole before one word makes it count.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use weir_common::verdict::{Act, AllowRow, GRACE_NS, Identity, IdentityKey};

use super::allow::Allowed;
use crate::app::precedence::{self, Precedence};
use crate::clock;
use crate::kernel::gate::{Gate, GateError};
use crate::kernel::load::Half;
use crate::policy::rule::Who;
use crate::policy::set::{Change, RuleSet};

/// The kernel half, as far as it drops.
pub(super) struct Kernel {
    half: Arc<Mutex<Half>>,
    precedence: Arc<Precedence>,
}

impl Kernel {
    pub(super) fn new(half: Arc<Mutex<Half>>, precedence: Arc<Precedence>) -> Self {
        Self { half, precedence }
    }

    fn half(&self) -> MutexGuard<'_, Half> {
        self.half.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the gate's programs where that was not done yet. Their verification takes a second of a processor's time and
    /// more, which the capturing thread needs on a busy node: it goes ahead meanwhile, and this yields.
    pub(super) fn load(&self) -> Result<(), GateError> {
        if self.look(Gate::is_loaded) {
            return Ok(());
        }
        let _ahead = self.precedence.ahead();
        let load = || {
            precedence::yields();
            self.half().load_gate()
        };
        thread::scope(|scope| scope.spawn(load).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Puts all rules in force into tables that are emptied first, and attaches the gate.
    pub(super) fn open(&self, set: &RuleSet, allowed: &Allowed) -> Result<(), GateError> {
        let mut half = self.half();
        half.enforce(true)?;
        let gate = &mut half.gate;
        let result = fill(gate, set, allowed);
        if result.is_err() {
            // Attached without rules it would cost and not drop.
            let _ = half.enforce(false);
        }
        result
    }

    /// Lets everything pass and detaches the gate.
    pub(super) fn close(&self) -> Result<(), GateError> {
        self.half().enforce(false)
    }

    /// Takes over a change; where that fails, the rules as they were before are to be put back by [`Kernel::open`].
    pub(super) fn apply(&self, set: &RuleSet, change: &Change) -> Result<(), GateError> {
        let mut half = self.half();
        let gate = &mut half.gate;
        write(gate, set, change)?;
        gate.activate(set.active())?;
        // From here on the new generation counts; what is left over does no harm, and is tried again with its slot.
        for slot in &change.freed {
            gate.slot(*slot, weir_common::verdict::Slot::default())?;
        }
        for prefix in &change.gone {
            gate.no_row(prefix.bytes, prefix.len)?;
        }
        outlive(gate, set);
        Ok(())
    }

    /// The agent lives.
    pub(super) fn beat(&self) -> Result<(), GateError> {
        self.half().gate.beat(clock::monotonic_ns())
    }

    /// Writes the allow-list anew.
    pub(super) fn allow(&self, allowed: &Allowed) -> Result<(), GateError> {
        self.half().gate.allow(&rows(allowed))
    }

    /// The identity groups of a process.
    pub(super) fn process(&self, pid: u32, groups: u64) -> Result<(), GateError> {
        let mut key = IdentityKey { kind: Identity::PROCESS.0, ..IdentityKey::default() };
        if let Some(name) = key.name.first_chunk_mut() {
            *name = u64::from(pid).to_ne_bytes();
        }
        self.half().gate.identity(key, groups)
    }

    /// The identity groups of who listens on a port of a network namespace, since before the kernel half was there.
    pub(super) fn listener(&self, (netns, port): (u64, u16), groups: u64) -> Result<(), GateError> {
        let mut key = IdentityKey { kind: Identity::LISTENER.0, ..IdentityKey::default() };
        let bytes = netns.to_ne_bytes().into_iter().chain(port.to_ne_bytes());
        key.name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        self.half().gate.identity(key, groups)
    }

    /// Runs `look` on the gate.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Gate) -> T) -> T {
        look(&self.half().gate)
    }
}

fn fill(gate: &mut Gate, set: &RuleSet, allowed: &Allowed) -> Result<(), GateError> {
    gate.activate(0)?;
    gate.no_rows()?;
    gate.no_identities()?;
    gate.beat(clock::monotonic_ns())?;
    gate.allow(&rows(allowed))?;
    write(gate, set, &set.whole())?;
    gate.activate(set.active())?;
    outlive(gate, set);
    Ok(())
}

/// Keeps the gate beyond the agent's death where a rule asks for it. Without a bpffs its rules end with the agent.
fn outlive(gate: &mut Gate, set: &RuleSet) {
    if let Err(error) = gate.outlive(set.outlives()) {
        tracing::warn!(%error, seconds = GRACE_NS / 1_000_000_000, "should the agent die, its rules end then; with a bpffs at /sys/fs/bpf, best mounted with mode=0700, rules with an end hold until then");
    }
}

/// Everything that must be there before a generation counts.
fn write(gate: &mut Gate, set: &RuleSet, change: &Change) -> Result<(), GateError> {
    if let Some(machine) = &change.machine {
        gate.machine(change.bank.table, &machine.rows, &machine.classes, &machine.masks)?;
    }
    for (index, slot) in &change.slots {
        if slot.act == Act::LIMIT.0 {
            gate.no_limits(*index)?;
        }
        gate.slot(*index, *slot)?;
    }
    for (prefix, row) in &change.rows {
        gate.row(prefix.bytes, row)?;
    }
    if change.renamed != 0 {
        // Who was of the identity that a number stood for before is not of the one that it stands for now.
        gate.leave_groups(change.renamed)?;
    }
    for (bit, who) in set.groups() {
        if let Who::Process(name) = who {
            let mut key = IdentityKey { kind: Identity::COMM.0, ..IdentityKey::default() };
            for (to, from) in key.name.iter_mut().take(15).zip(name.bytes()) {
                *to = from;
            }
            gate.identity(key, 1 << bit)?;
        }
    }
    gate.bank(set.active(), change.bank)
}

fn rows(allowed: &Allowed) -> Vec<([u8; 16], u8, AllowRow)> {
    let row = |(prefix, soft): (crate::policy::prefix::Prefix, bool)| {
        (prefix.bytes, prefix.len, AllowRow { hits: 0, soft: soft.into(), reserved: 0 })
    };
    allowed.prefixes().map(row).collect()
}
