//! Birth of sockets: who created them.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
};
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use weir_common::conn::{Framing, Known};
use weir_common::knob::Slot;

use crate::knobs;
use crate::stats::count;
use crate::track::{self, CREATE, STREAM};

/// `IPPROTO_TCP`.
const TCP: u32 = 6;

/// A socket is created (`inet_create`, before the application has it).
#[cgroup_sock(sock_create)]
pub(crate) fn weir_sock_create(ctx: SockContext) -> i32 {
    create(ctx.as_ptr().cast());
    1
}

#[inline(always)]
fn create(sk: *mut bpf_sock) {
    // SAFETY: the context of a cgroup_sock program.
    let tcp = unsafe { (*sk).type_ == STREAM && (*sk).protocol == TCP };
    if !tcp {
        return;
    }
    let conn = track::storage(sk.cast(), CREATE);
    if conn.is_null() {
        count(Slot::NO_STORAGE, 1);
        return;
    }
    // SAFETY: checked for null above.
    let conn = unsafe { &mut *conn };
    // SAFETY: no arguments; allowed in this hook since 5.7.
    let (both, ids) = unsafe { (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid()) };
    conn.owner.tgid = (both >> 32) as u32;
    conn.owner.tid = both as u32;
    conn.owner.uid = ids as u32;
    conn.owner.known = Known::CREATOR.0;
    // SAFETY: `comm` is 16 bytes long; no arguments for the other.
    unsafe {
        bpf_get_current_comm(conn.owner.comm.as_mut_ptr().cast(), 16);
        conn.owner.cgroup = bpf_get_current_cgroup_id();
    }
    conn.cgroup = conn.owner.cgroup;
    if conn.owner.tgid == knobs::self_tgid() {
        conn.framing = Framing::IGNORE.0;
    }
}
