//! Bytes in and out.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use weir_common::conn::{Framing, Role};
use weir_common::knob::Slot;
use weir_common::record::{HOLD, LARGE, MEDIUM, SEG_FIN, SEG_TAIL, SEG_TURN, SMALL, Segment, TAIL, Way};

use crate::conn::Conn;
use crate::framing::{self, Like};
use crate::packet::{self, FIN, PEEK, Packet, RST};
use crate::stats::count;
use crate::track::{self, New};
use crate::who::{self, Thread};
use crate::{copy, emit};

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
        Err(()) => {
            count(Slot::LOST_UNREADABLE, 1);
            return PASS;
        }
    };
    let sk = track::socket(skb);
    if sk.is_null() {
        return PASS;
    }
    if let Some(conn) = track::connection(skb, sk) {
        if packet.flags & RST != 0 {
            conn.reset_by = way.0 + 1;
        }
        if conn.framing != Framing::IGNORE.0 {
            watched(skb, sk, conn, way, &packet);
        }
    }
    PASS
}

#[inline(always)]
fn watched(skb: *mut __sk_buff, sk: *mut bpf_sock, conn: &mut Conn, way: Way, packet: &Packet) {
    if packet.len == 0 {
        fin(sk, conn, way, packet);
        return;
    }
    let Some(new) = track::sequence(conn, sk, way, packet) else { return };
    let mut peek = [0u8; PEEK];
    let mut peeked = 0u32;
    let mut ignore = false;
    if conn.confirmed == 0 || conn.last == way.0 + 1 {
        // Anything but the common turn of a confirmed connection: look at the first bytes.
        peeked = if new.len < PEEK as u32 { new.len } else { PEEK as u32 };
        let n = (peeked.wrapping_sub(1) & 31) + 1;
        if n <= PEEK as u32 {
            // SAFETY: `peek` has room for `n` bytes.
            unsafe {
                bpf_skb_load_bytes(skb.cast(), packet.offset + new.skip, peek.as_mut_ptr().cast(), n);
            }
        }
        match decide(conn, way, &peek, peeked) {
            Decision::Watch => {}
            Decision::Pass => return,
            Decision::Last => ignore = true,
        }
    }
    keep(skb, sk, conn, way, packet, &new, &peek, peeked, ignore);
}

enum Decision {
    /// Keep what is due of the segment.
    Watch,
    /// Keep nothing; the connection stays watched.
    Pass,
    /// Keep a window for the agent to say what this is, then ignore the connection.
    Last,
}

/// Framing of a connection that is not confirmed yet.
#[inline(always)]
fn decide(conn: &mut Conn, way: Way, peek: &[u8; PEEK], n: u32) -> Decision {
    let framing = conn.framing();
    if framing == Framing::MIDWAY || conn.role == Role::UNKNOWN.0 {
        if n >= 5 && framing::status(peek, n) {
            conn.role = if way == Way::IN { Role::CLIENT.0 } else { Role::SERVER.0 };
            conn.framing = Framing::HEADS.0;
            conn.confirmed = 1;
            return Decision::Watch;
        }
        if framing::request(peek, n) == Like::Yes {
            if conn.role == Role::UNKNOWN.0 {
                conn.role = if way == Way::IN { Role::SERVER.0 } else { Role::CLIENT.0 };
            }
            conn.framing = Framing::HEADS.0;
            return Decision::Watch;
        }
        return Decision::Pass;
    }
    if conn.confirmed != 0 {
        return Decision::Watch;
    }
    if conn.is_request(way) {
        if framing == Framing::UNDECIDED {
            if framing::request(peek, n) == Like::No && !framing::proxy_v2(peek, n) {
                return Decision::Last;
            }
            conn.framing = Framing::HEADS.0;
        }
        return Decision::Watch;
    }
    if framing::status(peek, n) {
        if n >= 5 {
            conn.confirmed = 1;
        }
        conn.framing = Framing::HEADS.0;
        return Decision::Watch;
    }
    if conn.midway != 0 {
        // What looked like a request was not one: wait for a message that is certain.
        conn.framing = Framing::MIDWAY.0;
        conn.role = Role::UNKNOWN.0;
        emit::flush(conn);
        return Decision::Pass;
    }
    Decision::Last
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one inlined body; a struct would live on the 512-byte stack")]
fn keep(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    conn: &mut Conn,
    way: Way,
    packet: &Packet,
    new: &New,
    peek: &[u8; PEEK],
    peeked: u32,
    ignore: bool,
) {
    // SAFETY: no arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    let w = usize::from(way.0 & 1);
    let turn = conn.last != way.0 + 1;
    let request = conn.is_request(way);
    conn.last = way.0 + 1;
    let offset = packet.offset + new.skip;
    let mut segment = Segment { at, seq: new.seq, len: new.len, kept: 0, way: way.0, flags: new.flags, reserved: 0 };
    if turn {
        segment.flags |= SEG_TURN;
        conn.kept[w] = 0;
    }
    if packet.flags & FIN != 0 {
        segment.flags |= SEG_FIN;
        conn.fins |= 1 << w;
    }
    let by = if way == Way::OUT && (turn || ignore) { who::sender(conn, sk) } else { Thread::default() };
    if conn.announced == 0 {
        let ends = track::ends(sk);
        emit::announce(conn, &ends, at);
    }
    if ignore {
        emit::flush(conn);
        segment.kept = if new.len < SMALL as u32 { new.len } else { SMALL as u32 };
        count(Slot::SEEN, 1);
        emit::bytes(skb, conn, &segment, offset, by);
        conn.framing = Framing::IGNORE.0;
        return;
    }
    if request {
        if turn && new.flags == 0 && new.len <= HOLD as u32 && conn.deep == 0 && !conn.holds() {
            hold(skb, conn, segment, offset, by);
            return;
        }
        if conn.holds() {
            if !turn && framing::request(peek, peeked) == Like::Yes {
                conn.deep = 1;
            }
            emit::flush(conn);
        }
    } else if conn.holds() {
        let covered = packet.ack.wrapping_sub(conn.held.seq.wrapping_add(conn.held.len)).cast_signed() >= 0;
        if turn && new.flags == 0 && covered && (new.len <= MEDIUM as u32 || single(conn)) {
            segment.kept = if new.len < MEDIUM as u32 { new.len } else { MEDIUM as u32 };
            conn.kept[w] = segment.kept;
            emit::pair(skb, conn, &segment, offset, by);
            return;
        }
        if new.len > MEDIUM as u32 && !single(conn) {
            conn.deep = 1;
        }
        emit::flush(conn);
    }
    count(Slot::SEEN, 1);
    let starts = if request { framing::request(peek, peeked) == Like::Yes } else { peeked >= 5 && framing::status(peek, peeked) };
    if !turn && starts {
        conn.kept[w] = 0;
    }
    if conn.deep != 0 || new.flags != 0 {
        whole(skb, conn, segment, offset, by);
        return;
    }
    let limit = if request { LARGE as u32 } else { MEDIUM as u32 };
    let left = limit.saturating_sub(conn.kept[w]);
    let mut want = if new.len <= MEDIUM as u32 || new.len <= left { new.len } else { left };
    if want > LARGE as u32 {
        want = LARGE as u32;
    }
    if want == 0 {
        tail(skb, conn, segment, offset, by);
        return;
    }
    segment.kept = want;
    conn.kept[w] = conn.kept[w].saturating_add(want);
    emit::bytes(skb, conn, &segment, offset, by);
}

/// Keeps a request's only segment until its response passes.
#[inline(always)]
fn hold(skb: *mut __sk_buff, conn: &mut Conn, segment: Segment, offset: u32, by: Thread) {
    let to = core::ptr::addr_of_mut!(conn.hold).cast();
    if copy::payload::<{ HOLD as u32 }>(skb, offset, to, segment.len).is_err() {
        count(Slot::SEEN, 1);
        count(Slot::LOST_UNREADABLE, 1);
        conn.lost += 1;
        return;
    }
    conn.held_tgid = by.tgid;
    conn.held_tid = by.tid;
    conn.held = Segment { kept: 0, ..segment };
    // Written last: from here on the other way may take it.
    // SAFETY: a field of a live map value.
    unsafe { core::ptr::addr_of_mut!(conn.held.kept).write_volatile(segment.len) };
}

/// Whether the held segment is one head and nothing behind it: no empty line before its end.
#[inline(always)]
fn single(conn: &Conn) -> bool {
    let len = conn.held.kept;
    let mut i = 3usize;
    while i < HOLD {
        if i as u32 + 1 >= len {
            return true;
        }
        if conn.hold[i] == b'\n' && (conn.hold[i - 1] == b'\n' || conn.hold[i - 2] == b'\n') {
            return false;
        }
        i += 1;
    }
    true
}

/// Hands all of a segment over, in steps.
#[inline(always)]
fn whole(skb: *mut __sk_buff, conn: &mut Conn, segment: Segment, offset: u32, by: Thread) {
    let mut done = 0u32;
    for step in 0..5 {
        let left = segment.len.wrapping_sub(done);
        if left == 0 || left > segment.len {
            return;
        }
        let take = if left < LARGE as u32 { left } else { LARGE as u32 };
        let last = step == 4 || left == take;
        let part = Segment {
            seq: segment.seq.wrapping_add(done),
            // A segment longer than five steps (BIG TCP) ends in a counted gap.
            len: if last { left } else { take },
            kept: take,
            flags: if last { segment.flags } else { segment.flags & !SEG_FIN },
            ..segment
        };
        if step != 0 {
            count(Slot::SEEN, 1);
        }
        emit::bytes(skb, conn, &part, offset + done, by);
        done += take;
    }
}

/// Counts a segment's bytes and keeps its last ones.
#[inline(always)]
fn tail(skb: *mut __sk_buff, conn: &mut Conn, mut segment: Segment, offset: u32, by: Thread) {
    segment.kept = if segment.len < TAIL as u32 { segment.len } else { TAIL as u32 };
    segment.flags |= SEG_TAIL;
    let at = offset + segment.len - segment.kept;
    emit::bytes(skb, conn, &segment, at, by);
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
    emit::flush(conn);
    let ahead = conn.known & bit != 0 && packet.seq.wrapping_sub(conn.next[w]).cast_signed() > 0;
    // SAFETY: no arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    let segment = Segment {
        at,
        seq: packet.seq,
        len: 0,
        kept: 0,
        way: way.0,
        flags: if ahead || conn.holes & bit != 0 { SEG_FIN | weir_common::record::SEG_AHEAD } else { SEG_FIN },
        reserved: 0,
    };
    if conn.announced == 0 {
        let ends = track::ends(sk);
        emit::announce(conn, &ends, at);
    }
    count(Slot::SEEN, 1);
    emit::bytes(core::ptr::null_mut(), conn, &segment, 0, Thread::default());
}
