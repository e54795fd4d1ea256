//! Which thread sends: exact, or nobody.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel};

use crate::conn::Conn;
use crate::knobs;

/// A process and its thread; zeros: unknown.
#[derive(Clone, Copy, Default)]
pub(crate) struct Thread {
    pub tgid: u32,
    pub tid: u32,
}

/// Reads a number at an address of the kernel; 0 where it can't be read.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(at: u64) -> T {
    let mut value = T::default();
    // SAFETY: the helper checks the address; `value` has room for `T`.
    unsafe {
        bpf_probe_read_kernel(core::ptr::from_mut(&mut value).cast(), size_of::<T>() as u32, at as *const _);
    }
    value
}

/// The thread that is sending on this socket right now.
///
/// An egress run may be in a soft interrupt (an acknowledgement opened the window, a timer fired) with any thread as
/// current. A thread inside a socket call holds the socket's lock (`sk_lock.owned`), a soft interrupt never does: so an
/// owned socket means that current is the sender. Checked by capture test `owners`.
#[inline(always)]
pub(crate) fn sender(conn: &mut Conn, sk: *mut bpf_sock) -> Thread {
    let offsets = knobs::offsets();
    if !knobs::known(offsets.sock_owned) {
        return Thread::default();
    }
    if read::<u32>(address(conn, sk) + u64::from(offsets.sock_owned)) == 0 {
        return Thread::default();
    }
    current()
}

/// A socket's address as a number. The verifier forbids arithmetic on its pointer; what is read back from a map is a
/// number.
#[inline(always)]
fn address(conn: &mut Conn, sk: *mut bpf_sock) -> u64 {
    number(core::ptr::addr_of_mut!(conn.sk), sk)
}

/// As [`address`], by way of a number in any map.
#[inline(always)]
fn number(slot: *mut u64, sk: *mut bpf_sock) -> u64 {
    // SAFETY: a field of a live map value.
    unsafe {
        slot.write_volatile(sk as u64);
        slot.read_volatile()
    }
}

/// The network namespace's cookie (`net.net_cookie`, as `bpf_get_netns_cookie` gives it in some hooks of some kernels);
/// 0 where it can't be read.
#[inline(always)]
pub(crate) fn netns(conn: &mut Conn, sk: *mut bpf_sock) -> u64 {
    netns_by(core::ptr::addr_of_mut!(conn.sk), sk)
}

/// As [`netns`], by way of a number in any map.
#[inline(always)]
pub(crate) fn netns_by(slot: *mut u64, sk: *mut bpf_sock) -> u64 {
    let offsets = knobs::offsets();
    if !knobs::known(offsets.sock_net) || !knobs::known(offsets.net_cookie) {
        return 0;
    }
    let net = read::<u64>(number(slot, sk) + u64::from(offsets.sock_net));
    read::<u64>(net + u64::from(offsets.net_cookie))
}

/// The current thread; meaningful only in a process's context.
#[inline(always)]
pub(crate) fn current() -> Thread {
    if knobs::current() == knobs::CURRENT_HELPER {
        // SAFETY: no arguments; the loader has found that the kernel allows it here.
        let both = unsafe { bpf_get_current_pid_tgid() };
        return Thread { tgid: (both >> 32) as u32, tid: both as u32 };
    }
    if knobs::current() != knobs::CURRENT_TASK {
        return Thread::default();
    }
    let offsets = knobs::offsets();
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    Thread {
        tgid: read::<u32>(task + u64::from(offsets.task_tgid)),
        tid: read::<u32>(task + u64::from(offsets.task_pid)),
    }
}
