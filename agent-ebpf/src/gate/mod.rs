//! The gate: drops what rules in force refuse, before any byte of it reaches the application. Attached only while the
//! node enforces. Every way out that is not a decision lets pass, and is counted.
//!
//! A server's first bytes may come before its connection has a socket (`early`).
//!
//! A connection is judged once (`stand`); where rules ask for methods, paths or hosts, or limit requests, its heads are
//! read (`read`) by the machine of `weir_common::judge` and decided one by one (`decide`).

pub(crate) mod decide;
pub(crate) mod early;
pub(crate) mod read;
mod stand;
pub(crate) mod state;
mod table;
mod tell;

use aya_ebpf::bindings::{__sk_buff, bpf_sock, bpf_tcp_sock as tcp_sock};
use aya_ebpf::helpers::generated::bpf_tcp_sock;
use weir_common::conn::{Ends, Role};
use weir_common::judge::state as judge_state;
use weir_common::record::Way;
use weir_common::verdict::{Bank, GateSlot, SWITCH_ACTIVE, Standing};

use crate::conn::{stage, staged};
use crate::maps::{BANKS, GATE_SCRATCH};
use crate::packet::{self, Other, Packet, URG};
use crate::{checksum, knobs, track};
use read::{Step, go};
use state::Gate;
use table::Met;

/// The verdict that lets a packet pass.
pub(crate) const PASS: i32 = 1;
/// The verdict that drops it. A sender's own kernel sends it again later.
pub(crate) const DROP: i32 = 0;

/// Whether a segment passes.
#[inline(always)]
pub(crate) fn admit(skb: *mut __sk_buff, way: Way) -> i32 {
    let active = table::switch(SWITCH_ACTIVE);
    if active == 0 {
        return PASS;
    }
    let sk = track::socket(skb);
    if sk.is_null() {
        return PASS;
    }
    // SAFETY: a full socket, checked for null.
    if unsafe { (*sk).state } == track::TCP_LISTEN {
        return if way == Way::IN { early::arriving(skb) } else { PASS };
    }
    let conn = track::storage(sk.cast(), 0);
    if conn.is_null() {
        return PASS;
    }
    // SAFETY: checked for null.
    let conn = unsafe { &*conn };
    if conn.owner.tgid != 0 && conn.owner.tgid == knobs::self_tgid() {
        return PASS;
    }
    let packet = match packet::parse(skb) {
        Ok(Some(packet)) if packet.len != 0 => packet,
        // TCP would read it all the same.
        Err(Other::Unreadable) if way == Way::IN && conn.role != 0 => return hidden(),
        _ => return PASS,
    };
    if conn.role != Role::SERVER.0 && conn.role != Role::CLIENT.0 {
        table::count(GateSlot::NO_ROLE);
        return PASS;
    }
    if !conn.is_request(way) {
        let gate = table::gate(sk.cast(), 0);
        if !gate.is_null() {
            stage!(gate, turned, 1);
            stage!(gate, turn, packet.ack);
        }
        return PASS;
    }
    let gate = table::gate(sk.cast(), track::CREATE);
    if gate.is_null() {
        table::count(GateSlot::NO_STORAGE);
        return PASS;
    }
    let over = stand::is_over(gate, active);
    if way == Way::IN && (over || staged!(gate, standing) == Standing::READ.0) && checksum::wrong(skb) {
        // TCP drops it. Read, it would stand for the one that comes in its place.
        return PASS;
    }
    if over {
        stage!(gate, begun, 0);
        go(skb, way, Step::Stand);
        table::count(GateSlot::DAMAGED);
        return PASS;
    }
    requests(skb, sk, gate, way, &packet)
}

/// A segment that hides behind more headers than are followed: no stack sends it, and no rule could be kept.
#[inline(always)]
fn hidden() -> i32 {
    table::count(GateSlot::UNREAD);
    DROP
}

/// A segment of requests.
#[inline(always)]
fn requests(skb: *mut __sk_buff, sk: *mut bpf_sock, gate: *mut Gate, way: Way, packet: &Packet) -> i32 {
    let standing = staged!(gate, standing);
    if standing == Standing::DENIED.0 {
        let slot = if staged!(gate, pick) == 0 { staged!(gate, base) } else { staged!(gate, pick) };
        table::met(slot.wrapping_sub(1), Met::Segment);
        return DROP;
    }
    if standing != Standing::READ.0 {
        // What is not read now can't be read on later.
        stage!(gate, synced, 0);
        return PASS;
    }
    if !state::lock(gate) {
        table::count(GateSlot::BUSY);
        return DROP;
    }
    if !place(gate, sk, way, packet) {
        let todo = staged!(gate, todo);
        if todo == UNSEEN {
            table::count(GateSlot::UNREAD);
        }
        let verdict =
            if todo == EARLY || (todo == UNSEEN && decide::strict::<false>(skb, sk, gate, way)) { DROP } else { PASS };
        state::unlock(gate);
        return verdict;
    }
    go(skb, way, Step::Read);
    table::count(GateSlot::DAMAGED);
    stage!(gate, synced, 0);
    state::unlock(gate);
    PASS
}

/// The step that judges a connection.
#[inline(always)]
pub(crate) fn stand(skb: *mut __sk_buff, way: Way) -> i32 {
    let sk = track::socket(skb);
    if sk.is_null() {
        return PASS;
    }
    // SAFETY: a full socket, checked for null.
    let listens = way == Way::IN && unsafe { (*sk).state } == track::TCP_LISTEN;
    let conn = track::storage(sk.cast(), 0);
    let gate = if listens { table::at::<Gate>(GATE_SCRATCH.as_ptr(), 0) } else { table::gate(sk.cast(), 0) };
    if gate.is_null() {
        return PASS;
    }
    if staged!(gate, begun) == 0 {
        stage!(gate, begun, if listens { 2 } else { 1 });
        let ends = if listens {
            let Some(ends) = packet::ends(skb) else { return PASS };
            ends
        } else {
            if !conn.is_null() {
                stage!(gate, start[0], staged!(conn, start[0]));
                stage!(gate, start[1], staged!(conn, start[1]));
            }
            track::ends(sk)
        };
        stand::begin(gate, &ends, conn, way == Way::OUT, table::switch(SWITCH_ACTIVE));
    }
    if !stand::slots(gate) {
        go(skb, way, Step::Stand);
        table::count(GateSlot::DAMAGED);
    }
    stand::end(gate);
    if listens {
        return early::arrived(skb, gate);
    }
    let packet = match packet::parse(skb) {
        Ok(Some(packet)) if packet.len != 0 => packet,
        _ => return PASS,
    };
    if staged!(gate, standing) == Standing::DENIED.0 && !state::again(gate, packet.seq) {
        let slot = staged!(gate, base).wrapping_sub(1);
        table::met(slot, Met::Connection);
        tell::connection(skb, sk, gate, way, slot, packet.seq);
    }
    requests(skb, sk, gate, way, &packet)
}

/// Whether a connection may be opened. Its own address is not known yet; rules that ask for it, and those that more
/// than one step would look at, are left to the first bytes that it sends.
#[inline(always)]
pub(crate) fn connect(ctx: *mut core::ffi::c_void, sk: *mut bpf_sock, ends: &Ends) -> i32 {
    let active = table::switch(SWITCH_ACTIVE);
    if active == 0 {
        return PASS;
    }
    let conn = track::storage(sk.cast(), 0);
    if conn.is_null() || staged!(conn, owner.tgid) == knobs::self_tgid() {
        return PASS;
    }
    let gate = table::gate(sk.cast(), track::CREATE);
    if gate.is_null() {
        table::count(GateSlot::NO_STORAGE);
        return PASS;
    }
    stand::begin(gate, ends, conn, true, active);
    let whole = stand::slots(gate);
    stand::end(gate);
    // Judged anew when it sends.
    stage!(gate, active, 0);
    if !whole || staged!(gate, standing) != Standing::DENIED.0 {
        return PASS;
    }
    let slot = staged!(gate, base).wrapping_sub(1);
    table::met(slot, Met::Connection);
    table::count(GateSlot::REFUSED);
    tell::before(ctx, conn, gate, slot, ends);
    DROP
}

/// It comes before its predecessors.
const EARLY: u8 = 1;
/// Nothing of it is new.
const OLD: u8 = 2;
/// Where a request starts in it is not known.
const UNSEEN: u8 = 3;

/// Finds where in a segment the reader goes on; false: it does not, and `todo` says why.
#[inline(always)]
fn place(gate: *mut Gate, sk: *mut bpf_sock, way: Way, packet: &Packet) -> bool {
    let end = packet.seq.wrapping_add(packet.len);
    if staged!(gate, synced) != 0 && missed(gate, sk, way) {
        stage!(gate, synced, 0);
    }
    if staged!(gate, synced) == 0 {
        let turned = staged!(gate, turned) != 0 && staged!(gate, turn) == packet.seq;
        if !turned && !is_first(sk, way, packet.seq) && !turns(sk, packet.seq) {
            stage!(gate, todo, UNSEEN);
            return false;
        }
        state::start(gate);
        stage!(gate, next, packet.seq);
        stage!(gate, synced, 1);
    }
    stage!(gate, turned, 0);
    let bank = table::at::<Bank>(BANKS.as_ptr(), (staged!(gate, active) & 1) as u32);
    // SAFETY: null, or a map value.
    let number = unsafe { bank.as_ref() }.map_or(0, |bank| bank.table);
    let mut at = staged!(gate, next);
    let ahead = packet.seq.wrapping_sub(at).cast_signed();
    if ahead > 0 {
        table::count(GateSlot::EARLY);
        stage!(gate, todo, EARLY);
        return false;
    }
    if ahead < 0 && passed(sk, way, end) {
        // Read anew, it would leave the reader behind TCP where it is shorter than it was.
        stage!(gate, todo, OLD);
        return false;
    }
    if ahead < 0 && packet.seq == staged!(gate, before_seq) && number == staged!(gate, table) {
        // The last segment again: whatever TCP took of it, this is read as if it was the first.
        state::back(gate);
        at = staged!(gate, next);
    } else if ahead < 0 && end.wrapping_sub(at).cast_signed() <= 0 {
        stage!(gate, todo, if taken(sk, way, end) { OLD } else { UNSEEN });
        return false;
    }
    if number != staged!(gate, table) {
        // States have other numbers now, but for those between messages.
        let state = staged!(gate, judge.state);
        if state != judge_state::START && state != judge_state::CHUNK_END {
            stage!(gate, synced, 0);
            stage!(gate, todo, UNSEEN);
            return false;
        }
        stage!(gate, table, number);
    }
    ready(gate, packet, at);
    true
}

/// The reader begins with this segment, at this sequence number.
#[inline(always)]
fn ready(gate: *mut Gate, packet: &Packet, at: u32) {
    state::keep(gate, at);
    let origin = packet.seq.wrapping_sub(packet.offset);
    stage!(gate, origin, origin);
    stage!(gate, at, at.wrapping_sub(origin));
    stage!(gate, end, packet.offset + packet.len);
    stage!(gate, place, 0);
    stage!(gate, filled, 0);
    // The reader looks up where.
    stage!(gate, points, packet.flags & URG);
}

/// Whether a turn of its client starts at `seq`, on a connection of whose bytes the gate has read none.
#[inline(always)]
fn turns(sk: *mut bpf_sock, seq: u32) -> bool {
    let conn = track::storage(sk.cast(), 0);
    !conn.is_null() && staged!(conn, turned) != 0 && staged!(conn, turn) == seq
}

/// Whether no payload of this way passed before `seq`.
#[inline(always)]
fn is_first(sk: *mut bpf_sock, way: Way, seq: u32) -> bool {
    // SAFETY: a full socket; the result is checked.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() {
            return false;
        }
        // `bytes_acked` counts the SYN.
        if way == Way::IN { (*tcp).bytes_received == 0 } else { (*tcp).bytes_acked <= 1 && (*tcp).snd_una == seq }
    }
}

/// Most bytes that are on their way or wait to be taken: the largest window that TCP knows (RFC 7323 §2.3).
const WINDOW: u32 = 1 << 30;

/// Whether bytes passed that the reader did not see: what TCP has never lies ahead of it, but after a time without a
/// gate, as in monitor mode, or without rules.
#[inline(always)]
fn missed(gate: *mut Gate, sk: *mut bpf_sock, way: Way) -> bool {
    // SAFETY: a full socket; the result is checked.
    let tcp = unsafe { bpf_tcp_sock(sk) };
    !tcp.is_null() && staged!(gate, next).wrapping_sub(had(tcp, way)) > WINDOW
}

/// Whether TCP has everything below `end` for good, read or not.
#[inline(always)]
fn passed(sk: *mut bpf_sock, way: Way, end: u32) -> bool {
    // SAFETY: a full socket; the result is checked.
    let tcp = unsafe { bpf_tcp_sock(sk) };
    !tcp.is_null() && had(tcp, way).wrapping_sub(end).cast_signed() >= 0
}

/// TCP sequence number below which nothing is sent again.
#[inline(always)]
fn had(tcp: *const tcp_sock, way: Way) -> u32 {
    // SAFETY: checked for null.
    unsafe { if way == Way::IN { (*tcp).rcv_nxt } else { (*tcp).snd_una } }
}

/// Whether TCP has taken everything below `end`: then what comes again means nothing.
#[inline(always)]
fn taken(sk: *mut bpf_sock, way: Way, end: u32) -> bool {
    way == Way::OUT || passed(sk, way, end)
}
