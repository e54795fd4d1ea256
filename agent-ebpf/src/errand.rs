//! Errands: which request a thread has taken and not answered yet, so that what it sends in between can be told to
//! belong to it (`weir_common::errand`). What is proven by it, and what is assumed, is told where the agent joins calls:
//! `agent/src/flow/chains`.
//!
//! In a Go process goroutines take the place of threads: those that serve one connection each. They have non-blocking
//! sockets that the runtime waits on for them, so what is asked of a thread's socket is not asked of theirs.
//!
//! A read runs inside `recvmsg`, a sending inside `sendmsg` or in a soft interrupt: all of them under the socket's lock.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_map_delete_elem,
    bpf_map_lookup_elem, bpf_map_update_elem,
};
use weir_common::conn::{Framing, Role};
use weir_common::errand::{Doubt, Errand};

use crate::conn::Conn;
use crate::maps::{CALLERS, PLEDGES, WALKS};
use crate::who::{self, Thread};
use crate::{emit, goroutine, knobs, track};

/// A thread, or a goroutine.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walker {
    /// Process of the goroutine; 0 for a thread.
    tgid: u32,
    /// The thread; 0 for a goroutine.
    tid: u32,
    /// The goroutine; 0 for a thread.
    goroutine: u64,
}

impl Walker {
    #[inline(always)]
    const fn thread(tid: u32) -> Self {
        Self { tgid: 0, tid, goroutine: 0 }
    }

    #[inline(always)]
    const fn goroutine(tgid: u32, goroutine: u64) -> Self {
        Self { tgid, tid: 0, goroutine }
    }

    /// Who reads requests of a connection.
    #[inline(always)]
    fn of(conn: &Conn) -> Self {
        if conn.goroutine == 0 { Self::thread(conn.reader) } else { Self::goroutine(conn.reader, conn.goroutine) }
    }

    /// The one that runs, in the thread `by`.
    #[inline(always)]
    fn running(by: Thread) -> Self {
        match goroutine::process(by.tgid) {
            Some(go) => Self::goroutine(by.tgid, goroutine::id(go, goroutine::running(go))),
            None => Self::thread(by.tid),
        }
    }

    /// It is a connection's reader from now on.
    #[inline(always)]
    fn reads(&self, conn: &mut Conn) {
        conn.reader = self.tgid | self.tid;
        conn.goroutine = self.goroutine;
    }
}

/// A goroutine that waits for the answer to a request which another one sends.
#[repr(C)]
pub(crate) struct Pledge {
    /// The one that waits.
    by: Walker,
    /// Its errand.
    errand: u64,
}

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
fn walk<'a>(by: &Walker) -> Option<&'a mut Walk> {
    // SAFETY: the map's key type, alive; the result is checked; only the walker itself writes more than `pending`.
    unsafe { bpf_map_lookup_elem(WALKS.as_ptr(), core::ptr::from_ref(by).cast()).cast::<Walk>().as_mut() }
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
    let by = Walker::of(conn);
    if let Some(walk) = walk(&by) {
        add(&mut walk.pending, -1);
        if walk.at == conn.errand {
            walk.at = 0;
            if walk.state != states::LOOP {
                walk.state = states::ONE;
            }
        }
        if by.goroutine != 0 {
            // Nobody tells of its end, and there are many.
            forget(&by);
        }
    }
    conn.reader = 0;
    conn.goroutine = 0;
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
    let reader = Walker::of(conn);
    let doubt = match walk(&reader) {
        _ if id == 0 => Doubt::LOOP,
        None => Doubt::UNKNOWN,
        _ if by.tid == 0 => Doubt::UNKNOWN,
        _ if Walker::running(by) != reader => Doubt::OTHER,
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
        pledged(conn.cookie);
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
    let (walker, handed) = asker(conn.cookie, by);
    let Some(walk) = walk(&walker) else { return Err(Doubt::IDLE) };
    match walk.state {
        states::ONE => {}
        states::SHARED => return Err(Doubt::SHARED),
        states::FREE => return Err(Doubt::FREE),
        _ => return Err(Doubt::LOOP),
    }
    // SAFETY: a field of a live map value; read once, because another one's walk may take the place of a goroutine's.
    let id = unsafe { (&raw const walk.at).read_volatile() };
    if id == 0 || walk.tgid != by.tgid || (handed != 0 && handed != id) {
        return Err(Doubt::IDLE);
    }
    if !emit::asked(conn, by.tgid, by.tid, id, seq, at) {
        return Err(Doubt::UNKNOWN);
    }
    if handed == 0 {
        walk.sent += 1;
        conn.errand = id;
        walker.reads(conn);
    }
    Ok(id)
}

/// Who asks, where `by` sends; and the errand, where another one has handed its request over.
#[inline(always)]
fn asker(cookie: u64, by: Thread) -> (Walker, u64) {
    let Some(go) = goroutine::process(by.tgid) else { return (Walker::thread(by.tid), 0) };
    match pledged(cookie) {
        Some(pledge) => (pledge.by, pledge.errand),
        None => (Walker::goroutine(by.tgid, goroutine::id(go, goroutine::running(go))), 0),
    }
}

/// For whom a connection's next request is sent, once.
#[inline(always)]
fn pledged(cookie: u64) -> Option<Pledge> {
    if !knobs::goroutines() {
        return None;
    }
    let key = cookie;
    // SAFETY: the map's key and value types, alive; the result is checked.
    unsafe {
        let pledge = bpf_map_lookup_elem(PLEDGES.as_ptr(), (&raw const key).cast()).cast::<Pledge>();
        if pledge.is_null() {
            return None;
        }
        let pledge = pledge.read();
        bpf_map_delete_elem(PLEDGES.as_ptr(), (&raw const key).cast());
        Some(pledge)
    }
}

/// A goroutine waits for the answer to the next request of a connection.
#[inline(always)]
pub(crate) fn pledges(cookie: u64, tgid: u32, goroutine: u64) {
    let by = Walker::goroutine(tgid, goroutine);
    let errand = match walk(&by) {
        Some(walk) if goroutine != 0 => walk.at,
        _ => 0,
    };
    // SAFETY: the map's key and value types, alive.
    unsafe {
        if errand == 0 {
            // What the one before it left is nobody's now.
            bpf_map_delete_elem(PLEDGES.as_ptr(), (&raw const cookie).cast());
        } else {
            let new = Pledge { by, errand };
            bpf_map_update_elem(PLEDGES.as_ptr(), (&raw const cookie).cast(), (&raw const new).cast(), 0);
        }
    }
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
    // SAFETY: no arguments.
    let both = unsafe { bpf_get_current_pid_tgid() };
    let (tgid, tid) = ((both >> 32) as u32, both as u32);
    let go = goroutine::process(tgid);
    if go.is_some() && goroutine::copied(sk).wrapping_sub(conn.began) == 1 {
        // `net/http` looks for the end of the connection, by a byte, while a request is answered.
        return;
    }
    conn.fresh = 0;
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
    let (walker, id) = match go {
        None => (Walker::thread(tid), now),
        Some(go) => {
            let g = goroutine::running(go);
            let goroutine = goroutine::id(go, g);
            if goroutine == 0 || !goroutine::serves(go, g) {
                return;
            }
            // SAFETY: no arguments.
            let processor = unsafe { bpf_get_smp_processor_id() };
            (Walker::goroutine(tgid, goroutine), Errand::goroutine(now, processor))
        }
    };
    let Some(walk) = walk_of(tgid, &walker) else { return };
    walk.at = 0;
    walk.sent = 0;
    walk.got = 0;
    if walk.state == states::LOOP {
        return;
    }
    let (watched, free) = if go.is_some() { (false, false) } else { (watched(sk), nonblocking(sk)) };
    if walk.pending != 0 || rings() || (watched && free) {
        walk.state = states::LOOP;
        return;
    }
    add(&mut walk.pending, 1);
    walker.reads(conn);
    if free {
        walk.state = states::FREE;
    } else if watched || piped || now < caller.blind {
        walk.state = states::SHARED;
    } else {
        walk.state = states::ONE;
        walk.at = id;
        conn.errand = id;
    }
}

/// A response to what was sent on an errand is read, for the first time.
#[inline(always)]
fn receives(conn: &mut Conn, sk: u64) {
    let id = conn.errand;
    conn.errand = 0;
    // SAFETY: no arguments.
    let both = unsafe { bpf_get_current_pid_tgid() };
    let walker = Walker::running(Thread { tgid: (both >> 32) as u32, tid: both as u32 });
    if walker != Walker::of(conn) {
        return;
    }
    let Some(walk) = walk(&walker) else { return };
    if walk.at != id {
        return;
    }
    walk.got += 1;
    if walker.goroutine == 0 && watched(sk) && nonblocking(sk) {
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
fn walk_of<'a>(tgid: u32, by: &Walker) -> Option<&'a mut Walk> {
    if let Some(walk) = walk(by)
        && walk.tgid == tgid
    {
        return Some(walk);
    }
    // None, or one of a thread whose end was not seen.
    let new = Walk { tgid, state: states::ONE, at: 0, pending: 0, sent: 0, got: 0 };
    // SAFETY: the map's key and value types, alive.
    unsafe {
        bpf_map_update_elem(WALKS.as_ptr(), core::ptr::from_ref(by).cast(), (&raw const new).cast(), 0);
    }
    walk(by)
}

#[inline(always)]
fn forget(by: &Walker) {
    // SAFETY: the map's key type, alive.
    unsafe { bpf_map_delete_elem(WALKS.as_ptr(), core::ptr::from_ref(by).cast()) };
}

/// A thread is gone.
#[inline(always)]
pub(crate) fn thread_ends(tid: u32) {
    forget(&Walker::thread(tid));
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
