//! What this kernel and node can do, found by trying, never by version.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use serde::Serialize;
use weir_common::knob::{GoOffsets, NO_OFFSET, Offsets};

use super::{cgroup, layout};

/// An answer about the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", content = "why", rename_all = "lowercase")]
pub enum Fact {
    /// It can.
    Yes,
    /// It can't, and why.
    No(String),
    /// It could not be found out.
    Unknown(String),
}

impl Fact {
    /// Whether it is known to be so.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }

    fn from<E: std::error::Error>(probe: Result<bool, E>, no: &str) -> Self {
        match probe {
            Ok(true) => Self::Yes,
            Ok(false) => Self::No(no.to_owned()),
            Err(error) => Self::Unknown(chain(&error)),
        }
    }
}

/// An error with its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Everything that the plan is made from.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// The `bpf` system call may be used.
    pub bpf: Fact,
    /// The ring buffer map (5.8).
    pub ring: Fact,
    /// Socket storage (5.2; clones 5.4).
    pub storage: Fact,
    /// `cgroup_skb` programs.
    pub cgroup_skb: Fact,
    /// `cgroup_sock` programs.
    pub cgroup_sock: Fact,
    /// `sock_ops` programs.
    pub sock_ops: Fact,
    /// Tracepoint programs.
    pub tracepoint: Fact,
    /// The kernel tells its structures (`CONFIG_DEBUG_INFO_BTF`).
    pub btf: Fact,
    /// Kernel memory may be read by programs (not under lockdown=confidentiality).
    pub read_kernel: Fact,
    /// The sender can be asked for in `cgroup_skb` (6.12).
    pub current_pid: Fact,
    /// The current task can be asked for in `cgroup_skb`.
    pub current_task: Fact,
    /// It can be told which thread reads which request, and what else waits for the socket.
    pub reads: Fact,
    /// Goroutines can be told apart: the memory of processes may be read, and the kernel tells where.
    pub goroutines: Fact,
    /// Probes may be put on programs.
    pub uprobe: Fact,
    /// tracefs is mounted and readable.
    pub tracefs: Fact,
    /// A cgroup v2 hierarchy is mounted.
    pub cgroup2: Fact,
    /// Where.
    pub cgroup2_path: Option<PathBuf>,
    /// `none`, `integrity` or `confidentiality`; absent where securityfs is not readable.
    pub lockdown: Option<String>,
    /// Offsets from BTF.
    #[serde(skip)]
    pub offsets: Offsets,
    /// The same for goroutines.
    #[serde(skip)]
    pub go_offsets: GoOffsets,
}

impl Facts {
    /// Asks the kernel. `cgroup`: where to attach; `None`: the root of the cgroup v2 hierarchy, found in mountinfo or
    /// mounted for this process alone.
    #[must_use]
    pub fn gather(cgroup: Option<&Path>) -> Self {
        let program = |kind| Fact::from(is_program_supported(kind), "this kernel has no such programs");
        let helper = |kind, helper| Fact::from(is_helper_supported(kind, helper), "not allowed in this hook");
        let skb = ProgramType::CgroupSkb;
        let offsets = layout::read(Path::new(layout::VMLINUX));
        let btf = match &offsets {
            Ok(_) => Fact::Yes,
            Err(error) => Fact::No(chain(error)),
        };
        let (offsets, go_offsets) = offsets.unwrap_or((Offsets::NONE, GoOffsets::NONE));
        let mount = cgroup.map(Path::to_owned).or_else(|| cgroup::mounted("/proc/self/mountinfo"));
        let mount = mount.map_or_else(cgroup::mount_privately, Ok);
        Self {
            release: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            bpf: bpf(),
            ring: Fact::from(is_map_supported(aya::maps::MapType::RingBuf), "ring buffers came with 5.8"),
            storage: Fact::from(is_map_supported(aya::maps::MapType::SkStorage), "socket storage came with 5.2"),
            cgroup_skb: program(skb),
            cgroup_sock: program(ProgramType::CgroupSock),
            sock_ops: program(ProgramType::SockOps),
            tracepoint: program(ProgramType::TracePoint),
            btf,
            read_kernel: helper(skb, BpfHelper::BPF_FUNC_probe_read_kernel),
            current_pid: helper(skb, BpfHelper::BPF_FUNC_get_current_pid_tgid),
            current_task: helper(skb, BpfHelper::BPF_FUNC_get_current_task),
            reads: reads(&offsets),
            goroutines: goroutines(&go_offsets, helper(skb, BpfHelper::BPF_FUNC_probe_read_user)),
            uprobe: uprobe(program(ProgramType::KProbe)),
            tracefs: tracefs(),
            cgroup2: match &mount {
                Ok(path) if path.join("cgroup.procs").exists() => Fact::Yes,
                Ok(path) => Fact::No(format!("{} is not a cgroup v2 folder", path.display())),
                Err(error) => Fact::No(format!("no cgroup v2 hierarchy is mounted, nor can one be: {error}")),
            },
            cgroup2_path: mount.ok(),
            lockdown: lockdown(),
            offsets,
            go_offsets,
        }
    }

    /// The sender of a segment can be told exactly: see `agent-ebpf/src/who.rs`.
    #[must_use]
    pub fn sender(&self) -> Fact {
        if !self.read_kernel.is_yes() {
            return Fact::No("programs may not read kernel memory here (lockdown=confidentiality?)".to_owned());
        }
        if self.offsets.sock_owned == NO_OFFSET {
            return Fact::No("the kernel does not tell its structures (no BTF)".to_owned());
        }
        let by_task = self.current_task.is_yes() && self.offsets.task_tgid != NO_OFFSET;
        if self.current_pid.is_yes() || by_task {
            Fact::Yes
        } else {
            Fact::No("neither bpf_get_current_pid_tgid nor bpf_get_current_task is allowed in cgroup_skb".to_owned())
        }
    }
}

/// What `agent-ebpf/src/errand.rs` asks of the kernel's structures.
fn reads(offsets: &Offsets) -> Fact {
    let needed = [offsets.sock_wq, offsets.wq_head, offsets.sock_socket, offsets.socket_file, offsets.file_flags];
    if needed.contains(&NO_OFFSET) {
        return Fact::No("the kernel does not tell its structures (no BTF)".to_owned());
    }
    // Whether socket storage may be had at a typed tracepoint (5.11) is told by loading.
    Fact::Yes
}

/// What `agent-ebpf/src/goroutine.rs` asks for.
fn goroutines(offsets: &GoOffsets, user: Fact) -> Fact {
    if !cfg!(target_arch = "x86_64") {
        return Fact::No("where a thread keeps its goroutine is known for x86-64 only".to_owned());
    }
    if !offsets.are_known() {
        return Fact::No("the kernel does not tell its structures (no BTF)".to_owned());
    }
    user
}

fn uprobe(programs: Fact) -> Fact {
    let source = "/sys/bus/event_source/devices/uprobe/type";
    match programs {
        Fact::Yes if fs::read(source).is_err() => Fact::No(format!("{source} is not there: CONFIG_UPROBE_EVENTS")),
        programs => programs,
    }
}

/// Whether this process may use `bpf(2)` at all.
fn bpf() -> Fact {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    match is_map_supported(aya::maps::MapType::Array) {
        Ok(true) => Fact::Yes,
        Ok(false) => Fact::No("the bpf system call is not there".to_owned()),
        Err(error) if root => Fact::No(format!(
            "{}; root without CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON can't load programs",
            chain(&error)
        )),
        Err(error) => {
            Fact::No(format!("{}; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", chain(&error)))
        }
    }
}

fn tracefs() -> Fact {
    let events = "events/sched/sched_process_exec/id";
    for root in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        if fs::read(Path::new(root).join(events)).is_ok() {
            return Fact::Yes;
        }
    }
    Fact::No("tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing".to_owned())
}

fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}
