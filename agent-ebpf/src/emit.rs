//! Records for the agent: reserve, fill, submit, or count the loss. Nobody is woken: the agent drains on a timer.

use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit};
use weir_common::conn::Ends;
use weir_common::knob::Slot;
use weir_common::record::{
    Asked, Bytes, FLAG_MIDWAY, HOLD, Head, Kind, LARGE, MEDIUM, Opened, Pair, Read, SMALL, Segment, TAIL,
};

use crate::conn::{Conn, Stage, staged};
use crate::copy;
use crate::maps::RING;
use crate::stats::count;

/// Reserves a record of `T`; null when the ring is full.
#[inline(always)]
pub(crate) fn reserve<T>() -> *mut T {
    // SAFETY: the ring is loaded with the program; the size is a constant.
    unsafe { bpf_ringbuf_reserve(RING.as_ptr(), size_of::<T>() as u64, 0) }.cast()
}

/// The same for a segment of a connection. While the ring has had no room for the connection's announcement there is no
/// use in its segments either: they are refused for the same reason.
#[inline(always)]
fn reserve_of<T>(conn: &Conn) -> *mut T {
    if conn.announced == 0 { core::ptr::null_mut() } else { reserve() }
}

/// Hands a record over.
#[inline(always)]
pub(crate) fn submit<T>(record: *mut T) {
    // SAFETY: `record` came from `reserve` and was not submitted before.
    unsafe { bpf_ringbuf_submit(record.cast(), BPF_RB_NO_WAKEUP.into()) }
}

#[repr(C)]
struct Kept<H, const N: usize> {
    head: H,
    data: [u8; N],
}

#[inline(always)]
fn head(conn: &mut Conn, kind: Kind, flags: u16, at: u64) -> Head {
    let lost = conn.lost;
    conn.lost = 0;
    Head { kind: kind.0, flags, lost, conn: conn.cookie, at }
}

/// Announces a connection once; tried again with its next record while the ring is full. `next` is where the records of
/// each way begin.
#[inline(always)]
pub(crate) fn announce(conn: &mut Conn, ends: &Ends, next: [u32; 2], at: u64) {
    if conn.announced != 0 {
        return;
    }
    let record = reserve::<Opened>();
    if record.is_null() {
        count(Slot::LOST_EVENT, 1);
        return;
    }
    let flags = if conn.midway != 0 { FLAG_MIDWAY } else { 0 };
    let head = Head { kind: Kind::OPENED.0, flags, lost: 0, conn: conn.cookie, at };
    // SAFETY: `record` is not null and has room for an `Opened`. Field by field: a whole one would lie on the stack and
    // be copied bytewise.
    unsafe {
        (&raw mut (*record).head).write(head);
        (&raw mut (*record).ends).write(*ends);
        (&raw mut (*record).owner).write(conn.owner);
        (&raw mut (*record).netns).write(conn.netns);
        (&raw mut (*record).cgroup).write(conn.cgroup);
        (&raw mut (*record).role).write(conn.role);
        (&raw mut (*record).framing).write(conn.framing);
        (&raw mut (*record).known).write(conn.known);
        (&raw mut (*record).reserved).write([0; 5]);
        (&raw mut (*record).next).write(next);
    }
    submit(record);
    conn.announced = 1;
}

#[inline(always)]
fn window<const N: usize, const M: u32>(skb: *mut __sk_buff, conn: &mut Conn, from: *const Stage) {
    let record = reserve_of::<Kept<Bytes, N>>(conn);
    if record.is_null() {
        conn.lost += 1;
        count(Slot::LOST_RING, 1);
        return;
    }
    let (segment, offset) = (staged!(from, segment), staged!(from, offset));
    let (tgid, tid, errand) = (staged!(from, tgid), staged!(from, tid), staged!(from, errand));
    // SAFETY: `record` is not null; each write stays inside its `Kept<Bytes, N>`.
    unsafe {
        let head = head(conn, Kind::BYTES, 0, segment.at);
        (&raw mut (*record).head).write(Bytes { head, segment, tgid, tid, errand });
        if segment.kept != 0 && copy::payload::<M>(skb, offset, (&raw mut (*record).data).cast(), segment.kept).is_err()
        {
            bpf_ringbuf_discard(record.cast(), BPF_RB_NO_WAKEUP.into());
            conn.lost += 1;
            count(Slot::LOST_UNREADABLE, 1);
            return;
        }
    }
    submit(record);
}

/// Hands over the staged segment with `segment.kept` of its payload.
#[inline(always)]
pub(crate) fn bytes(skb: *mut __sk_buff, conn: &mut Conn, from: *const Stage) {
    let kept = staged!(from, segment.kept);
    if kept <= TAIL as u32 {
        window::<TAIL, { TAIL as u32 }>(skb, conn, from);
    } else if kept <= SMALL as u32 {
        window::<SMALL, { SMALL as u32 }>(skb, conn, from);
    } else if kept <= MEDIUM as u32 {
        window::<MEDIUM, { MEDIUM as u32 }>(skb, conn, from);
    } else {
        window::<LARGE, { LARGE as u32 }>(skb, conn, from);
    }
}

/// Hands over a segment without payload: a FIN.
#[inline(always)]
pub(crate) fn bare(conn: &mut Conn, segment: Segment) {
    count(Slot::SEEN, 1);
    let record = reserve_of::<Bytes>(conn);
    if record.is_null() {
        conn.lost += 1;
        count(Slot::LOST_RING, 1);
        return;
    }
    let head = head(conn, Kind::BYTES, 0, segment.at);
    // SAFETY: `record` is not null and has room for a `Bytes`.
    unsafe { record.write(Bytes { head, segment, tgid: 0, tid: 0, errand: 0 }) };
    submit(record);
}

/// Tells who reads requests here; false: the ring is full, which the connection's next record says.
#[inline(always)]
pub(crate) fn read(conn: &mut Conn, tgid: u32, tid: u32, at: u64) -> bool {
    let record = reserve_of::<Read>(conn);
    if record.is_null() {
        conn.lost += 1;
        count(Slot::LOST_EVENT, 1);
        return false;
    }
    let head = head(conn, Kind::READ, 0, at);
    // SAFETY: `record` is not null and has room for a `Read`.
    unsafe { record.write(Read { head, tgid, tid }) };
    submit(record);
    true
}

/// Tells that a thread on an errand sends the request that starts at `seq`; false: the ring is full.
#[inline(always)]
pub(crate) fn asked(conn: &Conn, tgid: u32, tid: u32, errand: u64, seq: u32, at: u64) -> bool {
    let record = reserve_of::<Asked>(conn);
    if record.is_null() {
        count(Slot::LOST_EVENT, 1);
        return false;
    }
    // What the ring has refused is said by the next record of the connection's bytes.
    let head = Head { kind: Kind::ASKED.0, flags: 0, lost: 0, conn: conn.cookie, at };
    // SAFETY: `record` is not null and has room for an `Asked`.
    unsafe { record.write(Asked { head, errand, seq, tgid, tid, reserved: 0 }) };
    submit(record);
    true
}

/// Copies the held request's payload, 64 bytes a step.
#[inline(always)]
#[expect(clippy::cast_ptr_alignment, reason = "both are at offsets of multiples of 8, in memory that is so aligned")]
fn copy_hold(conn: &Conn, to: *mut [u8; HOLD], len: u32) {
    let from = core::ptr::addr_of!(conn.hold).cast::<u64>();
    let to = to.cast::<u64>();
    let mut i = 0usize;
    while i < HOLD / 8 {
        if i as u32 * 8 >= len {
            break;
        }
        // Volatile, because the compiler would make this a call of a bytewise `memcpy`.
        macro_rules! word {
            ($($n:literal)*) => {
                // SAFETY: `i + 7` is below `HOLD / 8`, both sides are `HOLD` bytes long and 8-byte aligned.
                unsafe { $(to.add(i + $n).write_volatile(from.add(i + $n).read_volatile());)* }
            };
        }
        word!(0 1 2 3 4 5 6 7);
        i += 8;
    }
}

/// Hands the held request over alone.
#[inline(always)]
pub(crate) fn flush(conn: &mut Conn) {
    if !conn.holds() {
        return;
    }
    count(Slot::SEEN, 1);
    let record = reserve_of::<Kept<Bytes, HOLD>>(conn);
    if record.is_null() {
        conn.lost += 1;
        count(Slot::LOST_RING, 1);
        conn.release();
        return;
    }
    let segment = conn.held;
    // SAFETY: `record` is not null; each write stays inside it.
    unsafe {
        let head = head(conn, Kind::BYTES, 0, segment.at);
        let (tgid, tid, errand) = (conn.held_tgid, conn.held_tid, conn.held_errand);
        (&raw mut (*record).head).write(Bytes { head, segment, tgid, tid, errand });
        copy_hold(conn, &raw mut (*record).data, segment.kept);
    }
    submit(record);
    conn.release();
}

#[inline(always)]
fn paired<const N: usize, const M: u32>(skb: *mut __sk_buff, conn: &mut Conn, from: *const Stage) {
    count(Slot::SEEN, 2);
    let record = reserve_of::<Kept<Kept<Pair, HOLD>, N>>(conn);
    if record.is_null() {
        conn.lost += 2;
        count(Slot::LOST_RING, 2);
        conn.release();
        return;
    }
    let request = conn.held;
    let (response, offset) = (staged!(from, segment), staged!(from, offset));
    // One of both is this node's: the held request's sender for a client, the response's for a server.
    let tgid = staged!(from, tgid) | conn.held_tgid;
    let tid = staged!(from, tid) | conn.held_tid;
    let errand = staged!(from, errand) | conn.held_errand;
    // SAFETY: `record` is not null; each write stays inside it.
    unsafe {
        let head = head(conn, Kind::PAIR, 0, response.at);
        (&raw mut (*record).head.head).write(Pair { head, request, response, tgid, tid, errand });
        copy_hold(conn, &raw mut (*record).head.data, request.kept);
        conn.release();
        if copy::payload::<M>(skb, offset, (&raw mut (*record).data).cast(), response.kept).is_err() {
            bpf_ringbuf_discard(record.cast(), BPF_RB_NO_WAKEUP.into());
            conn.lost += 2;
            count(Slot::LOST_UNREADABLE, 2);
            return;
        }
    }
    submit(record);
}

/// Hands the held request over together with the staged segment, the first of its response.
#[inline(always)]
pub(crate) fn pair(skb: *mut __sk_buff, conn: &mut Conn, from: *const Stage) {
    if staged!(from, segment.kept) <= SMALL as u32 {
        paired::<SMALL, { SMALL as u32 }>(skb, conn, from);
    } else {
        paired::<MEDIUM, { MEDIUM as u32 }>(skb, conn, from);
    }
}
