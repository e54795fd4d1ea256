//! The agent's account of itself: ledger, programs, memory (`weir stats`, Prometheus).

use serde::Serialize;
use weir_common::knob::Slot;

use super::Core;
use super::capture::Ask;
use crate::kernel::load::{Runs, Verdict};
use crate::kernel::plan::Program;
use crate::meter::{Count, Meter, Unit};

/// A row of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `seen`, `delivered`, `filtered` or `lost`; for calls and events what became of them.
    pub stage: &'static str,
    /// Why; empty where there is nothing to tell.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

/// A program and what it has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramRow {
    /// Its name.
    pub program: &'static str,
    /// Attached, left out or refused.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Its run-time statistics; absent where it is not attached.
    pub runs: Option<Runs>,
}

/// `weir stats --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// The ledger in segments: seen = delivered + filtered + lost, once the ring is drained.
    pub messages: Vec<Row>,
    /// What became of calls.
    pub calls: Vec<Row>,
    /// Clients' calls by what proves their parent inside their process: the stage is the proof.
    pub chains: Vec<Row>,
    /// What else was counted.
    pub events: Vec<Row>,
    /// Programs.
    pub programs: Vec<ProgramRow>,
    /// CPU time of this process, seconds.
    pub cpu_seconds: f64,
    /// Resident memory of this process, bytes.
    pub resident_bytes: u64,
    /// Locked memory of the kernel half's maps, bytes, without sockets' own storage.
    pub map_bytes: u64,
    /// Seconds since the agent started.
    pub uptime_seconds: f64,
}

impl Core {
    /// The ledger in segments. What passed before this call is in it on both sides, as far as one turn of the capturing
    /// thread takes it; what passes meanwhile may be seen and not yet delivered.
    pub(super) fn messages(&self) -> Vec<Row> {
        // A thread that is too busy to answer is behind, and the ledger says by how much.
        let _ = self.ask(Ask::Alive);
        let half = self.half();
        let kernel = |slot| half.counts.get(slot);
        // Read in this order, so that nothing is delivered before it was seen.
        let delivered = self.meter.get(Count::Delivered);
        let mut rows = vec![
            Row { stage: "filtered", reason: "duplicate", count: kernel(Slot::DUPLICATE) },
            Row { stage: "filtered", reason: "checksum", count: kernel(Slot::CHECKSUM) },
            Row { stage: "lost", reason: "ring_full", count: kernel(Slot::LOST_RING) },
            Row { stage: "lost", reason: "unreadable", count: kernel(Slot::LOST_UNREADABLE) },
        ];
        let late = rows_of(&self.meter, Unit::Segment).filter(|row| row.stage == "lost");
        rows.extend(late);
        let after: u64 = [Count::LostUnannounced, Count::LostReorder].map(|count| self.meter.get(count)).iter().sum();
        let seen = kernel(Slot::SEEN) + kernel(Slot::DUPLICATE) + kernel(Slot::CHECKSUM);
        rows.insert(0, Row { stage: "delivered", reason: "", count: delivered.saturating_sub(after) });
        rows.insert(0, Row { stage: "seen", reason: "", count: seen });
        rows
    }

    /// Events of the kernel half and of the agent that are neither segments nor calls.
    pub(super) fn events(&self) -> Vec<Row> {
        let half = self.half();
        let kernel = |slot| half.counts.get(slot);
        let mut rows = vec![
            Row { stage: "opened", reason: "", count: kernel(Slot::OPENED) },
            Row { stage: "closed", reason: "", count: kernel(Slot::CLOSED) },
            Row { stage: "lost", reason: "announcement_ring_full", count: kernel(Slot::LOST_EVENT) },
            Row { stage: "lost", reason: "no_socket_storage", count: kernel(Slot::NO_STORAGE) },
            Row { stage: "ignored", reason: "dns_packet_not_asked_for", count: kernel(Slot::DNS_UNASKED) },
            Row { stage: "lost", reason: "dns_flood", count: kernel(Slot::DNS_FLOOD) },
            Row { stage: "lost", reason: "dns_ring_full", count: kernel(Slot::LOST_DNS) },
        ];
        rows.extend(rows_of(&self.meter, Unit::Event));
        rows
    }

    /// Chains by proof and reason.
    pub(super) fn chains(&self) -> Vec<Row> {
        rows_of(&self.meter, Unit::Chain).collect()
    }

    /// The whole account.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let programs = {
            let half = self.half();
            let runs = half.runs();
            let runs = |program: Program| runs.iter().find(|(of, _)| *of == program).map(|(_, runs)| *runs);
            half.verdicts
                .iter()
                .map(|(program, verdict)| ProgramRow {
                    program: program.name(),
                    verdict: verdict.clone(),
                    runs: runs(*program),
                })
                .collect()
        };
        let own = own();
        Stats {
            messages: self.messages(),
            calls: rows_of(&self.meter, Unit::Call).collect(),
            chains: self.chains(),
            events: self.events(),
            programs,
            cpu_seconds: own.cpu_seconds,
            resident_bytes: own.resident_bytes,
            map_bytes: self.half().map_bytes(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

fn rows_of(meter: &Meter, unit: Unit) -> impl Iterator<Item = Row> + '_ {
    Count::ALL.into_iter().filter_map(move |count| {
        let (of, stage, reason) = count.label();
        (of == unit).then(|| Row { stage, reason, count: meter.get(count) })
    })
}

/// What this process costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Own {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

/// Asks the kernel what this process costs.
pub(super) fn own() -> Own {
    // SAFETY: `rusage` is plain old data, for which zeros are valid; the call fills it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // proc(5): statm's second field is resident pages.
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or_default();
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Own {
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        resident_bytes: pages * u64::try_from(page).unwrap_or(4096),
    }
}
