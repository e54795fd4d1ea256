//! DNS over UDP: what sockets of this node ask of port 53, and what they are answered. An answer that no socket asked
//! for stays here, and so does what exceeds the budget: names are worth less than calls, and share the ring with them.
//! Checked by suite `names`.

use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_map_update_elem, bpf_ringbuf_discard,
    bpf_skb_load_bytes,
};
use weir_common::knob::Slot;
use weir_common::record::{Dns, Head, Kind, MESSAGE, SMALL, Way};

use crate::maps::{ASKED, DNS_BUDGET};
use crate::stats::count;
use crate::{copy, emit, knobs, track, who};

/// Header of a message (RFC 1035 §4.1.1), of a datagram.
const HEADER: u32 = 12;
const DATAGRAM: u32 = 8;
/// Answers to one question that are handed over: one that is forged must not hide the true one.
const ANSWERS: u32 = 4;
/// Messages that are handed over in a second, of a CPU.
const EACH_SECOND: u32 = 4096;
const SECOND: u64 = 1_000_000_000;

/// A question that waits: the socket's cookie, and the message's id.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Question {
    socket: u64,
    id: u32,
    zero: u32,
}

/// What is kept of it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// The socket, so that its address can be read back as a number.
    sk: u64,
    /// Answers that may still be handed over.
    left: u32,
    zero: u32,
}

/// The budget of the second that began at `since`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    since: u64,
    used: u32,
    zero: u32,
}

#[repr(C)]
struct Kept<const N: usize> {
    record: Dns,
    data: [u8; N],
}

/// A datagram from or to port 53.
#[inline(always)]
pub(crate) fn message(skb: *mut __sk_buff, way: Way) {
    let sk = track::socket(skb);
    if sk.is_null() {
        return;
    }
    let mut first = [0u8; 1];
    // SAFETY: `first` is a byte long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, first.as_mut_ptr().cast(), 1) } != 0 {
        return;
    }
    let at = if first[0] >> 4 == 4 { u32::from(first[0] & 15) * 4 } else { 40 };
    let mut b = [0u8; (DATAGRAM + HEADER) as usize];
    // SAFETY: `b` is that long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), at, b.as_mut_ptr().cast(), DATAGRAM + HEADER) } != 0 {
        return;
    }
    // From port 53 it is an answer, to port 53 a question; QR says the same, and OPCODE is QUERY.
    let port = if way == Way::IN { [b[0], b[1]] } else { [b[2], b[3]] };
    let answer = if way == Way::IN { 0x80 } else { 0 };
    if u16::from_be_bytes(port) != 53 || b[10] & 0xf8 != answer {
        return;
    }
    // SAFETY: the context of a cgroup_skb program.
    let socket = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let question = Question { socket, id: u32::from(u16::from_be_bytes([b[8], b[9]])), zero: 0 };
    let (mut tgid, mut netns) = (0, 0);
    if way == Way::OUT {
        // UDP is sent by the thread that calls `send`.
        tgid = who::current().tgid;
        if tgid != 0 && tgid == knobs::self_tgid() {
            return;
        }
        let asked = Asked { sk: 0, left: ANSWERS, zero: 0 };
        // SAFETY: the map's key and value types, alive.
        unsafe {
            bpf_map_update_elem(ASKED.as_ptr(), (&raw const question).cast(), (&raw const asked).cast(), 0);
        }
    }
    // SAFETY: the map's key type, alive.
    let asked = unsafe { bpf_map_lookup_elem(ASKED.as_ptr(), (&raw const question).cast()) }.cast::<Asked>();
    if asked.is_null() {
        count(Slot::DNS_UNASKED, 1);
        return;
    }
    if way == Way::OUT {
        // SAFETY: not null; a field of a live map value.
        netns = who::netns_by(unsafe { &raw mut (*asked).sk }, sk);
    } else {
        // SAFETY: not null; fields of a live map value. Two answers at once may count as one: it is no exact bound.
        unsafe {
            if (*asked).left == 0 {
                count(Slot::DNS_UNASKED, 1);
                return;
            }
            (*asked).left -= 1;
        }
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if !afford(now) {
        count(Slot::DNS_FLOOD, 1);
        return;
    }
    // SAFETY: the context of a cgroup_skb program.
    let len = unsafe { (*skb).len }.saturating_sub(at + DATAGRAM);
    if len < HEADER {
        return;
    }
    let head = Head { kind: Kind::DNS.0, flags: 0, lost: 0, conn: socket, at: now };
    let record = Dns { head, netns, tgid, len, kept: 0, way: way.0, reserved: [0; 3] };
    if len <= SMALL as u32 {
        hand::<SMALL, { SMALL as u32 }>(skb, at + DATAGRAM, &record);
    } else {
        hand::<MESSAGE, { MESSAGE as u32 }>(skb, at + DATAGRAM, &record);
    }
}

/// Takes one message of this second's budget.
#[inline(always)]
fn afford(now: u64) -> bool {
    let key = 0u32;
    // SAFETY: the map's key type, alive.
    let budget = unsafe { bpf_map_lookup_elem(DNS_BUDGET.as_ptr(), (&raw const key).cast()) }.cast::<Budget>();
    if budget.is_null() {
        return false;
    }
    // SAFETY: not null; fields of a live map value, of this CPU. A run that comes between costs one count at most.
    unsafe {
        if now.wrapping_sub((*budget).since) >= SECOND {
            (*budget).since = now;
            (*budget).used = 0;
        }
        if (*budget).used >= EACH_SECOND {
            return false;
        }
        (*budget).used += 1;
    }
    true
}

#[inline(always)]
fn hand<const N: usize, const M: u32>(skb: *mut __sk_buff, offset: u32, told: &Dns) {
    let record = emit::reserve::<Kept<N>>();
    if record.is_null() {
        count(Slot::LOST_DNS, 1);
        return;
    }
    let kept = if told.len < M { told.len } else { M };
    // SAFETY: `record` is not null; each write stays inside its `Kept<N>`.
    unsafe {
        (&raw mut (*record).record).write(Dns { kept, ..*told });
        if copy::payload::<M>(skb, offset, (&raw mut (*record).data).cast(), kept).is_err() {
            bpf_ringbuf_discard(record.cast(), BPF_RB_NO_WAKEUP.into());
            count(Slot::LOST_DNS, 1);
            return;
        }
    }
    emit::submit(record);
}
