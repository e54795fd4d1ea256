//! Per-CPU counters.

use aya_ebpf::helpers::generated::bpf_map_lookup_elem;
use weir_common::knob::Slot;

use crate::maps::COUNTS;

/// Adds `n` to a counter of this CPU. A program may be preempted by another on the same CPU: at worst one increment of
/// a statistic is lost on kernels where process-context hooks are preemptible, so the ledger's exact counters add with
/// an atomic instruction.
#[inline(always)]
pub(crate) fn count(slot: Slot, n: u64) {
    let key = slot.0;
    // SAFETY: the map is an array of u64 and `key` points to a live u32.
    let value = unsafe { bpf_map_lookup_elem(COUNTS.as_ptr(), core::ptr::from_ref(&key).cast()) }.cast::<u64>();
    if value.is_null() {
        return;
    }
    // SAFETY: checked for null above; the verifier knows its size. `AtomicU64::from_ptr` needs 8-byte alignment, which
    // map values have.
    unsafe { core::sync::atomic::AtomicU64::from_ptr(value) }.fetch_add(n, core::sync::atomic::Ordering::Relaxed);
}
