//! What this kernel and node can do, what runs, and what is not visible: `weir doctor`.

use serde::Serialize;

use crate::kernel::facts::{Fact, Facts};
use crate::kernel::load::Verdict;
use crate::kernel::plan::{self, Intent, Program};

/// How a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// As it should be.
    Ok,
    /// Less is seen than could be.
    Degraded,
    /// Weir can't run.
    Failed,
    /// Not found out.
    Unknown,
    /// By design: nothing to mend.
    Blind,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `fact`, `program` or `blind_spot`.
    pub section: &'static str,
    /// What it is about.
    pub subject: String,
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty where there is nothing.
    pub remedy: String,
}

/// `weir doctor --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// An agent runs and told its programs' verdicts.
    pub agent_running: bool,
    /// Weir can run here.
    pub fit: bool,
    /// Everything that was looked at.
    pub rows: Vec<Row>,
}

/// Gathers facts, makes a plan, and reports; `verdicts` of a running agent, where there is one.
#[must_use]
pub fn examine(facts: &Facts, verdicts: Option<&[(Program, Verdict)]>) -> Report {
    let mut rows = facts_rows(facts);
    let plan = plan::plan(facts);
    let fit = plan.is_ok();
    match (&plan, verdicts) {
        (_, Some(verdicts)) => rows.extend(verdicts.iter().map(|(program, verdict)| verdict_row(*program, verdict))),
        (Ok(plan), None) => {
            rows.extend(plan.rows.iter().map(|(program, intent)| intent_row(*program, intent)));
            rows.push(Row {
                section: "program",
                subject: "gate".to_owned(),
                standing: Standing::Ok,
                detail: "will be attached while the node enforces; an agent that runs says whether it was refused"
                    .to_owned(),
                remedy: String::new(),
            });
        }
        (Err(unfit), None) => rows.push(Row {
            section: "program",
            subject: "all programs".to_owned(),
            standing: Standing::Failed,
            detail: unfit.to_string(),
            remedy: "mend what is marked above; Weir does not start before".to_owned(),
        }),
    }
    rows.extend(blind_spots());
    Report { kernel: facts.release.clone(), agent_running: verdicts.is_some(), fit, rows }
}

fn facts_rows(facts: &Facts) -> Vec<Row> {
    use Standing::{Degraded, Failed};
    let owners =
        "the process that serves is told only where it created the socket itself; enable CONFIG_DEBUG_INFO_BTF";
    let mut rows = vec![
        fact("bpf system call", &facts.bpf, Failed, "run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        fact("ring buffer", &facts.ring, Failed, "needs kernel 5.8 or newer"),
        fact("socket storage", &facts.storage, Failed, "needs kernel 5.4 or newer"),
        fact("cgroup_skb programs", &facts.cgroup_skb, Failed, "needs CONFIG_CGROUP_BPF"),
        fact("cgroup_sock programs", &facts.cgroup_sock, Degraded, Program::SockCreate.without()),
        fact("sock_ops programs", &facts.sock_ops, Degraded, Program::SockOps.without()),
        fact("tracepoint programs", &facts.tracepoint, Degraded, Program::SchedExec.without()),
        fact("cgroup v2", &facts.cgroup2, Failed, "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"),
        fact("tracefs", &facts.tracefs, Degraded, "mount -t tracefs tracefs /sys/kernel/tracing"),
        fact("BTF", &facts.btf, Degraded, owners),
        fact(
            "reading kernel memory",
            &facts.read_kernel,
            Degraded,
            "lockdown=confidentiality forbids it; use integrity",
        ),
        fact("exact senders", &facts.sender(), Degraded, owners),
        fact("reads of requests", &facts.reads, Degraded, "enable CONFIG_DEBUG_INFO_BTF; needs kernel 5.11 or newer"),
        fact("goroutines", &facts.goroutines, Degraded, Program::GoCall.without()),
        fact("probes on programs", &facts.uprobe, Degraded, Program::GoCall.without()),
    ];
    if let (Some(path), Some(row)) =
        (&facts.cgroup2_path, rows.iter_mut().find(|row| row.subject == "cgroup v2" && row.standing == Standing::Ok))
    {
        row.detail = format!("at {}", path.display());
    }
    rows.push(Row {
        section: "fact",
        subject: "lockdown".to_owned(),
        standing: match facts.lockdown.as_deref() {
            Some("confidentiality") => Degraded,
            Some(_) => Standing::Ok,
            None => Standing::Unknown,
        },
        detail: facts.lockdown.clone().unwrap_or_else(|| "securityfs is not mounted".to_owned()),
        remedy: String::new(),
    });
    rows
}

fn fact(subject: &str, fact: &Fact, missing: Standing, remedy: &str) -> Row {
    let (standing, detail, remedy) = match fact {
        Fact::Yes => (Standing::Ok, "yes".to_owned(), ""),
        Fact::No(why) => (missing, why.clone(), remedy),
        Fact::Unknown(why) => (Standing::Unknown, why.clone(), remedy),
    };
    Row { section: "fact", subject: subject.to_owned(), standing, detail, remedy: remedy.to_owned() }
}

fn verdict_row(program: Program, verdict: &Verdict) -> Row {
    let (standing, detail) = match verdict {
        Verdict::Attached if program == Program::GoCall => (Standing::Ok, "attached to each Go program".to_owned()),
        Verdict::Attached => (Standing::Ok, "attached".to_owned()),
        Verdict::LeftOut(why) => (Standing::Degraded, format!("left out: {why}")),
        Verdict::Refused(why) => (Standing::Degraded, format!("refused: {why}")),
        Verdict::Off(key) => (Standing::Ok, format!("turned off: {key}")),
    };
    program_row(program, standing, detail)
}

fn intent_row(program: Program, intent: &Intent) -> Row {
    let (standing, detail) = match intent {
        Intent::Attach => (Standing::Ok, "will be attached".to_owned()),
        Intent::LeaveOut(why) => (Standing::Degraded, format!("will be left out: {why}")),
    };
    program_row(program, standing, detail)
}

fn program_row(program: Program, standing: Standing, detail: String) -> Row {
    let remedy = if standing == Standing::Ok { String::new() } else { format!("without it {}", program.without()) };
    Row { section: "program", subject: program.name().to_owned(), standing, detail, remedy }
}

fn blind_spots() -> impl Iterator<Item = Row> {
    let spots = [
        (
            "TLS content",
            "connections are listed as opaque, reason tls",
            "put Weir where TLS ends, or wait for TLS support",
        ),
        (
            "DNS over TCP, TLS and HTTPS",
            "their answers are not read: what is outside goes by the host that its client names, or by its address",
            "let the node's resolver answer by UDP",
        ),
        ("HTTP/2 and gRPC", "connections are listed as opaque, reason h2c", "none yet"),
        ("unix sockets", "they pass no cgroup_skb hook", "let the proxy talk TCP on loopback to have them seen"),
        (
            "sockets redirected by a sockmap",
            "sk_msg and sk_skb programs bypass the IP layer",
            "turn sockmap acceleration off for what is to be seen",
        ),
        ("QUIC and HTTP/3", "UDP payload is encrypted", "none"),
    ];
    spots.into_iter().map(|(subject, detail, remedy)| Row {
        section: "blind_spot",
        subject: subject.to_owned(),
        standing: Standing::Blind,
        detail: detail.to_owned(),
        remedy: remedy.to_owned(),
    })
}

/// Says in the log what is missing on this node, when the agent starts with less than all.
pub(super) fn warn(report: &Report) {
    for row in report.rows.iter().filter(|row| row.standing == Standing::Degraded) {
        tracing::warn!(what = row.subject, why = row.detail, follows = row.remedy, "less is seen than could be");
    }
}

/// What an agent would find on this node.
#[must_use]
pub fn without_agent(cgroup: Option<&std::path::Path>) -> Report {
    examine(&Facts::gather(cgroup), None)
}
