//! Payload that comes before its socket: the segment that completes a handshake may carry data (`TCP_DEFER_ACCEPT`, a
//! lost ACK), and a SYN may (TCP Fast Open, RFC 7413). Both are filtered with the listener as socket, sometimes twice.
//! They wait here until the accepted socket is established. Checked by capture test `early_data`.

use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_ringbuf_output};
use weir_common::conn::{Ends, Framing};
use weir_common::knob::Slot;
use weir_common::record::{Bytes, Head, Kind, MEDIUM, SEG_TURN, Segment, Way};

use crate::conn::Conn;
use crate::copy;
use crate::maps::{EARLY, RING};
use crate::packet::{self, Packet};
use crate::stats::count;

/// How many segments may wait at once, a power of two. They wait for a handshake's last step: microseconds.
pub(crate) const SLOTS: usize = 256;

/// A segment that waits for its socket: a record that lacks its connection.
#[repr(C)]
pub(crate) struct Early {
    record: Bytes,
    data: [u8; MEDIUM],
    ends: Ends,
}
const _: () = assert!(core::mem::offset_of!(Early, ends) % 8 == 0);

/// The slot of a pair of ends. Whoever comes later takes it.
#[inline(always)]
fn slot(ends: &Ends) -> *mut Early {
    let mut sum = u32::from(ends.remote_port) ^ (u32::from(ends.local_port) << 3);
    sum ^= u32::from(ends.remote[15]) << 5 ^ u32::from(ends.remote[14]);
    let key = (sum ^ (sum >> 8)) & (SLOTS as u32 - 1);
    // SAFETY: the map's key type, alive.
    unsafe { bpf_map_lookup_elem(EARLY.as_ptr(), (&raw const key).cast()) }.cast()
}

/// Remembers a segment that a listener got.
#[inline(always)]
pub(crate) fn keep(skb: *mut __sk_buff, packet: &Packet) {
    let Some(ends) = packet::ends(skb) else { return };
    let early = slot(&ends);
    if early.is_null() {
        return;
    }
    let kept = if packet.len < MEDIUM as u32 { packet.len } else { MEDIUM as u32 };
    // SAFETY: not null; each access stays inside an `Early`.
    unsafe {
        (&raw mut (*early).record.segment.len).write_volatile(0);
        if copy::payload::<{ MEDIUM as u32 }>(skb, packet.offset, (&raw mut (*early).data).cast(), kept).is_err() {
            return;
        }
        let at = bpf_ktime_get_ns();
        let segment = Segment { at, seq: packet.seq, len: 0, kept, way: Way::IN.0, flags: SEG_TURN, reserved: 0 };
        (&raw mut (*early).record.segment).write(segment);
        (&raw mut (*early).ends).write(ends);
        // Written last: from here on it may be taken.
        (&raw mut (*early).record.segment.len).write_volatile(packet.len);
    }
}

/// Whether two pairs of ends are the same connection's, without the family: a dual-stack listener's child says
/// `AF_INET6` of IPv4 packets.
#[inline(always)]
fn same(a: &Ends, b: &Ends) -> bool {
    let ports = u32::from(a.local_port ^ b.local_port) | u32::from(a.remote_port ^ b.remote_port);
    let mut differ = u64::from(ports);
    let (a, b) = ((&raw const *a).cast::<u64>(), (&raw const *b).cast::<u64>());
    let mut i = 0;
    while i < 4 {
        // SAFETY: an `Ends` begins with its two addresses, 32 bytes, and lies 8-byte aligned where it comes from here.
        differ |= unsafe { a.add(i).read_volatile() ^ b.add(i).read_volatile() };
        i += 1;
    }
    differ == 0
}

/// Hands over what waited for a connection that is established now, and announced.
#[inline(always)]
pub(crate) fn take(conn: &mut Conn, ends: &Ends) {
    let early = slot(ends);
    if early.is_null() {
        return;
    }
    // SAFETY: not null; each access stays inside an `Early`.
    let (segment, len) = unsafe {
        let len = (&raw const (*early).record.segment.len).read_volatile();
        if len == 0 || !same(&(*early).ends, ends) {
            return;
        }
        (&raw mut (*early).record.segment.len).write_volatile(0);
        ((&raw const (*early).record.segment).read(), len)
    };
    let w = usize::from(Way::IN.0);
    if segment.seq != conn.next[w] || conn.announced == 0 {
        return;
    }
    if conn.framing == Framing::IGNORE.0 {
        return;
    }
    conn.next[w] = segment.seq.wrapping_add(len);
    conn.last = Way::IN.0 + 1;
    conn.began = segment.seq;
    conn.fresh = 1;
    conn.kept[w] = segment.kept;
    // The first bytes of the response tell whether it is one.
    conn.framing = Framing::HEADS.0;
    count(Slot::SEEN, 1);
    // SAFETY: not null; the record is whole, and `kept` is at most `MEDIUM`.
    let refused = unsafe {
        let head = Head { kind: Kind::BYTES.0, flags: 0, lost: 0, conn: conn.cookie, at: segment.at };
        (&raw mut (*early).record.head).write(head);
        (&raw mut (*early).record.segment).write(Segment { len, ..segment });
        let size = size_of::<Bytes>() as u64 + u64::from((segment.kept.wrapping_sub(1) & (MEDIUM as u32 - 1)) + 1);
        let refused = bpf_ringbuf_output(RING.as_ptr(), early.cast(), size, BPF_RB_NO_WAKEUP.into()) != 0;
        (&raw mut (*early).record.segment.len).write_volatile(0);
        refused
    };
    if refused {
        conn.lost += 1;
        count(Slot::LOST_RING, 1);
    }
}
