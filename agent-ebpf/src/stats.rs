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
    // SAFETY: checked for null above; the verifier knows its size; map values are 8-byte aligned. The target declares
    // no atomics, so this is the intrinsic: it compiles to `BPF_ATOMIC | BPF_ADD` without fetch, which 5.10 has.
    unsafe { core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(value, n) };
}
