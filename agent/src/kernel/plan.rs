//! Facts + settings → which programs to attach. Pure: no system call is made here.

use serde::Serialize;

use super::facts::{Fact, Facts};

/// A program of the kernel half. Its name is that of its function, its hook and its row in `weir doctor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Bytes received.
    Ingress,
    /// Bytes sent.
    Egress,
    /// Connections established and closed.
    SockOps,
    /// Birth of sockets.
    SockCreate,
    /// New process images.
    SchedExec,
    /// Ended processes.
    SchedExit,
    /// Who reads which request.
    RcvSpace,
    /// Which goroutine calls; attached to each Go program that calls.
    GoCall,
}

impl Program {
    /// Every program, in the order in which they are attached: owners before bytes.
    pub const ALL: [Self; 8] = [
        Self::SchedExec,
        Self::SchedExit,
        Self::SockCreate,
        Self::SockOps,
        Self::Ingress,
        Self::Egress,
        Self::RcvSpace,
        Self::GoCall,
    ];

    /// Its function in the kernel half.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "weir_ingress",
            Self::Egress => "weir_egress",
            Self::SockOps => "weir_sock_ops",
            Self::SockCreate => "weir_sock_create",
            Self::SchedExec => "weir_sched_exec",
            Self::SchedExit => "weir_sched_exit",
            Self::RcvSpace => "weir_rcv_space",
            Self::GoCall => "weir_go_call",
        }
    }

    /// What is not seen without it.
    #[must_use]
    pub fn without(self) -> &'static str {
        match self {
            Self::Ingress | Self::Egress => "no call is seen",
            Self::SockOps => "connections are seen with their first bytes, and their end by a time limit",
            Self::SockCreate => "owners of client sockets come from /proc, too late for short-lived processes",
            Self::SchedExec => "a process that ends before its record is read is known by its task name only",
            Self::SchedExit => "ended processes are forgotten by a time limit",
            Self::RcvSpace => "no outgoing call is joined to the incoming one that caused it",
            Self::GoCall => "calls of Go programs are joined by the headers that they pass on, not by goroutine",
        }
    }

    fn needs(self, facts: &Facts) -> [&Fact; 2] {
        match self {
            Self::Ingress | Self::Egress => [&facts.cgroup_skb, &facts.cgroup2],
            Self::SockOps => [&facts.sock_ops, &facts.cgroup2],
            Self::SockCreate => [&facts.cgroup_sock, &facts.cgroup2],
            Self::SchedExec | Self::SchedExit => [&facts.tracepoint, &facts.tracefs],
            Self::RcvSpace => [&facts.reads, &facts.read_kernel],
            Self::GoCall => [&facts.goroutines, &facts.uprobe],
        }
    }
}

/// Why Weir can't run here at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// `bpf(2)` is refused.
    #[error("programs can't be loaded: {0}")]
    NoBpf(String),
    /// No ring buffer.
    #[error("no ring buffer: {0}; Weir needs kernel 5.10 or newer")]
    NoRing(String),
    /// No socket storage.
    #[error("no socket storage: {0}; Weir needs kernel 5.10 or newer")]
    NoStorage(String),
    /// No cgroup v2.
    #[error("{0}; mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")]
    NoCgroup(String),
    /// No `cgroup_skb`.
    #[error("no cgroup_skb programs: {0}")]
    NoCgroupSkb(String),
}

/// What to do with a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "intent", content = "why", rename_all = "snake_case")]
pub enum Intent {
    /// Load and attach it.
    Attach,
    /// Leave it out, and why.
    LeaveOut(String),
}

/// The plan: a row for every program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Programs in the order in which they are attached.
    pub rows: Vec<(Program, Intent)>,
    /// Where the sender of a segment is read; the kernel half's `CURRENT_*`.
    pub current: u32,
    /// Goroutines can be told apart.
    pub goroutines: bool,
}

/// Makes the plan.
pub fn plan(facts: &Facts) -> Result<Plan, Unfit> {
    let need = |fact: &Fact, unfit: fn(String) -> Unfit| match fact {
        Fact::No(why) => Err(unfit(why.clone())),
        // What could not be found out is tried: loading tells.
        Fact::Yes | Fact::Unknown(_) => Ok(()),
    };
    need(&facts.bpf, Unfit::NoBpf)?;
    need(&facts.ring, Unfit::NoRing)?;
    need(&facts.storage, Unfit::NoStorage)?;
    need(&facts.cgroup2, Unfit::NoCgroup)?;
    need(&facts.cgroup_skb, Unfit::NoCgroupSkb)?;
    let rows = Program::ALL
        .into_iter()
        .map(|program| {
            let missing = program.needs(facts).into_iter().find_map(|fact| match fact {
                Fact::No(why) => Some(why.clone()),
                Fact::Yes | Fact::Unknown(_) => None,
            });
            (program, missing.map_or(Intent::Attach, Intent::LeaveOut))
        })
        .collect();
    let current = match (facts.sender(), &facts.current_pid) {
        (Fact::Yes, Fact::Yes) => 1,
        (Fact::Yes, _) => 2,
        _ => 0,
    };
    let sender = current != 0 && facts.read_kernel.is_yes();
    Ok(Plan { rows, current, goroutines: sender && facts.goroutines.is_yes() && facts.uprobe.is_yes() })
}

#[cfg(test)]
mod tests {
    use weir_common::knob::{GoOffsets, Offsets};

    use super::*;

    fn able() -> Facts {
        Facts {
            release: "6.1.0".to_owned(),
            bpf: Fact::Yes,
            ring: Fact::Yes,
            storage: Fact::Yes,
            cgroup_skb: Fact::Yes,
            cgroup_sock: Fact::Yes,
            sock_ops: Fact::Yes,
            tracepoint: Fact::Yes,
            btf: Fact::Yes,
            read_kernel: Fact::Yes,
            current_pid: Fact::No("not before 6.12".to_owned()),
            current_task: Fact::Yes,
            reads: Fact::Yes,
            goroutines: Fact::Yes,
            uprobe: Fact::Yes,
            tracefs: Fact::Yes,
            cgroup2: Fact::Yes,
            cgroup2_path: None,
            lockdown: None,
            offsets: Offsets { sock_owned: 200, task_tgid: 1000, ..Offsets::NONE },
            go_offsets: GoOffsets::NONE,
        }
    }

    #[test]
    fn an_able_kernel_gets_every_program() {
        let plan = plan(&able()).unwrap();
        assert!(plan.rows.iter().all(|(_, intent)| *intent == Intent::Attach));
        assert_eq!((plan.current, plan.goroutines), (2, true));
        assert!(!super::plan(&Facts { uprobe: Fact::No("why".to_owned()), ..able() }).unwrap().goroutines);
        assert_eq!(super::plan(&Facts { current_pid: Fact::Yes, ..able() }).unwrap().current, 1);
    }

    #[test]
    fn no_tracefs_leaves_two_programs_out() {
        let plan = plan(&Facts { tracefs: Fact::No("not mounted".to_owned()), ..able() }).unwrap();
        let out: Vec<_> = plan.rows.iter().filter(|(_, intent)| *intent != Intent::Attach).map(|(p, _)| *p).collect();
        assert_eq!(out, [Program::SchedExec, Program::SchedExit]);
    }

    #[test]
    fn without_offsets_nobody_is_guessed() {
        assert_eq!(plan(&Facts { offsets: Offsets::NONE, ..able() }).unwrap().current, 0);
        assert_eq!(plan(&Facts { read_kernel: Fact::No("lockdown".to_owned()), ..able() }).unwrap().current, 0);
    }

    #[test]
    fn what_nothing_works_without() {
        let no = || Fact::No("why".to_owned());
        let why = "why".to_owned();
        assert_eq!(plan(&Facts { ring: no(), ..able() }), Err(Unfit::NoRing(why.clone())));
        assert_eq!(plan(&Facts { bpf: no(), ring: no(), ..able() }), Err(Unfit::NoBpf(why.clone())));
        assert_eq!(plan(&Facts { cgroup2: no(), ..able() }), Err(Unfit::NoCgroup(why)));
    }
}
