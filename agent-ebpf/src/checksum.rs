//! Whether TCP will take what was received. Ingress runs before TCP verifies a checksum that the device did not: what
//! was damaged on the wire passes the hook, is dropped behind it, and comes again. Checked by capture tests
//! `a9_corrupt*`.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_map_lookup_elem, bpf_skb_load_bytes};

use crate::conn::{stage, staged};
use crate::maps::SUMS;
use crate::packet::word;
use crate::track::field;
use crate::{copy, knobs, packet, who};

/// `LOOPBACK_IFINDEX` of `include/net/flow.h`, in every network namespace: nothing is damaged there.
const LOOPBACK: u32 = 1;
/// Bytes that are summed at a time.
const STEP: usize = 512;
/// Words of a step.
const WORDS: usize = STEP / 4;
/// Steps of the longest IP packet.
const STEPS: u32 = 127;
/// Where in a `struct sk_buff` a field may lie.
const REACH: u32 = 1023;

/// A sum being made. Per CPU: ingress runs with soft interrupts off.
#[repr(C)]
pub(crate) struct Sum {
    /// Of what was summed so far, not folded.
    total: u64,
    /// Where the next step starts in the packet.
    at: u32,
    /// Bytes of the last step.
    left: u32,
    words: [u32; WORDS],
}

/// Whether a received segment's checksum is wrong. What does not come from the wire is known by its looks, of most else
/// the device has verified it: that costs one read.
#[inline(always)]
pub(crate) fn wrong(skb: *mut __sk_buff) -> bool {
    let offsets = knobs::offsets();
    if !knobs::known(offsets.skb_bits) || field!(skb, __sk_buff, ingress_ifindex) == LOOPBACK || unsummed(skb) {
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
    while step < STEPS && total.wrapping_sub(staged!(to, at)) >= STEP as u32 {
        if !add(skb, to, STEP as u32) {
            return false;
        }
        step += 1;
    }
    let left = total.wrapping_sub(staged!(to, at));
    if left >= STEP as u32 {
        return false;
    }
    if left > 0 {
        clear(to);
        // Read back, so that the compiler does not leave out the bounds that the verifier wants to see.
        stage!(to, left, left);
        if !add(skb, to, staged!(to, left)) {
            return false;
        }
    }
    folded(staged!(to, total)) != 0xffff
}

/// Whether the checksum is that of the pseudo-header alone, as in what was sent on this machine or was joined by GRO: the
/// device would complete it (`CHECKSUM_PARTIAL`). A damaged segment looks so once in 65 536 times, as often as it looks
/// right.
#[inline(always)]
fn unsummed(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context of a cgroup_skb program.
    let (total, data, end) = unsafe { ((*skb).len, (*skb).data as usize, (*skb).data_end as usize) };
    if data + 40 > end {
        return false;
    }
    if word!(data, 0, "u8") == 0x45 {
        let sum = word!(data, 12, "u32") + word!(data, 16, "u32") + length(total.wrapping_sub(20));
        return folded(sum) == word!(data, 36, "u16");
    }
    if data + 60 > end || word!(data, 0, "u8") >> 4 != 6 || word!(data, 6, "u8") != 6 {
        return false;
    }
    let from = word!(data, 8, "u32") + word!(data, 12, "u32") + word!(data, 16, "u32") + word!(data, 20, "u32");
    let to = word!(data, 24, "u32") + word!(data, 28, "u32") + word!(data, 32, "u32") + word!(data, 36, "u32");
    folded(from + to + length(total.wrapping_sub(40))) == word!(data, 56, "u16")
}

/// The sum of the pseudo-header, and where the TCP header starts.
#[inline(always)]
fn pseudo(skb: *mut __sk_buff, total: u32) -> Option<(u64, u32)> {
    let mut words = [0u32; 10];
    // SAFETY: `words` is 40 bytes long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, words.as_mut_ptr().cast(), 40) } != 0 {
        return None;
    }
    let first = words[0] & 0xff;
    let (mut sum, tcp) = if first >> 4 == 4 {
        (u64::from(words[3]) + u64::from(words[4]), (first & 15) * 4)
    } else {
        let mut sum = 0;
        let mut i = 2;
        while i < 10 {
            sum += u64::from(words[i]);
            i += 1;
        }
        (sum, packet::ipv6(skb, (words[1] >> 16) as u8).ok()??)
    };
    sum += length(total.wrapping_sub(tcp));
    Some((sum, tcp))
}

/// The rest of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1): length and protocol. All sums are of words as they
/// lie: ones' complement sums do not depend on the order of bytes.
#[inline(always)]
fn length(tcp: u32) -> u64 {
    u64::from((tcp as u16).to_be()) + u64::from(6u16.to_be())
}

/// A sum in 16 bits, carries added in.
#[inline(always)]
fn folded(sum: u64) -> u64 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// Fills the step with zeros.
#[inline(always)]
fn clear(to: *mut Sum) {
    // SAFETY: a field of a live map value.
    let words = unsafe { (&raw mut (*to).words).cast::<u32>() };
    let mut i = 0usize;
    while i < WORDS {
        // Volatile, because the compiler would make this a call of a bytewise `memset`.
        macro_rules! each {
            ($($n:literal)*) => {
                // SAFETY: `i + 15` is below `WORDS`.
                unsafe { $(words.add(i + $n).write_volatile(0);)* }
            };
        }
        each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        i += 16;
    }
}

/// Adds the next `len` bytes; false: they can't be read.
#[inline(always)]
fn add(skb: *mut __sk_buff, to: *mut Sum, len: u32) -> bool {
    // SAFETY: a field of a live map value.
    let words = unsafe { (&raw mut (*to).words).cast::<u32>() };
    let at = staged!(to, at);
    if copy::payload::<{ STEP as u32 }>(skb, at, words.cast(), len).is_err() {
        return false;
    }
    let mut sum = staged!(to, total);
    let mut i = 0usize;
    while i < WORDS {
        // As in `clear`; and the verifier counts every turn.
        macro_rules! each {
            ($($n:literal)*) => {
                // SAFETY: `i + 15` is below `WORDS`.
                unsafe { $(sum += u64::from(words.add(i + $n).read_volatile());)* }
            };
        }
        each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        i += 16;
    }
    stage!(to, total, sum);
    stage!(to, at, at.wrapping_add(len));
    true
}
