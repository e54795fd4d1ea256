//! `weir_exported_total{signal,result}`: what became of every span and data point that was offered for export.

use std::sync::atomic::{AtomicU64, Ordering};

use super::otlp::Signal;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Outcome {
    /// The receiver took it.
    Ok,
    /// The receiver took its request, but not it (OTLP partial success).
    Rejected,
    /// The receiver refused the request in a way that trying again can't mend.
    Refused,
    /// Tried again until its time was over.
    Expired,
    /// The queue was full.
    QueueFull,
    /// Not delivered when the exporter stopped.
    Stopped,
    /// Left out by `traces.sample`.
    Unsampled,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Rejected, Self::Refused, Self::Expired, Self::QueueFull, Self::Stopped, Self::Unsampled];

    /// Label `result`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::QueueFull => "queue_full",
            Self::Stopped => "stopped",
            Self::Unsampled => "unsampled",
        }
    }
}

/// The counters. They outlive an exporter, so that a reload does not reset them.
#[derive(Debug, Default)]
pub struct Ledger {
    counts: [[AtomicU64; Outcome::ALL.len()]; Signal::ALL.len()],
}

impl Ledger {
    /// Adds `n` spans or data points.
    pub fn add(&self, signal: Signal, outcome: Outcome, n: u64) {
        if let Some(count) = self.counter(signal, outcome) {
            count.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Spans or data points so far.
    #[must_use]
    pub fn get(&self, signal: Signal, outcome: Outcome) -> u64 {
        self.counter(signal, outcome).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// All counters.
    pub fn iter(&self) -> impl Iterator<Item = (Signal, Outcome, u64)> {
        Signal::ALL.into_iter().flat_map(move |signal| {
            Outcome::ALL.into_iter().map(move |outcome| (signal, outcome, self.get(signal, outcome)))
        })
    }

    fn counter(&self, signal: Signal, outcome: Outcome) -> Option<&AtomicU64> {
        self.counts.get(signal as usize).and_then(|counts| counts.get(outcome as usize))
    }
}
