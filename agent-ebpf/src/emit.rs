//! Records for the agent: reserve, fill, submit, or count the loss. Nobody is woken: the agent drains on a timer.

use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit};
use weir_common::conn::Ends;
use weir_common::knob::Slot;
use weir_common::record::{Bytes, FLAG_MIDWAY, HOLD, Head, Kind, LARGE, MEDIUM, Opened, Pair, SMALL, Segment, TAIL};

use crate::conn::Conn;
use crate::copy;
use crate::maps::RING;
use crate::stats::count;
use crate::who::Thread;

/// Reserves a record of `T`; null when the ring is full.
#[inline(always)]
pub(crate) fn reserve<T>() -> *mut T {
    // SAFETY: the ring is loaded with the program; the size is a constant.
    unsafe { bpf_ringbuf_reserve(RING.as_ptr(), size_of::<T>() as u64, 0) }.cast()
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

/// Announces a connection once; tried again with its next record while the ring is full.
#[inline(always)]
pub(crate) fn announce(conn: &mut Conn, ends: &Ends, at: u64) {
    if conn.announced != 0 {
        return;
    }
    let record = reserve::<Opened>();
    if record.is_null() {
        count(Slot::LOST_EVENT, 1);
        return;
    }
    let flags = if conn.midway != 0 { FLAG_MIDWAY } else { 0 };
    let opened = Opened {
        head: Head { kind: Kind::OPENED.0, flags, lost: 0, conn: conn.cookie, at },
        ends: *ends,
        owner: conn.owner,
        netns: conn.netns,
        cgroup: conn.cgroup,
        role: conn.role,
        framing: conn.framing,
        reserved: [0; 6],
    };
    // SAFETY: `record` is not null and has room for an `Opened`.
    unsafe { record.write(opened) };
    submit(record);
    conn.announced = 1;
}

#[inline(always)]
fn window<const N: usize, const M: u32>(
    skb: *mut __sk_buff,
    conn: &mut Conn,
    segment: &Segment,
    offset: u32,
    by: Thread,
) {
    let record = reserve::<Kept<Bytes, N>>();
    if record.is_null() {
        conn.lost += 1;
        count(Slot::LOST_RING, 1);
        return;
    }
    // SAFETY: `record` is not null; each write stays inside its `Kept<Bytes, N>`.
    unsafe {
        let head = head(conn, Kind::BYTES, 0, segment.at);
        (&raw mut (*record).head).write(Bytes { head, segment: *segment, tgid: by.tgid, tid: by.tid });
        if segment.kept != 0
            && copy::payload::<M>(skb, offset, (&raw mut (*record).data).cast(), segment.kept).is_err()
        {
            bpf_ringbuf_discard(record.cast(), BPF_RB_NO_WAKEUP.into());
            conn.lost += 1;
            count(Slot::LOST_UNREADABLE, 1);
            return;
        }
    }
    submit(record);
}

/// Hands over a segment with `segment.kept` of its payload, which starts at `offset`.
#[inline(always)]
pub(crate) fn bytes(skb: *mut __sk_buff, conn: &mut Conn, segment: &Segment, offset: u32, by: Thread) {
    if segment.kept <= TAIL as u32 {
        window::<TAIL, { TAIL as u32 }>(skb, conn, segment, offset, by);
    } else if segment.kept <= SMALL as u32 {
        window::<SMALL, { SMALL as u32 }>(skb, conn, segment, offset, by);
    } else if segment.kept <= MEDIUM as u32 {
        window::<MEDIUM, { MEDIUM as u32 }>(skb, conn, segment, offset, by);
    } else {
        window::<LARGE, { LARGE as u32 }>(skb, conn, segment, offset, by);
    }
}

/// Copies the held request's payload, 64 bytes a step.
#[inline(always)]
fn copy_hold(conn: &Conn, to: *mut [u8; HOLD], len: u32) {
    let from = core::ptr::addr_of!(conn.hold).cast::<[u64; 8]>();
    let to = to.cast::<[u64; 8]>();
    let mut i = 0usize;
    while i < HOLD / 64 {
        if i as u32 * 64 >= len {
            break;
        }
        // SAFETY: `i` is below `HOLD / 64`, both sides are `HOLD` bytes long and 8-byte aligned.
        unsafe { to.add(i).write(from.add(i).read()) };
        i += 1;
    }
}

/// Hands the held request over alone.
#[inline(always)]
pub(crate) fn flush(conn: &mut Conn) {
    if !conn.holds() {
        return;
    }
    count(Slot::SEEN, 1);
    let record = reserve::<Kept<Bytes, HOLD>>();
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
        (&raw mut (*record).head).write(Bytes { head, segment, tgid: conn.held_tgid, tid: conn.held_tid });
        copy_hold(conn, &raw mut (*record).data, segment.kept);
    }
    submit(record);
    conn.release();
}

#[inline(always)]
fn paired<const N: usize, const M: u32>(
    skb: *mut __sk_buff,
    conn: &mut Conn,
    response: &Segment,
    offset: u32,
    by: Thread,
) {
    count(Slot::SEEN, 2);
    let record = reserve::<Kept<Kept<Pair, HOLD>, N>>();
    if record.is_null() {
        conn.lost += 2;
        count(Slot::LOST_RING, 2);
        conn.release();
        return;
    }
    let request = conn.held;
    let by = if by.tgid == 0 { Thread { tgid: conn.held_tgid, tid: conn.held_tid } } else { by };
    // SAFETY: `record` is not null; each write stays inside it.
    unsafe {
        let head = head(conn, Kind::PAIR, 0, response.at);
        (&raw mut (*record).head.head).write(Pair { head, request, response: *response, tgid: by.tgid, tid: by.tid });
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

/// Hands the held request over together with the first segment of its response.
#[inline(always)]
pub(crate) fn pair(skb: *mut __sk_buff, conn: &mut Conn, response: &Segment, offset: u32, by: Thread) {
    if response.kept <= SMALL as u32 {
        paired::<SMALL, { SMALL as u32 }>(skb, conn, response, offset, by);
    } else {
        paired::<MEDIUM, { MEDIUM as u32 }>(skb, conn, response, offset, by);
    }
}
