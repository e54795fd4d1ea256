//! Bounded copies from a packet.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;

/// Copies `len` (1..=`N`, `N` a power of two) payload bytes at `offset` to `to`, which must have room for `N`.
#[inline(always)]
pub(crate) fn payload<const N: u32>(skb: *mut __sk_buff, offset: u32, to: *mut u8, len: u32) -> Result<(), ()> {
    // 5.10 and 6.1 verifiers want a proven minimum: `((n - 1) & MASK) + 1`.
    let len = (len.wrapping_sub(1) & (N - 1)) + 1;
    // SAFETY: `to` has room for `N` bytes by contract, and `len` is at most `N`.
    if unsafe { bpf_skb_load_bytes(skb.cast(), offset, to.cast(), len) } == 0 { Ok(()) } else { Err(()) }
}
