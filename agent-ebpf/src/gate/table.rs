//! Look-ups in the tables that the agent writes.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_map_lookup_elem, bpf_map_update_elem, bpf_sk_storage_get};
use weir_common::judge::{Row, Table};
use weir_common::verdict::{GateSlot, STATES as STATES_MAX, SlotCount};

use super::state::Gate;
use crate::maps::{GATE_COUNTS, GATES, SLOT_COUNTS, STATES, SWITCH};

/// A value of an array; null for one that is not there.
#[inline(always)]
pub(super) fn at<T>(map: *mut c_void, index: u32) -> *mut T {
    // SAFETY: `index` is alive; the caller names the map's value type.
    unsafe { bpf_map_lookup_elem(map, (&raw const index).cast()) }.cast()
}

/// A value by its key; null for one that is not there.
#[inline(always)]
pub(super) fn of<K, T>(map: *mut c_void, key: &K) -> *mut T {
    // SAFETY: `key` is alive; the caller names the map's types.
    unsafe { bpf_map_lookup_elem(map, core::ptr::from_ref(key).cast()) }.cast()
}

/// Writes a value; a full table keeps what it has.
#[inline(always)]
pub(super) fn put<K, T>(map: *mut c_void, key: &K, value: &T) {
    // SAFETY: both are alive; the caller names the map's types.
    unsafe { bpf_map_update_elem(map, core::ptr::from_ref(key).cast(), core::ptr::from_ref(value).cast(), 0) };
}

/// A word of the switch; 0 where it can't be read.
#[inline(always)]
pub(super) fn switch(index: u32) -> u64 {
    let word = at::<u64>(SWITCH.as_ptr(), index);
    if word.is_null() {
        return 0;
    }
    // SAFETY: checked for null; the agent writes it at once.
    unsafe { word.read_volatile() }
}

/// The gate's state of a socket; null where there is none.
#[inline(always)]
pub(super) fn gate(sk: *mut c_void, flags: u64) -> *mut Gate {
    // SAFETY: `sk` is a full socket; the verifier checks it.
    unsafe { bpf_sk_storage_get(GATES.as_ptr(), sk, core::ptr::null_mut(), flags) }.cast()
}

#[inline(always)]
fn add(value: *mut u64, n: u64) {
    // SAFETY: checked by the callers; see `stats::count`.
    unsafe { core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(value, n) };
}

/// Counts one.
#[inline(always)]
pub(super) fn count(slot: GateSlot) {
    let value = at::<u64>(GATE_COUNTS.as_ptr(), slot.0);
    if !value.is_null() {
        add(value, 1);
    }
}

/// What is counted of a slot.
#[derive(Clone, Copy)]
pub(super) enum Met {
    Connection,
    Request,
    Segment,
    /// A packet that asked for a connection.
    Attempt,
}

/// Counts one of a slot.
#[inline(always)]
pub(super) fn met(slot: u32, what: Met) {
    let counts = at::<SlotCount>(SLOT_COUNTS.as_ptr(), slot);
    if counts.is_null() {
        return;
    }
    // SAFETY: checked for null.
    let value = unsafe {
        match what {
            Met::Connection => &raw mut (*counts).connections,
            Met::Request => &raw mut (*counts).requests,
            Met::Segment => &raw mut (*counts).segments,
            Met::Attempt => &raw mut (*counts).attempts,
        }
    };
    add(value, 1);
}

/// One of the two compiled tables.
pub(super) struct Half(pub(super) u32);

impl Table for Half {
    #[inline(always)]
    fn row(&self, state: u16) -> Option<&Row> {
        let row = at::<Row>(STATES.as_ptr(), self.0 * STATES_MAX + u32::from(state));
        // SAFETY: null, or a map value.
        unsafe { row.as_ref() }
    }
}
