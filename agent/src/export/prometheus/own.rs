//! The agent's own counters.

use std::io;
use std::sync::Arc;

use super::text::{Bucket, Kind, Labels, Text};
use crate::export::ledger::Ledger;
use crate::export::metrics::Metrics;
use crate::export::relations::{COUNTERS, HISTOGRAMS, Relation, counts};

/// What other layers count, as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// `weir_messages_total`: stage, reason (empty: none), count.
    pub messages: Vec<(&'static str, &'static str, u64)>,
    /// `weir_chains_total`: proof, reason (empty: none), clients' calls.
    pub chains: Vec<(&'static str, &'static str, u64)>,
    /// `weir_connections`: visibility, reason (empty: none), connections.
    pub connections: Vec<(&'static str, &'static str, u64)>,
    /// Kernel programs.
    pub programs: Vec<Program>,
    /// `weir_blocked_total`: rule, mode, calls.
    pub blocked: Vec<(Arc<str>, &'static str, u64)>,
    /// `weir_breaker_trips_total`: reason, rules.
    pub trips: Vec<(&'static str, u64)>,
    /// Feeds of drop rules.
    pub feeds: Vec<FeedState>,
    /// `traces_service_graph_*`.
    pub relations: Vec<Relation>,
    /// Locked memory of kernel maps, bytes.
    pub map_bytes: Option<u64>,
    /// CPU time of this process, seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory of this process, bytes.
    pub resident_bytes: Option<u64>,
    /// Start of this process, seconds since the Unix epoch.
    pub started: Option<f64>,
}

/// A feed of drop rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedState {
    /// Its name.
    pub name: Arc<str>,
    /// Entries in force.
    pub entries: usize,
    /// Seconds since it was last in order; `None`: never.
    pub age: Option<f64>,
    /// Failures by reason.
    pub errors: Vec<(&'static str, u64)>,
}

/// A kernel program's own account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Runs; counted by the kernel only while its run-time statistics are on.
    pub runs: u64,
    /// Time spent, seconds.
    pub seconds: f64,
}

/// Writes the families of the agent's own counters.
pub(super) fn write<W: io::Write>(
    text: &mut Text<W>,
    metrics: &Metrics,
    ledger: &Ledger,
    now: &Snapshot,
) -> io::Result<()> {
    text.family("weir_build", Kind::Info, "", "The agent's version.")?;
    text.sample(&Labels::new().with("version", env!("CARGO_PKG_VERSION")), 1)?;
    calls(text, metrics, ledger, now)?;
    kernel(text, now)?;
    graph(text, now)?;
    kept(text, metrics)?;
    process(text, now)
}

/// What is the same for all samples of a family.
struct Family {
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
}

impl Family {
    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit: "", help }
    }

    const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: "", help }
    }

    const fn in_unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Writes the family; nothing when it has no sample.
    fn write<W: io::Write>(
        self,
        text: &mut Text<W>,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> io::Result<()> {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            text.family(self.name, self.kind, self.unit, self.help)?;
        }
        samples.try_for_each(|(labels, value)| text.sample(&labels, value))
    }
}

fn pair((first, a): (&str, &str), (second, b): (&str, &str)) -> Labels {
    Labels::new().with(first, a).with(second, b)
}

fn alone(value: f64) -> (Labels, f64) {
    (Labels::new(), value)
}

fn calls<W: io::Write>(text: &mut Text<W>, metrics: &Metrics, ledger: &Ledger, now: &Snapshot) -> io::Result<()> {
    let messages =
        now.messages.iter().map(|(stage, reason, n)| (pair(("stage", stage), ("reason", reason)), *n as f64));
    Family::counter("weir_messages", "Segments (kernel stages) and calls (agent stages), by what became of them.")
        .write(text, messages)?;
    let calls = metrics
        .calls()
        .into_iter()
        .map(|(kind, end, n)| (pair(("kind", kind), ("protocol", "http")).with("end", end), n as f64));
    Family::counter("weir_calls", "Calls, by side, protocol and how they ended.").write(text, calls)?;
    let chains = now.chains.iter().map(|(proof, reason, n)| (pair(("proof", proof), ("reason", reason)), *n as f64));
    Family::counter(
        "weir_chains",
        "Calls that processes made, by what proves which call caused them, or why nothing does.",
    )
    .write(text, chains)?;
    let exported = ledger
        .iter()
        .map(|(signal, outcome, n)| (pair(("signal", signal.as_str()), ("result", outcome.as_str())), n as f64));
    Family::counter("weir_exported", "Spans and data points offered to the OTLP receiver, by what became of them.")
        .write(text, exported)
}

fn kernel<W: io::Write>(text: &mut Text<W>, now: &Snapshot) -> io::Result<()> {
    let connections = now
        .connections
        .iter()
        .map(|(visibility, reason, n)| (pair(("visibility", visibility), ("reason", reason)), *n as f64));
    Family::gauge("weir_connections", "Live connections, by how they are seen.").write(text, connections)?;
    let of = |program: &Program| Labels::new().with("program", &program.name);
    Family::counter("weir_program_runs", "Runs of a kernel program.")
        .write(text, now.programs.iter().map(|program| (of(program), program.runs as f64)))?;
    Family::counter("weir_program_seconds", "Time spent in a kernel program.")
        .in_unit("seconds")
        .write(text, now.programs.iter().map(|program| (of(program), program.seconds)))?;
    let blocked = now.blocked.iter().map(|(rule, mode, n)| (pair(("rule", rule), ("mode", mode)), *n as f64));
    Family::counter("weir_blocked", "Calls that a drop rule met, and attempts to connect that it refused unanswered.")
        .write(text, blocked)?;
    let trips = now.trips.iter().map(|(reason, n)| (Labels::new().with("reason", reason), *n as f64));
    Family::counter("weir_breaker_trips", "Drop rules that the circuit breaker put back to monitor mode.")
        .write(text, trips)?;
    feeds(text, now)
}

fn feeds<W: io::Write>(text: &mut Text<W>, now: &Snapshot) -> io::Result<()> {
    let of = |feed: &FeedState| Labels::new().with("feed", &feed.name);
    Family::gauge("weir_feed_entries", "Entries of a feed of drop rules that are in force.")
        .write(text, now.feeds.iter().map(|feed| (of(feed), feed.entries as f64)))?;
    let ages = now.feeds.iter().filter_map(|feed| Some((of(feed), feed.age?)));
    Family::gauge("weir_feed_age_seconds", "Time since a feed of drop rules was last in order.")
        .in_unit("seconds")
        .write(text, ages)?;
    let errors = now.feeds.iter().flat_map(|feed| {
        feed.errors.iter().map(|(reason, n)| (pair(("feed", &feed.name), ("reason", reason)), *n as f64))
    });
    Family::counter("weir_feed_errors", "Updates of a feed of drop rules that were refused.").write(text, errors)
}

fn graph<W: io::Write>(text: &mut Text<W>, now: &Snapshot) -> io::Result<()> {
    let labels = |relation: &Relation| {
        pair(("client", &relation.client), ("server", &relation.server)).with("connection_type", "")
    };
    for (which, family) in COUNTERS.iter().enumerate() {
        let count = |relation: &Relation| counts(relation).get(which).copied().unwrap_or_default();
        let samples = now.relations.iter().map(|relation| (labels(relation), count(relation) as f64));
        // The format adds `_total` itself.
        Family::counter(family.name.strip_suffix("_total").unwrap_or(family.name), family.help).write(text, samples)?;
    }
    for (side, family) in HISTOGRAMS.iter().enumerate() {
        let told = |relation: &&Relation| relation.seconds.get(side).is_some_and(|seconds| !seconds.buckets.is_empty());
        let mut head = false;
        for relation in now.relations.iter().filter(told) {
            if !std::mem::replace(&mut head, true) {
                text.family(family.name, Kind::Histogram, "seconds", family.help)?;
            }
            let Some(seconds) = relation.seconds.get(side) else { continue };
            let buckets = seconds.buckets.iter().map(|&(bound, count)| Bucket { bound, count, exemplar: None });
            let all = seconds.buckets.last().map_or(0, |&(_, count)| count);
            text.histogram(&labels(relation), buckets, seconds.sum, all)?;
        }
    }
    Ok(())
}

fn kept<W: io::Write>(text: &mut Text<W>, metrics: &Metrics) -> io::Result<()> {
    let (overflowed, series) = metrics.fill();
    let help = "Calls counted in a series with otel_metric_overflow, because there were too many series.";
    Family::counter("weir_metric_overflow_calls", help).write(text, [alone(overflowed as f64)])?;
    Family::gauge("weir_metric_series", "Series of calls that are kept.").write(text, [alone(series as f64)])
}

fn process<W: io::Write>(text: &mut Text<W>, now: &Snapshot) -> io::Result<()> {
    Family::gauge("weir_map_memory_bytes", "Locked memory of kernel maps.")
        .in_unit("bytes")
        .write(text, now.map_bytes.map(|bytes| alone(bytes as f64)))?;
    Family::counter("process_cpu_seconds", "CPU time of the agent.")
        .in_unit("seconds")
        .write(text, now.cpu_seconds.map(alone))?;
    Family::gauge("process_resident_memory_bytes", "Resident memory of the agent.")
        .in_unit("bytes")
        .write(text, now.resident_bytes.map(|bytes| alone(bytes as f64)))?;
    Family::gauge("process_start_time_seconds", "Start of the agent since the Unix epoch.")
        .in_unit("seconds")
        .write(text, now.started.map(alone))
}
