//! Bytes in and out.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use weir_common::conn::{Framing, Role};
use weir_common::knob::Slot;
use weir_common::record::{HOLD, LARGE, MEDIUM, SEG_AHEAD, SEG_FIN, SEG_TAIL, SEG_TURN, Segment, TAIL, Way};

use crate::conn::{Conn, Stage, stage, staged, wide};
use crate::framing::{self, like};
use crate::packet::{self, FIN, Other, PEEK, Packet, RST};
use crate::stats::count;
use crate::track;
use crate::{checksum, copy, dns, early, emit, errand, knobs, who};

/// Bytes of an answer that are kept whole after a request that was longer than what is held.
const WIDE: u32 = 256 << 10;
/// Bytes of what a client sends that are kept whole before it is answered: further requests may follow in the segment.
const LONG: u32 = 64 << 10;

/// The verdict that lets a packet pass.
const PASS: i32 = 1;

/// What is received.
#[cgroup_skb(ingress)]
pub(crate) fn weir_ingress(ctx: SkBuffContext) -> i32 {
    segment(ctx.as_ptr().cast(), Way::IN)
}

/// What is sent.
#[cgroup_skb(egress)]
pub(crate) fn weir_egress(ctx: SkBuffContext) -> i32 {
    segment(ctx.as_ptr().cast(), Way::OUT)
}

/// What the bench attaches to know the cost of an attached program as such.
#[cgroup_skb(ingress)]
pub(crate) fn weir_noop_ingress(_: SkBuffContext) -> i32 {
    PASS
}

/// As [`weir_noop_ingress`].
#[cgroup_skb(egress)]
pub(crate) fn weir_noop_egress(_: SkBuffContext) -> i32 {
    PASS
}

#[inline(always)]
fn segment(skb: *mut __sk_buff, way: Way) -> i32 {
    let packet = match packet::parse(skb) {
        Ok(Some(packet)) => packet,
        Ok(None) => return PASS,
        Err(Other::Unreadable) => {
            unreadable(skb);
            return PASS;
        }
        Err(Other::Dns) => {
            dns::message(skb, way);
            return PASS;
        }
    };
    let sk = track::socket(skb);
    if sk.is_null() {
        return PASS;
    }
    let conn = track::connection(skb, sk);
    let ignored = matches!(&conn, Some(conn) if conn.framing == Framing::IGNORE.0);
    let payload = way == Way::IN && packet.len != 0;
    if payload && !ignored && checksum::wrong(skb) {
        count(Slot::CHECKSUM, 1);
        return PASS;
    }
    if let Some(conn) = conn {
        if packet.flags & RST != 0 {
            conn.reset_by = way.0 + 1;
        }
        if !ignored {
            watched(skb, sk, conn, way, &packet);
        }
    } else if payload {
        early::keep(skb, &packet);
    }
    PASS
}

/// A packet whose segment is not found: a loss where it is of a connection that is watched.
#[inline(always)]
fn unreadable(skb: *mut __sk_buff) {
    let sk = track::socket(skb);
    if sk.is_null() {
        return;
    }
    let conn = track::storage(sk.cast(), 0);
    // SAFETY: checked for null.
    if !conn.is_null() && unsafe { (*conn).framing } != Framing::IGNORE.0 {
        count(Slot::SEEN, 1);
        count(Slot::LOST_UNREADABLE, 1);
    }
}

#[inline(always)]
fn watched(skb: *mut __sk_buff, sk: *mut bpf_sock, conn: &mut Conn, way: Way, packet: &Packet) {
    if packet.len == 0 {
        fin(sk, conn, way, packet);
        return;
    }
    // Long, unanswered, and no HTTP to the agent: a text that began like a request, sent one way.
    let w = usize::from(way.0 & 1);
    let long = conn.kept[w] >= MEDIUM as u32 || conn.framing == Framing::OPENING.0;
    if conn.confirmed == 0 && long && !conn.holds() && track::foreign(conn) {
        conn.framing = Framing::IGNORE.0;
        return;
    }
    let to = track::stage_of(conn, way);
    if to.is_null() || !track::sequence(conn, to, sk, way, packet) {
        return;
    }
    if conn.confirmed == 0 || conn.last == way.0 + 1 || conn.wide == wide::TURN {
        // Anything but the common turn of a confirmed connection: look at the first bytes.
        look(skb, to);
    } else {
        stage!(to, request, like::NO as u8);
        stage!(to, status, 0);
        stage!(to, told, 0);
    }
    decide(conn, to, way);
    plan(sk, conn, to, way);
    act(skb, conn, to, way);
}

/// What to do with a segment.
mod acts {
    /// Nothing; the connection stays watched.
    pub(super) const PASS: u8 = 0;
    /// Keep what is due of it.
    pub(super) const KEEP: u8 = 1;
    /// Keep a window for the agent to say what this is, then ignore the connection.
    pub(super) const LAST: u8 = 2;
    /// Keep it until its response passes.
    pub(super) const HOLD: u8 = 3;
    /// Hand it over together with the held request.
    pub(super) const PAIR: u8 = 4;
    /// Keep all of it.
    pub(super) const WHOLE: u8 = 5;
}

/// Stages what the segment starts like.
#[inline(always)]
fn look(skb: *mut __sk_buff, to: *mut Stage) {
    let (len, offset) = (staged!(to, segment.len), staged!(to, offset));
    let mut peek = [0u8; PEEK];
    let n = if len < PEEK as u32 { len } else { PEEK as u32 };
    let n = (n.wrapping_sub(1) & (PEEK as u32 - 1)) + 1;
    // SAFETY: `peek` has room for `n` bytes. What could not be read stays zero and is like nothing.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, peek.as_mut_ptr().cast(), n) };
    let http2 = framing::http2(&peek, n);
    stage!(to, request, (framing::request(&peek, n) | framing::proxy_v2(&peek, n) | http2) as u8);
    stage!(to, status, framing::status(&peek, n) as u8);
    stage!(to, told, framing::told(n) as u8);
}

/// Framing of a connection that is not confirmed yet.
#[inline(always)]
fn decide(conn: &mut Conn, to: *mut Stage, way: Way) {
    stage!(to, act, acts::KEEP);
    if conn.confirmed != 0 {
        return;
    }
    let (request, status, told) = (staged!(to, request), staged!(to, status), staged!(to, told));
    let framing = conn.framing();
    if framing == Framing::MIDWAY || conn.role == Role::UNKNOWN.0 {
        // A message starts where the direction turns: behind other bytes of the same way it may be a part of them. Without
        // branches: before 6.12 the verifier would follow each of them to the end.
        let turns = 1 - framing::same(u32::from(conn.last), u32::from(way.0) + 1);
        if u32::from(status & told) & turns != 0 {
            conn.role = if way == Way::IN { Role::CLIENT.0 } else { Role::SERVER.0 };
            conn.framing = Framing::HEADS.0;
            conn.confirmed = 1;
        } else if (u32::from(request) / like::YES) & turns != 0 {
            if conn.role == Role::UNKNOWN.0 {
                conn.role = if way == Way::IN { Role::SERVER.0 } else { Role::CLIENT.0 };
            }
            conn.framing = Framing::HEADS.0;
        } else {
            conn.last = way.0 + 1;
            stage!(to, act, acts::PASS);
        }
    } else if framing == Framing::OPENING {
        let w = usize::from(way.0 & 1);
        if conn.kept[w] < LARGE as u32 {
            stage!(to, act, acts::WHOLE);
        } else {
            if conn.kept[w ^ 1] >= LARGE as u32 {
                conn.framing = Framing::IGNORE.0;
            }
            stage!(to, act, acts::PASS);
        }
    } else if conn.is_request(way) {
        if framing == Framing::UNDECIDED {
            if u32::from(request) == like::NO {
                stage!(to, act, acts::LAST);
            } else if u32::from(request) & like::PREFACE != 0 {
                conn.framing = Framing::OPENING.0;
                stage!(to, act, acts::WHOLE);
            } else {
                conn.framing = Framing::HEADS.0;
            }
        }
    } else if framing == Framing::UNDECIDED && u32::from(request) & like::PREFACE != 0 {
        conn.framing = Framing::OPENING.0;
        stage!(to, act, acts::WHOLE);
    } else if status != 0 {
        conn.confirmed = told;
        conn.framing = Framing::HEADS.0;
    } else if conn.last == way.0 + 1 && framing == Framing::HEADS {
        // The rest of a status line whose first bytes came alone.
    } else if conn.midway != 0 {
        // What looked like a request was not one: wait for a message that is certain.
        conn.framing = Framing::MIDWAY.0;
        conn.role = Role::UNKNOWN.0;
        conn.last = way.0 + 1;
        conn.release();
        stage!(to, act, acts::PASS);
    } else {
        stage!(to, act, acts::LAST);
    }
}

/// Stages when, who, how much is kept, and whether the segment waits, pairs or goes alone.
#[inline(always)]
fn plan(sk: *mut bpf_sock, conn: &mut Conn, to: *mut Stage, way: Way) {
    let w = usize::from(way.0 & 1);
    let first = staged!(to, act);
    if first == acts::PASS {
        return;
    }
    // SAFETY: no arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    stage!(to, segment.at, at);
    stage!(to, segment.way, way.0);
    let turn = conn.last != way.0 + 1;
    let request = conn.is_request(way);
    if request && turn && conn.last != 0 {
        conn.turn = staged!(to, segment.seq);
        conn.turned = 1;
    }
    conn.last = way.0 + 1;
    let starts = if request {
        u32::from(staged!(to, request)) == like::YES
    } else {
        staged!(to, status) & staged!(to, told) != 0
    };
    if (turn || starts) && staged!(to, act) == acts::KEEP {
        conn.kept[w] = 0;
    }
    stage!(to, tgid, 0);
    stage!(to, tid, 0);
    stage!(to, errand, 0);
    if request && way == Way::IN && (turn || starts) {
        conn.began = staged!(to, segment.seq);
        conn.fresh = 1;
    }
    if conn.announced == 0 {
        let mut next = conn.next;
        next[w] = staged!(to, segment.seq);
        let ends = track::ends(sk);
        emit::announce(conn, &ends, next, at);
    }
    if way == Way::OUT && turn {
        let by = who::sender(conn, sk);
        stage!(to, tgid, by.tgid);
        stage!(to, tid, by.tid);
        stage!(to, errand, errand::sends(conn, by, staged!(to, segment.seq), at));
    }
    let (len, flags) = (staged!(to, segment.len), staged!(to, segment.flags));
    let plain = turn && flags == 0 && staged!(to, act) == acts::KEEP;
    if request && turn && conn.wide == wide::TURN && conn.confirmed != 0 && !starts {
        conn.wide = wide::ALWAYS;
    }
    // An answer longer than its window, to a segment that is or was held and is not one head: the answers behind the
    // first would not be kept. Where the window is used up to the byte it was asked before.
    let long = !request && len > MEDIUM as u32 && conn.kept[w] != MEDIUM as u32;
    stage!(to, several, 0);
    if long && conn.deep == 0 && conn.wide == wide::NO {
        stage!(to, several, u8::from(!conn.is_single()));
    }
    if staged!(to, several) != 0 {
        conn.deep = 1;
        conn.widen();
    }
    if conn.holds() {
        if request {
            conn.widen();
            if starts {
                conn.deep = 1;
            }
        } else {
            let covered = staged!(to, ack).wrapping_sub(conn.held.seq.wrapping_add(conn.held.len)).cast_signed() >= 0;
            let cut = len > MEDIUM as u32 && (conn.wide != wide::NO || knobs::window() != 0);
            if plain && covered && conn.deep == 0 && !cut {
                stage!(to, act, acts::PAIR);
            }
        }
    } else if request && plain && len <= HOLD as u32 && conn.deep == 0 && conn.wide != wide::ALWAYS {
        stage!(to, act, acts::HOLD);
    } else if request && turn {
        conn.widen();
    }
    let mut flags = flags;
    let wide = (conn.wide == wide::ALWAYS || (conn.wide == wide::TURN && !request)) && conn.kept[w] < WIDE;
    let asked = len > MEDIUM as u32 && conn.kept[w] < if request { LONG } else { knobs::window() };
    if (flags != 0 || conn.deep != 0 || wide || asked) && staged!(to, act) == acts::KEEP {
        stage!(to, act, acts::WHOLE);
    }
    if turn {
        flags |= SEG_TURN;
    }
    if staged!(to, fin) != 0 {
        flags |= SEG_FIN;
        conn.fins |= 1 << w;
    }
    stage!(to, segment.flags, flags);
}

#[inline(always)]
fn act(skb: *mut __sk_buff, conn: &mut Conn, to: *mut Stage, way: Way) {
    let w = usize::from(way.0 & 1);
    let act = staged!(to, act);
    if act == acts::PASS {
        return;
    }
    let len = staged!(to, segment.len);
    if act == acts::HOLD {
        hold(skb, conn, to);
        return;
    }
    if act == acts::PAIR {
        let kept = if len < MEDIUM as u32 { len } else { MEDIUM as u32 };
        let flags = staged!(to, segment.flags);
        stage!(to, segment.kept, kept);
        stage!(to, segment.len, kept);
        stage!(to, segment.flags, if len > kept { flags & !SEG_FIN } else { flags });
        conn.kept[w] = kept;
        emit::pair(skb, conn, to);
        rest(skb, conn, to, len, flags);
        return;
    }
    emit::flush(conn);
    if act == acts::WHOLE {
        conn.kept[w] = conn.kept[w].saturating_add(len);
        whole(skb, conn, to);
        return;
    }
    if act == acts::LAST {
        // A TLS client's hello is some 500 to 2000 bytes long, and the name that it asks for may stand at its end.
        stage!(to, segment.kept, if len < MEDIUM as u32 { len } else { MEDIUM as u32 });
        conn.framing = Framing::IGNORE.0;
    } else {
        due(conn, to, way);
        let (flags, kept) = (staged!(to, segment.flags), staged!(to, segment.kept));
        if flags & SEG_TAIL == 0 && kept < len {
            stage!(to, segment.len, kept);
            stage!(to, segment.flags, flags & !SEG_FIN);
            count(Slot::SEEN, 1);
            emit::bytes(skb, conn, to);
            rest(skb, conn, to, len, flags);
            return;
        }
    }
    count(Slot::SEEN, 1);
    emit::bytes(skb, conn, to);
}

/// Counts what is behind the kept start of a segment of `len` bytes, and keeps its end: the last chunk of a body may
/// stand there.
#[inline(always)]
fn rest(skb: *mut __sk_buff, conn: &mut Conn, to: *mut Stage, len: u32, flags: u8) {
    let done = staged!(to, segment.kept);
    let left = len.wrapping_sub(done);
    if left == 0 || left > len {
        return;
    }
    let kept = if left < TAIL as u32 { left } else { TAIL as u32 };
    stage!(to, segment.seq, staged!(to, segment.seq).wrapping_add(done));
    stage!(to, segment.len, left);
    stage!(to, segment.kept, kept);
    stage!(to, segment.flags, flags & !SEG_TURN | SEG_TAIL);
    stage!(to, offset, staged!(to, offset) + len - kept);
    count(Slot::SEEN, 1);
    emit::bytes(skb, conn, to);
}

/// Stages how much of a segment is kept from its start, or that only its end is.
#[inline(always)]
fn due(conn: &mut Conn, to: *mut Stage, way: Way) {
    let w = usize::from(way.0 & 1);
    let limit = if conn.is_request(way) { LARGE as u32 } else { MEDIUM as u32 };
    let len = staged!(to, segment.len);
    let left = limit.saturating_sub(conn.kept[w]);
    let want = if len <= MEDIUM as u32 || len <= left { len } else { left };
    let want = if want > LARGE as u32 { LARGE as u32 } else { want };
    conn.kept[w] = conn.kept[w].saturating_add(want);
    if want == 0 {
        // Longer than `MEDIUM`, so longer than a tail.
        stage!(to, segment.kept, TAIL as u32);
        stage!(to, segment.flags, staged!(to, segment.flags) | SEG_TAIL);
        stage!(to, offset, staged!(to, offset) + len - TAIL as u32);
    } else {
        stage!(to, segment.kept, want);
    }
}

/// Keeps a request's only segment until its response passes.
#[inline(always)]
fn hold(skb: *mut __sk_buff, conn: &mut Conn, from: *const Stage) {
    let (segment, offset) = (staged!(from, segment), staged!(from, offset));
    let to = core::ptr::addr_of_mut!(conn.hold).cast();
    if copy::payload::<{ HOLD as u32 }>(skb, offset, to, segment.len).is_err() {
        count(Slot::SEEN, 1);
        count(Slot::LOST_UNREADABLE, 1);
        conn.lost += 1;
        return;
    }
    conn.wide = if ends_empty(conn, segment.len) == 0 { wide::TURN } else { wide::NO };
    conn.held_tgid = staged!(from, tgid);
    conn.held_tid = staged!(from, tid);
    conn.held_errand = staged!(from, errand);
    conn.held = Segment { kept: 0, ..segment };
    // Written last: from here on the other way may take it.
    // SAFETY: a field of a live map value.
    unsafe { core::ptr::addr_of_mut!(conn.held.kept).write_volatile(segment.len) };
}

/// 1 where the held `len` bytes end with an empty line, as a head does, else 0.
#[inline(always)]
fn ends_empty(conn: &Conn, len: u32) -> u32 {
    let byte = |back: u32| u32::from(conn.hold[len.wrapping_sub(back) as usize & (HOLD - 1)]);
    let is = |byte: u32, c: u8| (byte ^ u32::from(c)).wrapping_sub(1) >> 31;
    // What lies before the first byte of a segment of one or two bytes is of an earlier one.
    let (enough, more) = (u32::from(len > 1), u32::from(len > 2));
    let bare = is(byte(2), b'\n') & enough;
    let full = is(byte(2), b'\r') & is(byte(3), b'\n') & more;
    is(byte(1), b'\n') & (bare | full)
}

/// Hands all of a segment over, in steps.
#[inline(always)]
fn whole(skb: *mut __sk_buff, conn: &mut Conn, to: *mut Stage) {
    let mut step = 0;
    while step < 5 {
        let left = staged!(to, segment.len);
        let kept = if left < LARGE as u32 { left } else { LARGE as u32 };
        // A segment longer than five steps (BIG TCP) ends in a counted gap.
        let more = left > kept && step < 4;
        let flags = staged!(to, segment.flags);
        stage!(to, segment.kept, kept);
        stage!(to, segment.len, if more { kept } else { left });
        stage!(to, segment.flags, if more { flags & !SEG_FIN } else { flags });
        count(Slot::SEEN, 1);
        emit::bytes(skb, conn, to);
        if !more {
            return;
        }
        stage!(to, segment.seq, staged!(to, segment.seq).wrapping_add(kept));
        stage!(to, segment.len, left - kept);
        stage!(to, segment.flags, flags);
        stage!(to, offset, staged!(to, offset) + kept);
        step += 1;
    }
}

/// A FIN without payload.
#[inline(always)]
fn fin(sk: *mut bpf_sock, conn: &mut Conn, way: Way, packet: &Packet) {
    let w = usize::from(way.0 & 1);
    let bit = 1u8 << w;
    if packet.flags & FIN == 0 || conn.fins & bit != 0 || conn.framing != Framing::HEADS.0 {
        return;
    }
    conn.fins |= bit;
    if way == Way::OUT {
        errand::ends(conn);
    }
    emit::flush(conn);
    let ahead = conn.known & bit != 0 && packet.seq.wrapping_sub(conn.next[w]).cast_signed() > 0;
    let ahead = ahead || conn.holes & bit != 0;
    // SAFETY: no arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    if conn.announced == 0 {
        let ends = track::ends(sk);
        emit::announce(conn, &ends, conn.next, at);
    }
    let flags = if ahead { SEG_FIN | SEG_AHEAD } else { SEG_FIN };
    let segment = Segment { at, seq: packet.seq, len: 0, kept: 0, way: way.0, flags, reserved: 0 };
    emit::bare(conn, segment);
}
