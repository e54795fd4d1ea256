//! What the loader sets before it loads.

use aya_ebpf::Global;
use weir_common::knob::{GoOffsets, NO_OFFSET, Offsets};

/// Offsets in kernel structures, from BTF.
#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(Offsets::NONE);

/// Offsets for goroutines.
#[unsafe(no_mangle)]
static GO_OFFSETS: Global<GoOffsets> = Global::new(GoOffsets::NONE);

/// 1: goroutines are told apart. The verifier leaves out what 0 excludes.
#[unsafe(no_mangle)]
static GOROUTINES: Global<u32> = Global::new(0);

/// The agent's own process id: its sockets are not observed. 0: none.
#[unsafe(no_mangle)]
static SELF_TGID: Global<u32> = Global::new(0);

/// Where the current process can be read: see `CURRENT_*`; 0: nowhere.
#[unsafe(no_mangle)]
static CURRENT: Global<u32> = Global::new(0);

/// Bytes of an answer's start that are kept whole however long its segment is; 0: as many as [`crate::hooks`] think due.
#[unsafe(no_mangle)]
static WINDOW: Global<u32> = Global::new(0);

/// `bpf_get_current_pid_tgid` is allowed in `cgroup_skb` (6.12+).
pub(crate) const CURRENT_HELPER: u32 = 1;
/// Only through `bpf_get_current_task` and offsets.
pub(crate) const CURRENT_TASK: u32 = 2;

#[inline(always)]
pub(crate) fn offsets() -> Offsets {
    OFFSETS.load()
}

#[inline(always)]
pub(crate) fn go_offsets() -> GoOffsets {
    GO_OFFSETS.load()
}

#[inline(always)]
pub(crate) fn goroutines() -> bool {
    GOROUTINES.load() != 0
}

#[inline(always)]
pub(crate) fn self_tgid() -> u32 {
    SELF_TGID.load()
}

#[inline(always)]
pub(crate) fn current() -> u32 {
    CURRENT.load()
}

#[inline(always)]
pub(crate) fn window() -> u32 {
    WINDOW.load()
}

/// Whether an offset is known.
#[inline(always)]
pub(crate) fn known(offset: u32) -> bool {
    offset != NO_OFFSET
}
