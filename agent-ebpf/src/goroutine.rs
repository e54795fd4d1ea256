//! Goroutines: which one a thread runs, and for which one another sends. What is known of a process's memory comes from
//! its executable (`agent/src/golang`).

use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_map_delete_elem, bpf_map_lookup_elem, bpf_probe_read_user,
};
use weir_common::goroutine::GoProcess;

use crate::maps::GO_PROCESSES;
use crate::{errand, knobs, who};

/// Offsets in `net.netFD` that have not changed since Go 1.9: descriptor, address family, type of the socket.
const FD: u64 = 16;
const FAMILY: u64 = 56;
const TYPE: u64 = 64;
/// `AF_INET`, `AF_INET6`, `SOCK_STREAM`.
const INET: u64 = 2;
const INET6: u64 = 10;
const STREAM: u64 = 1;
/// More descriptors than any process has (`fs.nr_open`).
const DESCRIPTORS: u64 = 1 << 30;

/// Reads a number of the current process's memory; 0 where it can't be read.
#[inline(always)]
fn user(at: u64) -> u64 {
    let mut value = 0u64;
    // SAFETY: the helper checks the address; `value` has room for 8 bytes.
    unsafe {
        bpf_probe_read_user((&raw mut value).cast(), 8, at as *const _);
    }
    value
}

/// What is known of a Go process; `None`: it is none, or it is not known.
#[inline(always)]
pub(crate) fn process<'a>(tgid: u32) -> Option<&'a GoProcess> {
    if !knobs::goroutines() {
        return None;
    }
    // SAFETY: the map's key type, alive; the result is checked; only the agent writes to it.
    unsafe { bpf_map_lookup_elem(GO_PROCESSES.as_ptr(), (&raw const tgid).cast()).cast::<GoProcess>().as_ref() }
}

/// The process is gone, or has a new image.
#[inline(always)]
pub(crate) fn ends(tgid: u32) {
    // SAFETY: the map's key type, alive.
    unsafe { bpf_map_delete_elem(GO_PROCESSES.as_ptr(), (&raw const tgid).cast()) };
}

/// Address of the goroutine that the current thread runs: in a system call its thread-local variable is up to date.
#[inline(always)]
pub(crate) fn running(go: &GoProcess) -> u64 {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let base = who::read::<u64>(task + u64::from(knobs::go_offsets().task_base));
    user(base.wrapping_add(i64::from(go.running).cast_unsigned()))
}

/// Its number, which no other goroutine of the process has ever had; 0: unknown.
#[inline(always)]
pub(crate) fn id(go: &GoProcess, g: u64) -> u64 {
    user(g.wrapping_add(u64::from(go.id)))
}

/// It was started to serve one connection.
#[inline(always)]
pub(crate) fn serves(go: &GoProcess, g: u64) -> bool {
    let start = user(g.wrapping_add(u64::from(go.start)));
    let [one, two, three, four] = go.serves;
    start != 0 && (start == one || start == two || start == three || start == four)
}

/// Bytes of the socket's stream that were read: the sequence number of the next one.
#[inline(always)]
pub(crate) fn copied(sk: u64) -> u32 {
    who::read::<u32>(sk + u64::from(knobs::go_offsets().sock_copied))
}

/// A goroutine waits from here on for the answer to a request that is sent on this `net/http.persistConn`.
#[inline(always)]
pub(crate) fn calls(connection: u64, g: u64) {
    // SAFETY: no arguments.
    let tgid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let Some(go) = process(tgid) else { return };
    // A `net.Conn` is a type and an address. What is no `*net.TCPConn` has no such numbers at these places.
    let tcp = user(connection.wrapping_add(u64::from(go.conn)).wrapping_add(8));
    let fd = user(tcp);
    let (number, family) = (user(fd.wrapping_add(FD)), user(fd.wrapping_add(FAMILY)));
    if (family != INET && family != INET6) || user(fd.wrapping_add(TYPE)) != STREAM || number >= DESCRIPTORS {
        return;
    }
    let cookie = cookie(number);
    if cookie != 0 {
        errand::pledges(cookie, tgid, id(go, g));
    }
}

/// Cookie of the socket that a descriptor of the current process stands for; 0: of none.
#[inline(always)]
fn cookie(number: u64) -> u64 {
    let (offsets, files) = (knobs::go_offsets(), knobs::offsets());
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let open = who::read::<u64>(task + u64::from(offsets.task_files));
    let table = who::read::<u64>(open + u64::from(offsets.files_table));
    let array = who::read::<u64>(table + u64::from(offsets.table_files));
    let file = who::read::<u64>(array.wrapping_add(number * 8));
    let socket = who::read::<u64>(file + u64::from(offsets.file_private));
    if file == 0 || who::read::<u64>(socket + u64::from(files.socket_file)) != file {
        return 0;
    }
    let sk = who::read::<u64>(socket + u64::from(offsets.socket_sock));
    who::read::<u64>(sk + u64::from(offsets.sock_cookie))
}
