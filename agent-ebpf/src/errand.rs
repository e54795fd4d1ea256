//! Errands: which request a thread has taken and not answered yet, so that what it sends in between can be told to
//! belong to it (`weir_common::errand`). What is proven by it, and what is assumed, is told where the agent joins calls:
//! `agent/src/flow/chains`.
//!
//! A read runs inside `recvmsg`, a sending inside `sendmsg` or in a soft interrupt: all of them under the socket's lock.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_map_delete_elem, bpf_map_lookup_elem,
    bpf_map_update_elem,
};
use weir_common::conn::{Framing, Role};
use weir_common::errand::{Doubt, Errand};

use crate::conn::Conn;
use crate::maps::{CALLERS, WALKS};
use crate::who::{self, Thread};
use crate::{emit, knobs, track};

/// What a thread that takes requests is about.
#[repr(C)]
pub(crate) struct Walk {
    /// Its process.
    tgid: u32,
    /// A `states`.
    state: u32,
    /// Id of its errand; 0: none.
    at: u64,
    /// Requests that it has taken and that nobody has answered.
    pending: i64,
    /// Requests that it has sent on this errand.
    sent: u32,
    /// Those of which it has begun to read the response.
    got: u32,
}

/// How a thread works.
mod states {
    /// It takes one request at a time, as far as has been seen.
    pub(super) const ONE: u32 = 0;
    /// As `ONE`, but it may not be alone with the request that it has taken last.
    pub(super) const SHARED: u32 = 1;
    /// As `ONE`, but its read would have returned without waiting.
    pub(super) const FREE: u32 = 2;
    /// It serves many connections at once. It stays so.
    pub(super) const LOOP: u32 = 3;
}

/// A process that takes requests.
#[repr(C)]
pub(crate) struct Caller {
    /// Requests that it had taken before its first call.
    reads: u32,
    /// 1: it has sent a request itself.
    calls: u32,
    /// Until then no errand of it is sure, `CLOCK_MONOTONIC` nanoseconds.
    blind: u64,
}

/// A process that has taken so many requests and called nobody is not asked any further, until it calls.
const PURE: u32 = 256;
/// How long a request may be under way that was taken while its process was not asked.
const BLIND: u64 = 60_000_000_000;
/// `O_NONBLOCK` of the architectures that Weir runs on.
const NONBLOCK: u32 = 0o4000;
/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

#[inline(always)]
fn walk<'a>(tid: u32) -> Option<&'a mut Walk> {
    // SAFETY: the map's key type, alive; the result is checked; only the thread itself writes more than `pending`.
    unsafe { bpf_map_lookup_elem(WALKS.as_ptr(), (&raw const tid).cast()).cast::<Walk>().as_mut() }
}

#[inline(always)]
fn caller<'a>(tgid: u32) -> Option<&'a mut Caller> {
    // SAFETY: the map's key type, alive; the result is checked; what two threads write at once is a statistic or the
    // same value.
    unsafe { bpf_map_lookup_elem(CALLERS.as_ptr(), (&raw const tgid).cast()).cast::<Caller>().as_mut() }
}

#[inline(always)]
fn add(pending: &mut i64, n: i64) {
    // SAFETY: a field of a live map value, 8-byte aligned.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            core::ptr::from_mut(pending).cast(),
            n.cast_unsigned(),
        );
    }
}

/// Nobody owes an answer to the connection's last request any more.
#[inline(always)]
pub(crate) fn ends(conn: &mut Conn) {
    if conn.role != Role::SERVER.0 || conn.reader == 0 {
        return;
    }
    if let Some(walk) = walk(conn.reader) {
        add(&mut walk.pending, -1);
        if walk.at == conn.errand {
            walk.at = 0;
            if walk.state != states::LOOP {
                walk.state = states::ONE;
            }
        }
    }
    conn.reader = 0;
    conn.errand = 0;
}

/// The first bytes of a message are sent; gives what is known of its sender's errand.
#[inline(always)]
pub(crate) fn sends(conn: &mut Conn, by: Thread, seq: u32, at: u64) -> u64 {
    if conn.role == Role::SERVER.0 {
        return if conn.reader == 0 { 0 } else { answers(conn, by).0 };
    }
    if conn.role != Role::CLIENT.0 {
        return 0;
    }
    conn.errand = 0;
    match asks(conn, by, seq, at) {
        Ok(id) => id,
        Err(doubt) => Errand::of(0, doubt).0,
    }
}

#[inline(always)]
fn answers(conn: &mut Conn, by: Thread) -> Errand {
    let id = conn.errand;
    let doubt = match walk(conn.reader) {
        _ if id == 0 => Doubt::LOOP,
        None => Doubt::UNKNOWN,
        _ if by.tid == 0 => Doubt::UNKNOWN,
        _ if by.tid != conn.reader => Doubt::OTHER,
        Some(walk) if walk.at != id || walk.state != states::ONE => Doubt::MIXED,
        Some(walk) if walk.sent != walk.got => Doubt::UNREAD,
        Some(_) => Doubt::NONE,
    };
    ends(conn);
    Errand::of(id, doubt)
}

#[inline(always)]
fn asks(conn: &mut Conn, by: Thread, seq: u32, at: u64) -> Result<u64, Doubt> {
    if by.tgid == 0 {
        return Err(Doubt::UNKNOWN);
    }
    let Some(caller) = caller(by.tgid) else { return Err(Doubt::NONE) };
    if caller.calls == 0 {
        if caller.reads > PURE {
            caller.blind = at + BLIND;
        }
        caller.calls = 1;
    }
    if at < caller.blind {
        return Err(Doubt::NEW);
    }
    let Some(walk) = walk(by.tid) else { return Err(Doubt::IDLE) };
    match walk.state {
        states::ONE => {}
        states::SHARED => return Err(Doubt::SHARED),
        states::FREE => return Err(Doubt::FREE),
        _ => return Err(Doubt::LOOP),
    }
    if walk.at == 0 || walk.tgid != by.tgid {
        return Err(Doubt::IDLE);
    }
    if !emit::asked(conn, by.tgid, by.tid, walk.at, seq, at) {
        return Err(Doubt::UNKNOWN);
    }
    walk.sent += 1;
    conn.errand = walk.at;
    conn.reader = by.tid;
    Ok(walk.at)
}

/// The current thread has copied bytes out of a socket.
#[inline(always)]
pub(crate) fn reads(sk: *mut c_void) {
    let conn = track::storage(sk, 0);
    if conn.is_null() {
        return;
    }
    // SAFETY: checked for null above.
    let conn = unsafe { &mut *conn };
    if conn.framing != Framing::HEADS.0 {
        return;
    }
    if conn.role == Role::SERVER.0 && conn.fresh != 0 {
        takes(conn, sk as u64);
    } else if conn.role == Role::CLIENT.0 && conn.errand != 0 {
        receives(conn, sk as u64);
    }
}

/// A request is read, for the first time.
#[inline(always)]
fn takes(conn: &mut Conn, sk: u64) {
    conn.fresh = 0;
    // SAFETY: no arguments.
    let both = unsafe { bpf_get_current_pid_tgid() };
    let (tgid, tid) = ((both >> 32) as u32, both as u32);
    let Some(caller) = caller_of(tgid) else { return };
    if caller.calls == 0 {
        caller.reads += 1;
        if caller.reads > PURE {
            return;
        }
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if conn.told != tgid && emit::read(conn, tgid, tid, now) {
        conn.told = tgid;
    }
    if conn.holds() {
        // What was held is told now, for its trace headers; see `hooks::cgroup_skb` for what its answer needs.
        if !conn.is_single() {
            conn.widen();
        }
        emit::flush(conn);
    }
    if conn.lost != 0 {
        // The agent may not know of this request.
        caller.blind = now + BLIND;
    }
    // A request before this one that is not answered yet.
    let piped = conn.reader != 0;
    ends(conn);
    let Some(walk) = walk_of(tgid, tid) else { return };
    walk.at = 0;
    walk.sent = 0;
    walk.got = 0;
    if walk.state == states::LOOP {
        return;
    }
    let (watched, free) = (watched(sk), nonblocking(sk));
    if walk.pending != 0 || rings() || (watched && free) {
        walk.state = states::LOOP;
        return;
    }
    add(&mut walk.pending, 1);
    conn.reader = tid;
    if free {
        walk.state = states::FREE;
    } else if watched || piped || now < caller.blind {
        walk.state = states::SHARED;
    } else {
        walk.state = states::ONE;
        walk.at = now;
        conn.errand = now;
    }
}

/// A response to what was sent on an errand is read, for the first time.
#[inline(always)]
fn receives(conn: &mut Conn, sk: u64) {
    let id = conn.errand;
    conn.errand = 0;
    // SAFETY: no arguments.
    let tid = unsafe { bpf_get_current_pid_tgid() } as u32;
    if tid != conn.reader {
        return;
    }
    let Some(walk) = walk(tid) else { return };
    if walk.at != id {
        return;
    }
    walk.got += 1;
    if watched(sk) && nonblocking(sk) {
        walk.state = states::LOOP;
    }
}

#[inline(always)]
fn caller_of<'a>(tgid: u32) -> Option<&'a mut Caller> {
    if let Some(caller) = caller(tgid) {
        return Some(caller);
    }
    let new = Caller { reads: 0, calls: 0, blind: 0 };
    // SAFETY: the map's key and value types, alive.
    unsafe {
        bpf_map_update_elem(CALLERS.as_ptr(), (&raw const tgid).cast(), (&raw const new).cast(), NOEXIST);
    }
    caller(tgid)
}

#[inline(always)]
fn walk_of<'a>(tgid: u32, tid: u32) -> Option<&'a mut Walk> {
    if let Some(walk) = walk(tid)
        && walk.tgid == tgid
    {
        return Some(walk);
    }
    // None, or one of a thread whose end was not seen.
    let new = Walk { tgid, state: states::ONE, at: 0, pending: 0, sent: 0, got: 0 };
    // SAFETY: the map's key and value types, alive.
    unsafe {
        bpf_map_update_elem(WALKS.as_ptr(), (&raw const tid).cast(), (&raw const new).cast(), 0);
    }
    walk(tid)
}

/// A thread is gone.
#[inline(always)]
pub(crate) fn thread_ends(tid: u32) {
    // SAFETY: the map's key type, alive.
    unsafe { bpf_map_delete_elem(WALKS.as_ptr(), (&raw const tid).cast()) };
}

/// A process is gone.
#[inline(always)]
pub(crate) fn process_ends(tgid: u32) {
    // SAFETY: the map's key type, alive.
    unsafe { bpf_map_delete_elem(CALLERS.as_ptr(), (&raw const tgid).cast()) };
}

/// Something waits for this socket while a thread reads it: an epoll instance, or another thread in poll. A thread's own
/// wait has ended when it reads.
#[inline(always)]
fn watched(sk: u64) -> bool {
    let offsets = knobs::offsets();
    let wq = who::read::<u64>(sk + u64::from(offsets.sock_wq));
    if wq == 0 {
        return true;
    }
    let head = wq + u64::from(offsets.wq_head);
    who::read::<u64>(head) != head
}

/// Reads return when there is nothing.
#[inline(always)]
fn nonblocking(sk: u64) -> bool {
    let offsets = knobs::offsets();
    let socket = who::read::<u64>(sk + u64::from(offsets.sock_socket));
    let file = who::read::<u64>(socket + u64::from(offsets.socket_file));
    who::read::<u32>(file + u64::from(offsets.file_flags)) & NONBLOCK != 0
}

/// The current thread has used `io_uring`, which waits for many sockets without any of them showing it.
#[inline(always)]
fn rings() -> bool {
    let offsets = knobs::offsets();
    if !knobs::known(offsets.task_io_uring) {
        return false;
    }
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    who::read::<u64>(task + u64::from(offsets.task_io_uring)) != 0
}
