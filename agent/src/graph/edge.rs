//! What is counted of an edge.

use sketches_ddsketch::{Config, DDSketch};

use super::node::{Node, NodeRef};
use crate::model::{Call, End, Exchange, Kind, Operation, Verdict};

/// Upper bounds of the buckets of service-graph histograms, seconds: as semconv advises for call durations.
pub const BOUNDS_SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Relative error of quantiles.
const ERROR: f64 = 0.01;
/// Bins of a sketch, 8 bytes each: with [`ERROR`] they span from a latency to 28 000 times as much; what is below falls
/// into the lowest.
const BINS: u32 = 512;
/// Shortest latency that is told from zero, seconds.
const SHORTEST: f64 = 1e-9;
/// Names by which a server is called that are kept of an edge.
const VIAS: usize = 8;
/// Time constant of the rate, nanoseconds.
const RATE_NS: f64 = 60e9;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is wrong with it.
    Fine,
    /// A status of the client's making.
    Status4xx,
    /// A status of the server's making.
    Status5xx,
    /// Answered wrongly: semconv `error.type`.
    Failed(&'static str),
    /// Given up by one end, or reset: CONTRACT `end`.
    Aborted(&'static str),
}

impl Outcome {
    fn of(call: &Call) -> Self {
        let Operation::Http(http) = &call.operation;
        match (call.end, http.status) {
            (End::ClientAborted | End::ServerAborted | End::Reset, _) => Self::Aborted(call.end.as_str()),
            (_, Some(500..)) => Self::Status5xx,
            (_, Some(400..)) => Self::Status4xx,
            _ => call.error.map_or(Self::Fine, Self::Failed),
        }
    }

    /// Its class, where it is none of the good.
    fn class(self) -> Option<&'static str> {
        match self {
            Self::Fine => None,
            Self::Status4xx => Some("4xx"),
            Self::Status5xx => Some("5xx"),
            Self::Failed(class) | Self::Aborted(class) => Some(class),
        }
    }
}

/// What one end tells of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub kind: Kind,
    pub outcome: Outcome,
    /// It was seen to its end.
    pub whole: bool,
    pub dropped: bool,
    /// Bytes of content; of everything on the wire where content can't be told.
    pub bytes: [u64; 2],
    pub duration_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub unix: [u64; 2],
    /// When it ended, `CLOCK_MONOTONIC` nanoseconds.
    pub ended_at: u64,
}

impl Facts {
    pub(super) fn of(exchange: &Exchange) -> Self {
        let call = &exchange.call;
        let duration_ns = exchange.duration_ns();
        Self {
            kind: exchange.kind,
            outcome: Outcome::of(call),
            whole: !matches!(call.end, End::Lost(_) | End::InFlight),
            dropped: matches!(exchange.verdict, Verdict::Dropped { .. }),
            bytes: [
                call.request.content.unwrap_or(call.request.wire),
                call.response.map_or(0, |response| response.content.unwrap_or(response.wire)),
            ],
            duration_ns,
            unix: [exchange.start_unix_ns, exchange.start_unix_ns.saturating_add(duration_ns)],
            ended_at: call.request.first.at.saturating_add(duration_ns),
        }
    }

    /// The same call, told by both ends: the server's word on what became of it, unless only the client saw it whole.
    pub(super) fn joined(client: &Self, server: &Self) -> Self {
        let base = if server.whole || !client.whole { server } else { client };
        Self {
            dropped: client.dropped || server.dropped,
            unix: [client.unix[0].min(server.unix[0]), client.unix[1].max(server.unix[1])],
            ended_at: client.ended_at.max(server.ended_at),
            ..*base
        }
    }
}

/// Latencies of an edge, told by one of its ends.
#[derive(Clone)]
pub(super) struct Latency {
    sketch: DDSketch,
    buckets: Buckets,
}

/// A histogram over [`BOUNDS_SECONDS`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Calls in each bucket, not cumulative; the last one is for what exceeds all bounds.
    pub counts: [u64; BOUNDS_SECONDS.len() + 1],
    /// Sum of all durations, nanoseconds.
    pub sum_ns: u64,
}

impl Buckets {
    /// Calls in all buckets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, ns: u64) {
        let seconds = ns as f64 / 1e9;
        let at = BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds another histogram.
    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latency").field("buckets", &self.buckets).finish_non_exhaustive()
    }
}

impl Latency {
    fn new() -> Self {
        Self { sketch: DDSketch::new(Config::new(ERROR, BINS, SHORTEST)), buckets: Buckets::default() }
    }

    fn add(&mut self, ns: u64) {
        self.sketch.add(ns as f64 / 1e9);
        self.buckets.add(ns);
    }

    fn merge(&mut self, other: &Self) {
        // Both have the same configuration, the only thing that could be wrong.
        let _ = self.sketch.merge(&other.sketch);
        self.buckets.merge(&other.buckets);
    }

    /// A quantile, seconds: the least latency that a share of `q` of the calls did not exceed.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        // The sketch rounds ranks down, by which the second of three calls would be their 99th percentile. Aimed at the
        // middle between ranks, so that no rounding misses.
        let calls = self.buckets.count() as f64;
        let rank = (q * calls - 1e-6).ceil() - 1.0;
        self.sketch.quantile(((rank + 0.5) / (calls - 1.0)).clamp(0.0, 1.0)).ok().flatten()
    }

    pub(super) fn buckets(&self) -> &Buckets {
        &self.buckets
    }
}

/// Everything that is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    pub calls: u64,
    /// Status 5xx, and answers that are wrong in themselves.
    pub errors: u64,
    pub aborted: u64,
    pub dropped: u64,
    /// Connections that ended without a call.
    pub connections: u64,
    /// Of them, those that were never established.
    pub failed_connections: u64,
    pub bytes: [u64; 2],
    /// Class of error → how often; each class is a constant of the program, so there are few.
    pub classes: Vec<(&'static str, u64)>,
    pub tls: bool,
    /// Names by which the server was called that are not its own, with how many calls: [`VIAS`] of them.
    pub via: Vec<(Node, u64)>,
    /// Calls by further such names.
    pub via_other: u64,
    /// Told by the client's end, by the server's end.
    pub observed: [bool; 2],
    /// By the end that told it.
    pub latency: [Option<Box<Latency>>; 2],
    /// First start and last end, nanoseconds since the Unix epoch.
    pub unix: Option<[u64; 2]>,
    /// Last use, `CLOCK_MONOTONIC` nanoseconds.
    pub used_at: u64,
    rate: f64,
}

fn side(kind: Kind) -> usize {
    match kind {
        Kind::Client => 0,
        Kind::Server => 1,
    }
}

impl Edge {
    /// Counts a call.
    pub(super) fn count(&mut self, facts: &Facts) {
        self.calls += 1;
        match facts.outcome {
            Outcome::Fine | Outcome::Status4xx => {}
            Outcome::Status5xx | Outcome::Failed(_) => self.errors += 1,
            Outcome::Aborted(_) => self.aborted += 1,
        }
        if let Some(class) = facts.outcome.class() {
            self.class(class, 1);
        }
        self.dropped += u64::from(facts.dropped);
        self.bytes[0] += facts.bytes[0];
        self.bytes[1] += facts.bytes[1];
        self.rate = self.rate_at(facts.ended_at) + 1e9 / RATE_NS;
        self.used(facts.ended_at, facts.unix);
    }

    /// Notes what one end tells of a call that is counted.
    pub(super) fn observe(&mut self, facts: &Facts) {
        let side = side(facts.kind);
        if let Some(observed) = self.observed.get_mut(side) {
            *observed = true;
        }
        if facts.whole
            && let Some(latency) = self.latency.get_mut(side)
        {
            latency.get_or_insert_with(|| Box::new(Latency::new())).add(facts.duration_ns);
        }
    }

    /// Adds to a class of errors.
    pub(super) fn class(&mut self, class: &'static str, n: u64) {
        match self.classes.iter_mut().find(|(known, _)| *known == class) {
            Some((_, count)) => *count += n,
            None => self.classes.push((class, n)),
        }
    }

    /// Counts calls that came by another name than the server's own.
    pub(super) fn came_via(&mut self, via: NodeRef<'_>, calls: u64) {
        let full = self.via.len() >= VIAS;
        match self.via.iter_mut().find(|(known, _)| known.borrow() == via) {
            Some((_, count)) => *count += calls,
            None if full => self.via_other += calls,
            None => self.via.push((via.owned(), calls)),
        }
    }

    /// Notes a use.
    pub(super) fn used(&mut self, at: u64, unix: [u64; 2]) {
        self.used_at = self.used_at.max(at);
        self.unix = Some(self.unix.map_or(unix, |seen| [seen[0].min(unix[0]), seen[1].max(unix[1])]));
    }

    /// Calls a second, as they were in the last minute.
    pub(super) fn rate_at(&self, now: u64) -> f64 {
        self.rate * (-(now.saturating_sub(self.used_at) as f64) / RATE_NS).exp()
    }

    /// Takes another edge's counts along.
    pub(super) fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.aborted += other.aborted;
        self.dropped += other.dropped;
        self.connections += other.connections;
        self.failed_connections += other.failed_connections;
        self.bytes[0] += other.bytes[0];
        self.bytes[1] += other.bytes[1];
        self.tls |= other.tls;
        for (class, n) in &other.classes {
            self.class(class, *n);
        }
        for (via, calls) in &other.via {
            self.came_via(via.borrow(), *calls);
        }
        self.via_other += other.via_other;
        for (mine, theirs) in self.latency.iter_mut().zip(&other.latency) {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => mine.merge(theirs),
                (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
                (_, None) => {}
            }
        }
        for (mine, theirs) in self.observed.iter_mut().zip(other.observed) {
            *mine |= theirs;
        }
        if let Some(unix) = other.unix {
            self.used(other.used_at, unix);
        }
    }
}
