//! Reads request heads byte by byte, up to one that a rule may meet.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_tail_call};
use weir_common::judge::unclear::UNSEEN;
use weir_common::judge::{Classes, Signal, quiet, step};
use weir_common::record::Way;
use weir_common::verdict::{GateSlot, MASKS as MASKS_MAX, Mask};

use super::state::{Gate, WINDOW};
use super::table::{self, Half};
use super::{DROP, PASS, decide, early, state};
use crate::conn::{stage, staged};
use crate::maps::{CLASSES, MASKS, STEPS_IN, STEPS_OUT};
use crate::track::field;
use crate::{copy, packet, track};

/// Bytes that bring something about, and windows, that one run reads. With the steps that the kernel allows (33 tail
/// calls) 32 KiB of heads, or 2000 such bytes, are read of a segment: of any segment that is no longer than that, so of
/// any that a network carries which has no jumbo frames, all; bodies are skipped at once. More would take the kernel
/// seconds to verify.
const TURNS: u32 = 64;
/// Bytes that a turn reads which bring nothing about, at most.
const QUIET: u32 = 15;

/// What the reader does next.
pub(super) mod todo {
    /// Read on.
    pub(crate) const READ: u8 = 0;
    /// All of the segment is read.
    pub(crate) const DONE: u8 = 1;
    /// A rule may meet the request that was just read.
    pub(crate) const DECIDE: u8 = 2;
    /// A table can't be read.
    pub(crate) const DAMAGED: u8 = 3;
}

/// A step of the gate, by its index among the tail calls.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Judge the connection.
    Stand = 0,
    /// Read heads.
    Read = 1,
    /// Decide about a request.
    Decide = 2,
    /// As `Read`, where the socket is a listener.
    ReadEarly = 3,
    /// As `Decide`, where the socket is a listener.
    DecideEarly = 4,
}

/// The state that a step works on: the socket's, or where that is a listener this CPU's own.
#[inline(always)]
pub(super) fn state_of<const EARLY: bool>(sk: *mut bpf_sock) -> *mut Gate {
    if EARLY { early::scratch() } else { table::gate(sk.cast(), 0) }
}

/// Goes on with another step; returns where the kernel allows no more of them.
#[inline(always)]
pub(super) fn go(skb: *mut __sk_buff, way: Way, step: Step) {
    let steps = if way == Way::IN { STEPS_IN.as_ptr() } else { STEPS_OUT.as_ptr() };
    // SAFETY: the context of this program and a map of programs of its type.
    unsafe { bpf_tail_call(skb.cast(), steps, step as u32) };
}

/// The step that reads.
#[inline(always)]
pub(crate) fn read<const EARLY: bool>(skb: *mut __sk_buff, way: Way) -> i32 {
    let sk = track::socket(skb);
    if sk.is_null() {
        return PASS;
    }
    let gate = state_of::<EARLY>(sk);
    if gate.is_null() {
        return PASS;
    }
    urgent(skb, gate);
    turns::<TURNS>(skb, gate);
    on::<EARLY>(skb, sk, gate, way)
}

/// Goes on as the reader left off.
#[inline(always)]
pub(super) fn on<const EARLY: bool>(skb: *mut __sk_buff, sk: *mut bpf_sock, gate: *mut Gate, way: Way) -> i32 {
    let todo = staged!(gate, todo);
    if todo == todo::DECIDE {
        go(skb, way, if EARLY { Step::DecideEarly } else { Step::Decide });
    } else if todo == todo::READ {
        go(skb, way, if EARLY { Step::ReadEarly } else { Step::Read });
    } else if todo == todo::DONE {
        return done::<EARLY>(gate);
    }
    if todo == todo::DAMAGED {
        table::count(GateSlot::DAMAGED);
        stage!(gate, synced, 0);
        state::unlock(gate);
        return PASS;
    }
    // The kernel allows no more steps for this segment.
    table::count(GateSlot::UNREAD);
    if field!(skb, __sk_buff, gso_segs) > 1 {
        // Joined of several: its sender sends it again, one by one.
        state::back(gate);
        state::unlock(gate);
        return DROP;
    }
    // What follows is read again from the next request that is certain to start.
    stage!(gate, synced, 0);
    let verdict = if decide::strict::<EARLY>(skb, sk, gate, way) { DROP } else { PASS };
    state::unlock(gate);
    verdict
}

/// All of the segment is read, and passes.
#[inline(always)]
pub(super) fn done<const EARLY: bool>(gate: *mut Gate) -> i32 {
    if EARLY {
        stage!(gate, begun, early::READ);
    }
    stage!(gate, next, staged!(gate, origin).wrapping_add(staged!(gate, end)));
    state::unlock(gate);
    PASS
}

/// Reads on for some turns; `todo` says what comes then.
#[inline(always)]
pub(super) fn turns<const TURNS: u32>(skb: *mut __sk_buff, gate: *mut Gate) {
    stage!(gate, todo, todo::READ);
    let half = staged!(gate, table) & 1;
    let classes = table::at::<Classes>(CLASSES.as_ptr(), half);
    if classes.is_null() {
        stage!(gate, todo, todo::DAMAGED);
        return;
    }
    // SAFETY: checked for null.
    let classes = unsafe { &*classes };
    let mut n = 0;
    while n < TURNS {
        if (staged!(gate, place) >= staged!(gate, filled) || staged!(gate, judge.skip) != 0) && !fill(skb, gate) {
            return;
        }
        quiet_bytes(gate, half, classes);
        if staged!(gate, place) < staged!(gate, filled) {
            byte(gate, half, classes);
            if staged!(gate, todo) != todo::READ {
                return;
            }
        }
        n += 1;
    }
}

/// Notes the byte that the packet's urgent pointer leaves out of the stream; it may come later. Linux takes the pointer for
/// one behind that byte (RFC 6093 §3.1).
#[inline(always)]
fn urgent(skb: *mut __sk_buff, gate: *mut Gate) {
    if staged!(gate, points) == 0 {
        return;
    }
    stage!(gate, points, 0);
    let Some(tcp) = packet::tcp(skb) else { return };
    let mut b = [0u8; 8];
    // SAFETY: `b` is 8 bytes long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), tcp + 12, b.as_mut_ptr().cast(), 8) } == 0 {
        let behind = u32::from(u16::from_be_bytes([b[6], b[7]]));
        let payload = staged!(gate, origin).wrapping_add(tcp + u32::from(b[0] >> 4) * 4);
        stage!(gate, urgent, payload.wrapping_add(behind.saturating_sub(1)));
        stage!(gate, urges, 1);
    }
}

/// How far behind a place in the packet the urgent byte is.
#[inline(always)]
fn hole(gate: *mut Gate, at: u32) -> u32 {
    let far = staged!(gate, urgent).wrapping_sub(staged!(gate, origin)).wrapping_sub(at);
    if staged!(gate, urges) == 0 { u32::MAX } else { far }
}

/// The urgent byte was left out.
#[inline(always)]
fn skip_urgent(gate: *mut Gate) {
    stage!(gate, urges, 0);
    stage!(gate, judge.unclear, staged!(gate, judge.unclear) | UNSEEN);
}

/// Skips what is left of a body and loads the next window; false: there is nothing to read, or it can't be.
#[inline(always)]
fn fill(skb: *mut __sk_buff, gate: *mut Gate) -> bool {
    let (mut at, end) = (staged!(gate, at).wrapping_add(staged!(gate, place)), staged!(gate, end));
    stage!(gate, place, 0);
    stage!(gate, filled, 0);
    let skip = staged!(gate, judge.skip);
    let left = if at < end { end.wrapping_sub(at) } else { 0 };
    // How far the urgent byte is; it is no byte of a body.
    let hole = hole(gate, at);
    let holes = u64::from(hole < left);
    let body = u64::from(left) - holes;
    if skip >= body {
        if holes != 0 {
            skip_urgent(gate);
        }
        stage!(gate, judge.skip, skip - body);
        stage!(gate, at, end);
        stage!(gate, todo, todo::DONE);
        return false;
    }
    at = at.wrapping_add(skip as u32);
    if holes != 0 && u64::from(hole) <= skip {
        at = at.wrapping_add(1);
        skip_urgent(gate);
    }
    stage!(gate, judge.skip, 0);
    stage!(gate, at, at);
    let left = end.wrapping_sub(at);
    let hole = self::hole(gate, at);
    let left = if hole < left { hole } else { left };
    let len = if left < WINDOW as u32 { left } else { WINDOW as u32 };
    // SAFETY: a field of a live map value.
    let to = unsafe { (&raw mut (*gate).window).cast() };
    if copy::payload::<{ WINDOW as u32 }>(skb, at, to, len).is_err() {
        stage!(gate, todo, todo::DAMAGED);
        return false;
    }
    stage!(gate, filled, len);
    true
}

/// Feeds the window to the machine up to a byte that brings something about.
#[inline(always)]
fn quiet_bytes(gate: *mut Gate, half: u32, classes: &Classes) {
    let mut n = 0;
    while n < QUIET {
        let place = staged!(gate, place);
        if place >= staged!(gate, filled) {
            return;
        }
        let byte = staged!(gate, window[place as usize & (WINDOW - 1)]);
        // SAFETY: a field of a live map value.
        let judge = unsafe { &mut (*gate).judge };
        if !quiet(&Half(half), classes, judge, byte) {
            return;
        }
        forget();
        stage!(gate, place, place + 1);
        n += 1;
    }
}

const NEXT: u8 = 0;
const FIRST: u8 = 1;
const HEAD: u8 = 2;
const BODY: u8 = 3;
const STOP: u8 = 4;
const DAMAGED: u8 = 5;

/// Feeds the byte at hand, and does what it asks for.
#[inline(always)]
fn byte(gate: *mut Gate, half: u32, classes: &Classes) {
    let place = staged!(gate, place);
    let byte = staged!(gate, window[place as usize & (WINDOW - 1)]);
    stage!(gate, place, place + 1);
    // SAFETY: a field of a live map value.
    let judge = unsafe { &mut (*gate).judge };
    let signal = match step(&Half(half), classes, judge, byte) {
        None => DAMAGED,
        Some(Signal::Next | Signal::Target) => NEXT,
        Some(Signal::First) => FIRST,
        Some(Signal::Head) => HEAD,
        Some(Signal::Body) => BODY,
        Some(Signal::Stop) => STOP,
    };
    stage!(gate, signal, signal);
    forget();
    let signal = staged!(gate, signal);
    if signal == NEXT {
        return;
    }
    if signal == FIRST {
        let first = staged!(gate, origin).wrapping_add(staged!(gate, at)).wrapping_add(place);
        stage!(gate, request, first);
        return;
    }
    if signal == DAMAGED {
        stage!(gate, todo, todo::DAMAGED);
        return;
    }
    // In the middle of a body only what is wrong with its framing is new.
    if (signal != BODY || staged!(gate, judge.unclear) != 0) && decide::may(gate, half) {
        stage!(gate, todo, todo::DECIDE);
    } else if signal == STOP {
        // Not HTTP/1, and no rule minds.
        stage!(gate, judge.skip, u64::from(u32::MAX));
    }
}

/// Makes the compiler read everything back from the map.
#[inline(always)]
fn forget() {
    // SAFETY: no instruction; the compiler must take it for one that writes memory.
    unsafe { core::arch::asm!("", options(nostack, preserves_flags)) };
}

/// The slots of a word that a request's method, host and path leave; none where a table is damaged.
#[inline(always)]
pub(super) fn matched(gate: *mut Gate, half: u32, word: usize) -> u64 {
    accepted(half, word, staged!(gate, judge.path)) & around(gate, half, word)
}

/// The slots of a word that a request's method and host leave, whatever its path.
#[inline(always)]
pub(super) fn around(gate: *mut Gate, half: u32, word: usize) -> u64 {
    accepted(half, word, staged!(gate, judge.host)) & accepted(half, word, staged!(gate, judge.method))
}

#[inline(always)]
fn accepted(half: u32, word: usize, index: u16) -> u64 {
    let mask = table::at::<Mask>(MASKS.as_ptr(), half * MASKS_MAX + u32::from(index));
    // SAFETY: null, or a map value; `word` is below its length.
    unsafe { mask.as_ref() }.map_or(0, |mask| mask[word & 3])
}
