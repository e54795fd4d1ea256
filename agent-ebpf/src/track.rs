//! Socket → connection state: finding it, starting it, and each way's sequence numbers.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_map_lookup_elem, bpf_sk_cgroup_id, bpf_sk_fullsock, bpf_sk_storage_get, bpf_tcp_sock,
};
use weir_common::conn::{Ends, Framing, Known, Role};
use weir_common::knob::Slot;
use weir_common::record::{SEG_AHEAD, SEG_BEHIND, Way};

use crate::conn::{Conn, Stage, stage};
use crate::maps::{CONNS, FOREIGN, STAGE};
use crate::packet::{FIN, Packet};
use crate::stats::count;
use crate::who;

/// `SOCK_STREAM`.
pub(crate) const STREAM: u32 = 1;
/// `TCP_LISTEN` of `include/net/tcp_states.h`.
pub(crate) const TCP_LISTEN: u32 = 10;
/// `BPF_SK_STORAGE_GET_F_CREATE`.
pub(crate) const CREATE: u64 = 1;
/// A segment further ahead than this is outside any receive window in use (RFC 7323 allows 1 GiB, Linux `tcp_rmem`
/// defaults to 6 MiB): forged, or of another life of the connection.
const FAR: i32 = 64 << 20;

/// Reads a field of a kernel context at a constant offset. As an instruction, because the compiler may compute a
/// field's address first, and the verifier forbids arithmetic on such pointers.
macro_rules! field {
    ($pointer:expr, $type:ty, $($field:tt).+ $(, $index:expr)?) => {{
        let value: u64;
        // SAFETY: the verifier checks the pointer and the offset.
        unsafe {
            core::arch::asm!(
                "{0} = *(u32 *)({1} + {2})",
                out(reg) value,
                in(reg) $pointer,
                const core::mem::offset_of!($type, $($field).+) $(+ $index * 4)?,
                options(nostack, pure, readonly)
            );
        }
        value as u32
    }};
}
pub(crate) use field;

/// The storage of a socket; null where there is none.
#[inline(always)]
pub(crate) fn storage(sk: *mut core::ffi::c_void, flags: u64) -> *mut Conn {
    // SAFETY: `sk` is a full socket or the context of a socket hook; the verifier checks it.
    unsafe { bpf_sk_storage_get(CONNS.as_ptr(), sk, core::ptr::null_mut(), flags) }.cast()
}

/// Where a segment's decisions lie; null is never seen, but the verifier does not know.
#[inline(always)]
pub(crate) fn stage_of(conn: &mut Conn, way: Way) -> *mut Stage {
    if way == Way::OUT {
        return &raw mut conn.stage;
    }
    let key = 0u32;
    // SAFETY: the map's key type, alive.
    unsafe { bpf_map_lookup_elem(STAGE.as_ptr(), (&raw const key).cast()) }.cast()
}

/// The full socket of a packet; null where there is none.
#[inline(always)]
pub(crate) fn socket(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: the context of a cgroup_skb program; the pointer is checked before use.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() { sk } else { bpf_sk_fullsock(sk) }
    }
}

/// The state of a packet's connection; `None` for a listener, for what is no connection, or where no storage can be had.
#[inline(always)]
pub(crate) fn connection<'a>(skb: *mut __sk_buff, sk: *mut bpf_sock) -> Option<&'a mut Conn> {
    let mut conn = storage(sk.cast(), 0);
    if conn.is_null() {
        // Raw sockets get copies of segments that are others'.
        // SAFETY: checked by the caller.
        if unsafe { (*sk).state } == TCP_LISTEN || field!(sk, bpf_sock, type_) != STREAM {
            return None;
        }
        conn = storage(sk.cast(), CREATE);
        if conn.is_null() {
            count(Slot::NO_STORAGE, 1);
            return None;
        }
        // SAFETY: checked for null above.
        let conn = unsafe { &mut *conn };
        conn.midway = 1;
        conn.framing = Framing::MIDWAY.0;
    }
    // SAFETY: checked for null above.
    let conn = unsafe { &mut *conn };
    if conn.cookie == 0 {
        // SAFETY: checked by the caller.
        if unsafe { (*sk).state } == TCP_LISTEN {
            return None;
        }
        // SAFETY: the context of a cgroup_skb program.
        let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
        start(conn, cookie, sk);
    }
    Some(conn)
}

/// First sight of a connection that `sock_ops` did not announce.
#[inline(always)]
fn start(conn: &mut Conn, cookie: u64, sk: *mut bpf_sock) {
    let role = if conn.role == Role::LISTENER.0 {
        Role::SERVER
    } else if conn.midway == 0 && conn.owner.known == Known::CREATOR.0 {
        // A socket that was created under our eyes and is no listener's child has connected.
        Role::CLIENT
    } else {
        Role::UNKNOWN
    };
    conn.begin(cookie, role);
    if conn.cgroup == 0 {
        // SAFETY: a full socket.
        conn.cgroup = unsafe { bpf_sk_cgroup_id(sk.cast()) };
    }
    if conn.netns == 0 {
        conn.netns = who::netns(conn, sk);
    }
}

/// The interface that a full socket is bound to (`sk_bound_dev_if`); 0: none.
#[inline(always)]
pub(crate) fn bound(sk: *mut bpf_sock) -> u32 {
    field!(sk, bpf_sock, bound_dev_if)
}

/// The ends of a full socket.
#[inline(always)]
pub(crate) fn ends(sk: *mut bpf_sock) -> Ends {
    let family = field!(sk, bpf_sock, family);
    let mut ends = Ends {
        local: [0; 16],
        remote: [0; 16],
        local_port: field!(sk, bpf_sock, src_port) as u16,
        // SAFETY: a full socket, checked by the caller.
        remote_port: u16::from_be(unsafe { (*sk).dst_port }),
        family: family as u16,
        reserved: 0,
    };
    if family == 10 {
        let local = [
            field!(sk, bpf_sock, src_ip6, 0),
            field!(sk, bpf_sock, src_ip6, 1),
            field!(sk, bpf_sock, src_ip6, 2),
            field!(sk, bpf_sock, src_ip6, 3),
        ];
        let remote = [
            field!(sk, bpf_sock, dst_ip6, 0),
            field!(sk, bpf_sock, dst_ip6, 1),
            field!(sk, bpf_sock, dst_ip6, 2),
            field!(sk, bpf_sock, dst_ip6, 3),
        ];
        put(&mut ends.local, local);
        put(&mut ends.remote, remote);
    } else {
        put(&mut ends.local, [0, 0, MAPPED, field!(sk, bpf_sock, src_ip4)]);
        put(&mut ends.remote, [0, 0, MAPPED, field!(sk, bpf_sock, dst_ip4)]);
    }
    ends
}

/// Third word of an IPv4-mapped address, as it lies in memory.
pub(crate) const MAPPED: u32 = 0xffff_u32.to_be();

/// Writes an address whose words are in network byte order.
#[inline(always)]
pub(crate) fn put(to: &mut [u8; 16], words: [u32; 4]) {
    let mut i = 0;
    while i < 4 {
        let b = words[i].to_ne_bytes();
        to[i * 4] = b[0];
        to[i * 4 + 1] = b[1];
        to[i * 4 + 2] = b[2];
        to[i * 4 + 3] = b[3];
        i += 1;
    }
}

/// Compares a segment with what is expected, so that each byte of a stream is counted once, and stages what is new in
/// it: sequence number, length, place, `SEG_AHEAD` or `SEG_BEHIND`. False: nothing is new.
///
/// Ingress runs before TCP's own checks: retransmits, duplicates, reordered and forged segments all pass here; egress
/// retransmits pass again.
#[inline(always)]
pub(crate) fn sequence(conn: &mut Conn, to: *mut Stage, sk: *mut bpf_sock, way: Way, packet: &Packet) -> bool {
    let w = usize::from(way.0 & 1);
    let bit = 1u8 << w;
    stage!(to, ack, packet.ack);
    stage!(to, fin, packet.flags & FIN);
    if conn.known & bit == 0 {
        conn.known |= bit;
        conn.next[w] = packet.seq;
    }
    let end = packet.seq.wrapping_add(packet.len);
    let next = conn.next[w];
    let ahead = packet.seq.wrapping_sub(next).cast_signed();
    let (mut skip, mut flags) = (0u32, 0u8);
    if ahead != 0 || conn.holes & bit != 0 {
        if ahead > FAR {
            count(Slot::DUPLICATE, 1);
            return false;
        }
        if conn.holes & bit != 0 && filled(sk, way, next) {
            conn.holes &= !bit;
        }
        let over = end.wrapping_sub(next).cast_signed();
        if ahead >= 0 {
            // TCP sends in order: what egress misses was not readable and will not come.
            if ahead > 0 && way == Way::IN && conn.holes & bit == 0 {
                conn.holes |= bit;
                conn.hole[w] = next;
            }
            flags = if conn.holes & bit == 0 { 0 } else { SEG_AHEAD };
        } else if conn.holes & bit != 0 && end.wrapping_sub(conn.hole[w]).cast_signed() > 0 {
            flags = SEG_BEHIND;
        } else if over > 0 {
            skip = packet.len - over.cast_unsigned();
        } else {
            count(Slot::DUPLICATE, 1);
            return false;
        }
        if over > 0 {
            conn.next[w] = end;
        }
    } else {
        conn.next[w] = end;
    }
    stage!(to, segment.seq, packet.seq.wrapping_add(skip));
    stage!(to, segment.len, packet.len - skip);
    stage!(to, segment.flags, flags);
    stage!(to, offset, packet.offset + skip);
    true
}

/// Whether the agent has said that nothing it reads is spoken here.
#[inline(always)]
pub(crate) fn foreign(conn: &Conn) -> bool {
    let key = conn.cookie;
    // SAFETY: the map's key type, alive.
    !unsafe { bpf_map_lookup_elem(FOREIGN.as_ptr(), (&raw const key).cast()) }.is_null()
}

/// Whether TCP itself has received everything below `next`: `rcv_nxt` is a lower bound.
#[inline(always)]
fn filled(sk: *mut bpf_sock, way: Way, next: u32) -> bool {
    if way == Way::OUT {
        return false;
    }
    // SAFETY: a full socket; the result is checked.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        !tcp.is_null() && (*tcp).rcv_nxt.wrapping_sub(next).cast_signed() >= 0
    }
}
