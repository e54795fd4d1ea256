//! Connections established and closed.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sock_ops_cb_flags_set};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use weir_common::conn::{Ends, Framing, Role};
use weir_common::knob::Slot;
use weir_common::record::{Closed, Ended, Head, Kind, Way};

use crate::conn::Conn;
use crate::stats::count;
use crate::track::{self, CREATE, field};
use crate::who;
use crate::{early, emit, errand, gate};

/// `TCP_SYN_SENT`, `TCP_CLOSE` of `include/net/tcp_states.h`.
/// `TCP_ESTABLISHED`, `TCP_CLOSE_WAIT`.
const ESTABLISHED: u32 = 1;
const CLOSE_WAIT: u32 = 8;
/// `TCP_SYN_SENT`.
const SYN_SENT: u32 = 2;
const CLOSE: u32 = 7;

/// Life of connections.
#[sock_ops]
pub(crate) fn weir_sock_ops(ctx: SockOpsContext) -> u32 {
    let ops: *mut bpf_sock_ops = ctx.as_ptr().cast();
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connect(ops),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listen(ops),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(ops, Role::CLIENT),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(ops, Role::SERVER),
        BPF_SOCK_OPS_STATE_CB => state(ops, ctx.arg(0), ctx.arg(1)),
        _ => {}
    }
    1
}

#[inline(always)]
fn storage<'a>(ops: *mut bpf_sock_ops, flags: u64) -> Option<&'a mut Conn> {
    // SAFETY: the context of a sock_ops program; the pointer is checked before use.
    let conn = unsafe {
        let sk = (*ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        track::storage(sk.cast(), flags)
    };
    if conn.is_null() {
        return None;
    }
    // SAFETY: checked for null above.
    Some(unsafe { &mut *conn })
}

/// Asks for state changes, beside what other programs asked for.
#[inline(always)]
fn ask(ops: *mut bpf_sock_ops) {
    // SAFETY: the context of a sock_ops program.
    unsafe {
        let flags = (*ops).bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;
        bpf_sock_ops_cb_flags_set(ops, flags.cast_signed());
    }
}

/// `connect()`: from here on a refusal is told by the state callback.
#[inline(always)]
fn connect(ops: *mut bpf_sock_ops) {
    if let Some(conn) = storage(ops, 0) {
        // SAFETY: the context of a sock_ops program.
        let cookie = unsafe { bpf_get_socket_cookie(ops.cast()) };
        conn.begin(cookie, Role::CLIENT);
        ask(ops);
        if conn.netns == 0 {
            // SAFETY: as above; checked in `storage`.
            let sk = unsafe { (*ops).__bindgen_anon_2.sk };
            conn.netns = who::netns(conn, sk);
        }
    }
}

#[inline(always)]
fn listen(ops: *mut bpf_sock_ops) {
    if let Some(conn) = storage(ops, 0) {
        conn.role = Role::LISTENER.0;
        conn.cookie = 0;
    }
}

#[inline(always)]
fn established(ops: *mut bpf_sock_ops, role: Role) {
    let Some(conn) = storage(ops, CREATE) else {
        count(Slot::NO_STORAGE, 1);
        return;
    };
    // SAFETY: the context of a sock_ops program.
    let cookie = unsafe { bpf_get_socket_cookie(ops.cast()) };
    conn.begin(cookie, role);
    ask(ops);
    if conn.netns == 0 {
        // SAFETY: as above; checked in `storage`.
        let sk = unsafe { (*ops).__bindgen_anon_2.sk };
        conn.netns = who::netns(conn, sk);
    }
    // SAFETY: as above.
    unsafe {
        conn.start[usize::from(Way::IN.0)] = (*ops).rcv_nxt.wrapping_sub((*ops).bytes_received as u32);
        // Of a client's bytes that were acknowledged the SYN is one.
        let syn = u32::from(role == Role::CLIENT);
        let sent = (*ops).snd_una.wrapping_sub((*ops).bytes_acked as u32).wrapping_add(syn);
        conn.start[usize::from(Way::OUT.0)] = sent;
    }
    if conn.known == 0 {
        // SAFETY: as above.
        unsafe {
            conn.next[usize::from(Way::IN.0)] = (*ops).rcv_nxt;
            conn.next[usize::from(Way::OUT.0)] = (*ops).snd_nxt;
        }
        conn.known = 3;
    }
    count(Slot::OPENED, 1);
    // SAFETY: no arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    let ends = ends(ops);
    emit::announce(conn, &ends, conn.next, at);
    if role == Role::SERVER {
        early::take(conn, &ends);
        // SAFETY: the context of a sock_ops program; checked in `storage`.
        let sk = unsafe { (*ops).__bindgen_anon_2.sk };
        if !sk.is_null() {
            gate::early::adopt(sk, conn);
        }
    }
}

#[inline(always)]
fn ends(ops: *mut bpf_sock_ops) -> Ends {
    let family = field!(ops, bpf_sock_ops, family);
    let mut ends = Ends {
        local: [0; 16],
        remote: [0; 16],
        local_port: field!(ops, bpf_sock_ops, local_port) as u16,
        // Network byte order in the upper half on little-endian machines (`remote_port` of struct bpf_sock_ops).
        remote_port: u32::from_be(field!(ops, bpf_sock_ops, remote_port)) as u16,
        family: family as u16,
        reserved: 0,
    };
    if family == 10 {
        let local = [
            field!(ops, bpf_sock_ops, local_ip6, 0),
            field!(ops, bpf_sock_ops, local_ip6, 1),
            field!(ops, bpf_sock_ops, local_ip6, 2),
            field!(ops, bpf_sock_ops, local_ip6, 3),
        ];
        let remote = [
            field!(ops, bpf_sock_ops, remote_ip6, 0),
            field!(ops, bpf_sock_ops, remote_ip6, 1),
            field!(ops, bpf_sock_ops, remote_ip6, 2),
            field!(ops, bpf_sock_ops, remote_ip6, 3),
        ];
        track::put(&mut ends.local, local);
        track::put(&mut ends.remote, remote);
    } else {
        track::put(&mut ends.local, [0, 0, track::MAPPED, field!(ops, bpf_sock_ops, local_ip4)]);
        track::put(&mut ends.remote, [0, 0, track::MAPPED, field!(ops, bpf_sock_ops, remote_ip4)]);
    }
    ends
}

#[inline(always)]
fn state(ops: *mut bpf_sock_ops, from: u32, to: u32) {
    if to != CLOSE {
        return;
    }
    let Some(conn) = storage(ops, 0) else { return };
    if conn.cookie == 0 || conn.role == Role::LISTENER.0 {
        return;
    }
    errand::ends(conn);
    emit::flush(conn);
    count(Slot::CLOSED, 1);
    let record = emit::reserve::<Closed>();
    if record.is_null() {
        count(Slot::LOST_EVENT, 1);
        return;
    }
    // SAFETY: the context of a sock_ops program.
    let waiting = unsafe { (*ops).retrans_out };
    if conn.reset_by == 0 && (from == ESTABLISHED || from == CLOSE_WAIT) && waiting == 0 {
        // No FIN was sent, and nothing was given up after retransmissions: this side aborts. Its reset is sent after the
        // state has changed (`tcp_disconnect`).
        conn.reset_by = 2;
    }
    let ended = if from == SYN_SENT {
        Ended::FAILED
    } else if conn.reset_by != 0 {
        Ended::RESET
    } else {
        Ended::CLOSED
    };
    // SAFETY: no arguments; the context of a sock_ops program; `record` is not null and has room for a `Closed`.
    unsafe {
        let head = Head { kind: Kind::CLOSED.0, flags: 0, lost: conn.lost, conn: conn.cookie, at: bpf_ktime_get_ns() };
        (&raw mut (*record).head).write(head);
        (&raw mut (*record).ends).write(ends(ops));
        (&raw mut (*record).owner).write(conn.owner);
        (&raw mut (*record).bytes).write([(*ops).bytes_received, (*ops).bytes_acked]);
        (&raw mut (*record).srtt_us).write((*ops).srtt_us >> 3);
        (&raw mut (*record).from_state).write(from as u8);
        (&raw mut (*record).ended).write(ended.0);
        (&raw mut (*record).role).write(conn.role);
        (&raw mut (*record).reset_by).write(conn.reset_by);
        (&raw mut (*record).netns).write(conn.netns);
    }
    emit::submit(record);
    // A socket that connects again starts anew.
    conn.announced = 0;
    conn.known = 0;
    conn.holes = 0;
    conn.fins = 0;
    conn.last = 0;
    conn.confirmed = 0;
    conn.reset_by = 0;
    conn.wide = 0;
    conn.deep = 0;
    conn.errand = 0;
    conn.told = 0;
    conn.fresh = 0;
    if conn.framing != Framing::IGNORE.0 {
        conn.framing = Framing::UNDECIDED.0;
    }
}
