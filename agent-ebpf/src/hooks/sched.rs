//! Processes: a new image, and the end.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_get_current_uid_gid, bpf_ktime_get_ns, bpf_probe_read_user,
};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use weir_common::conn::{Known, Owner};
use weir_common::knob::Slot;
use weir_common::record::{ARGS, Exec, Exit, Head, Kind};

use crate::stats::count;
use crate::{emit, errand, goroutine, knobs, who};

/// `sched:sched_process_exec`: the new image is in place, nothing of it has run.
#[tracepoint]
pub(crate) fn weir_sched_exec(ctx: TracePointContext) -> u32 {
    let _ = ctx.as_ptr();
    exec();
    0
}

/// `sched:sched_process_exit`: a thread ends.
#[tracepoint]
pub(crate) fn weir_sched_exit(ctx: TracePointContext) -> u32 {
    let _ = ctx.as_ptr();
    exit();
    0
}

#[inline(always)]
fn owner() -> Owner {
    let mut comm = [0u8; 16];
    // SAFETY: no arguments, or a buffer of the size that is told.
    unsafe {
        let both = bpf_get_current_pid_tgid();
        bpf_get_current_comm(comm.as_mut_ptr().cast(), 16);
        Owner {
            tgid: (both >> 32) as u32,
            tid: both as u32,
            uid: bpf_get_current_uid_gid() as u32,
            known: Known::CREATOR.0,
            reserved: [0; 3],
            cgroup: bpf_get_current_cgroup_id(),
            comm,
        }
    }
}

#[inline(always)]
fn exec() {
    let owner = owner();
    goroutine::ends(owner.tgid);
    let record = emit::reserve::<Exec>();
    if record.is_null() {
        count(Slot::LOST_EVENT, 1);
        return;
    }
    let offsets = knobs::offsets();
    let (mut ppid, mut len) = (0u32, 0u32);
    // SAFETY: `record` is not null; each write stays inside it; the helpers check the addresses that they read.
    unsafe {
        let task = bpf_get_current_task();
        if knobs::known(offsets.task_parent) && knobs::known(offsets.task_tgid) {
            let parent = who::read::<u64>(task + u64::from(offsets.task_parent));
            ppid = who::read::<u32>(parent + u64::from(offsets.task_tgid));
        }
        if knobs::known(offsets.task_mm) && knobs::known(offsets.mm_arg_start) && knobs::known(offsets.mm_arg_end) {
            let mm = who::read::<u64>(task + u64::from(offsets.task_mm));
            let start = who::read::<u64>(mm + u64::from(offsets.mm_arg_start));
            let end = who::read::<u64>(mm + u64::from(offsets.mm_arg_end));
            let want = end.wrapping_sub(start);
            let want = if want > ARGS as u64 { ARGS as u64 } else { want };
            if want != 0 {
                let n = ((want as u32).wrapping_sub(1) & (ARGS as u32 - 1)) + 1;
                let to = (&raw mut (*record).args).cast();
                if bpf_probe_read_user(to, n, start as *const _) == 0 {
                    len = n;
                }
            }
        }
        let head = Head { kind: Kind::EXEC.0, flags: 0, lost: 0, conn: 0, at: bpf_ktime_get_ns() };
        (&raw mut (*record).head).write(head);
        (&raw mut (*record).owner).write(owner);
        (&raw mut (*record).ppid).write(ppid);
        (&raw mut (*record).len).write(len);
    }
    emit::submit(record);
}

#[inline(always)]
fn exit() {
    // SAFETY: no arguments.
    let both = unsafe { bpf_get_current_pid_tgid() };
    let (tgid, tid) = ((both >> 32) as u32, both as u32);
    errand::thread_ends(tid);
    if tgid != tid {
        return;
    }
    errand::process_ends(tgid);
    goroutine::ends(tgid);
    let record = emit::reserve::<Exit>();
    if record.is_null() {
        count(Slot::LOST_EVENT, 1);
        return;
    }
    // SAFETY: no arguments; `record` is not null and has room for an `Exit`.
    unsafe {
        let head = Head { kind: Kind::EXIT.0, flags: 0, lost: 0, conn: 0, at: bpf_ktime_get_ns() };
        record.write(Exit { head, tgid, reserved: 0 });
    }
    emit::submit(record);
}
