//! Whether TCP will take what was received. Ingress runs before TCP verifies a checksum that the device did not: what
//! was damaged on the wire passes the hook, is dropped behind it, and comes again. Checked by capture tests
//! `a9_corrupt*`.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_map_lookup_elem, bpf_skb_load_bytes};

use crate::conn::{stage, staged};
use crate::maps::SUMS;
use crate::track::field;
use crate::{copy, knobs, packet, who};

/// `LOOPBACK_IFINDEX` of `include/net/flow.h`, in every network namespace: nothing is damaged there.
const LOOPBACK: u32 = 1;
/// Bytes that are summed at a time.
const STEP: usize = 512;
/// Steps of the longest IP packet.
const STEPS: u32 = 128;
/// Where in a `struct sk_buff` a field may lie.
const REACH: u32 = 1023;

/// A sum being made. Per CPU: ingress runs with soft interrupts off.
#[repr(C)]
pub(crate) struct Sum {
    /// Of what was summed so far, not folded.
    total: u64,
    /// Where the next step starts in the packet.
    at: u32,
    reserved: u32,
    bytes: [u64; STEP / 8],
}

/// Whether a received segment's checksum is wrong. The device has verified most: that costs one read, and nothing on
/// loopback.
#[inline(always)]
pub(crate) fn wrong(skb: *mut __sk_buff) -> bool {
    if field!(skb, __sk_buff, ingress_ifindex) == LOOPBACK {
        return false;
    }
    let offsets = knobs::offsets();
    if !knobs::known(offsets.skb_bits) {
        return false;
    }
    // The context is the packet's kernel structure; the bound is for the verifier.
    let bits = who::read::<u32>((skb as u64).wrapping_add(u64::from(offsets.skb_bits & REACH)));
    // `CHECKSUM_UNNECESSARY` is 1 and `CHECKSUM_PARTIAL` 3. Of the others, `csum_valid` tells what was verified since.
    if (bits >> (offsets.skb_summed & 31) | bits >> (offsets.skb_valid & 31)) & 1 != 0 {
        return false;
    }
    // SAFETY: the context of a cgroup_skb program.
    let total = unsafe { (*skb).len };
    let Some((sum, tcp)) = pseudo(skb, total) else { return false };
    let key = 0u32;
    // SAFETY: the map's key type, alive.
    let to: *mut Sum = unsafe { bpf_map_lookup_elem(SUMS.as_ptr(), (&raw const key).cast()) }.cast();
    if to.is_null() {
        return false;
    }
    stage!(to, total, sum);
    stage!(to, at, tcp);
    let mut step = 0;
    while step < STEPS && staged!(to, at) < total {
        if !add(skb, to, total) {
            return false;
        }
        step += 1;
    }
    staged!(to, at) >= total && folded(staged!(to, total)) != 0xffff
}

/// The sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1), and where the TCP header starts. All sums are of words
/// as they lie: ones' complement sums do not depend on the order of bytes.
#[inline(always)]
fn pseudo(skb: *mut __sk_buff, total: u32) -> Option<(u64, u32)> {
    let mut words = [0u32; 10];
    // SAFETY: `words` is 40 bytes long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, words.as_mut_ptr().cast(), 40) } != 0 {
        return None;
    }
    let first = u32::from_le(words[0]) & 0xff;
    let (mut sum, tcp) = if first >> 4 == 4 {
        (u64::from(words[3]) + u64::from(words[4]), (first & 15) * 4)
    } else {
        let mut sum = 0;
        let mut i = 2;
        while i < 10 {
            sum += u64::from(words[i]);
            i += 1;
        }
        (sum, packet::ipv6(skb, (u32::from_le(words[1]) >> 16) as u8).ok()??)
    };
    sum += u64::from((total.wrapping_sub(tcp) as u16).to_be()) + u64::from(6u16.to_be());
    Some((sum, tcp))
}

/// Adds the next bytes; false: they can't be read.
#[inline(always)]
fn add(skb: *mut __sk_buff, to: *mut Sum, total: u32) -> bool {
    let at = staged!(to, at);
    let left = total.wrapping_sub(at);
    let len = if left < STEP as u32 { left } else { STEP as u32 };
    if len < STEP as u32 {
        let mut i = 0;
        while i < STEP / 8 {
            stage!(to, bytes[i], 0);
            i += 1;
        }
    }
    // SAFETY: a field of a live map value.
    let bytes = unsafe { (&raw mut (*to).bytes).cast() };
    if copy::payload::<{ STEP as u32 }>(skb, at, bytes, len).is_err() {
        return false;
    }
    let mut sum = staged!(to, total);
    let mut i = 0;
    while i < STEP / 8 {
        let word = staged!(to, bytes[i]);
        sum += (word & 0xffff_ffff) + (word >> 32);
        i += 1;
    }
    stage!(to, total, sum);
    stage!(to, at, at.wrapping_add(len));
    true
}

/// A sum in 16 bits, carries added in.
#[inline(always)]
fn folded(sum: u64) -> u64 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}
