//! What `weir stats` and `weir doctor` tell: documents that the agent writes and the verbs read.

use serde::{Deserialize, Serialize};

/// `weir stats`: the ledger, and what the agent itself uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Version of the agent.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Since it started, seconds.
    pub uptime_seconds: f64,
    /// The ledger (`weir_messages_total`), in its order.
    pub messages: Vec<Line>,
    /// Live connections by visibility and reason (`weir_connections`).
    pub connections: Vec<Line>,
    /// Recent calls.
    pub recent: RecentUse,
    /// What was exported (`weir_exported_total`).
    pub exported: Vec<Exported>,
    /// Programs in the kernel.
    pub programs: Vec<ProgramUse>,
    /// What the agent's process uses.
    pub own: OwnUse,
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `seen`, `delivered`, `filtered`, `lost`, …; of connections their visibility.
    pub stage: String,
    /// Why; empty where there is but one.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// Data handed to an exporter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// `traces` or `metrics`.
    pub signal: String,
    /// `sent`, or why not.
    pub result: String,
    /// How many spans or points.
    pub count: u64,
}

/// What a program in the kernel costs. Zeros while `kernel.bpf_stats_enabled` is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramUse {
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// Time spent in it, seconds.
    pub seconds: f64,
}

/// The store of recent calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentUse {
    /// Calls in memory.
    pub calls: u64,
    /// Bytes in memory.
    pub bytes: u64,
    /// Bytes allowed in memory.
    pub limit: u64,
    /// Start of the oldest call in memory (RFC 3339).
    pub oldest: Option<String>,
    /// Calls on disk.
    pub disk: Option<RecentDisk>,
}

/// The store of recent calls on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentDisk {
    /// The file.
    pub path: String,
    /// Calls in it.
    pub calls: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes allowed.
    pub limit: u64,
    /// Calls that could not be written.
    pub lost: u64,
    /// Why nothing is written at the moment.
    pub error: Option<String>,
}

/// What a process uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnUse {
    /// Processor time, user and system, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Largest resident memory so far, bytes.
    pub peak_rss_bytes: u64,
    /// Locked memory of maps, bytes.
    pub map_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open files.
    pub files: u64,
}

/// `weir doctor`: what this kernel and node can do, what runs, and what is not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// `uname -r`.
    pub kernel: String,
    /// Why this node can't run Weir; absent: it can.
    pub unfit: Option<String>,
    /// Process id of the running agent; absent: none runs, and what follows is what one would do.
    pub agent: Option<u32>,
    /// What the kernel was asked.
    pub probes: Vec<Probe>,
    /// What becomes of each program.
    pub programs: Vec<ProgramRow>,
    /// What is not visible here, and why.
    pub blind_spots: Vec<Remedy>,
}

/// A question to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What was asked.
    pub name: String,
    /// `yes`, `no` or `unknown`.
    pub answer: String,
    /// Why not.
    pub why: Option<String>,
}

/// What becomes of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRow {
    /// Its name.
    pub name: String,
    /// `attached`, `left_out` or `refused`; without an agent `would_attach` or `left_out`.
    pub state: String,
    /// Why it is left out or was refused.
    pub why: Option<String>,
    /// What is not seen without it; absent while it is attached.
    pub without: Option<String>,
}

/// Something that is not seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// What is not seen.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do about it; absent: nothing.
    pub remedy: Option<String>,
}
