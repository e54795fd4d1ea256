//! The agent's counters: its part of the ledger (seen = delivered + filtered + lost, in segments) and what becomes of
//! calls. Each has one place where it is incremented.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// TCP segments with payload (or FIN) on a watched connection: `weir_messages_total`.
    Segment,
    /// Calls: `weir_kept_total`.
    Call,
    /// Anything else: `weir_events_total`.
    Event,
}

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Count {
    /// Segments that reached the agent.
    Delivered,
    /// A record was refused by the decoder (wrong length or kind).
    LostUndecodable,
    /// A record of a connection that is not in the table: its announcement was lost, or it was evicted.
    LostUnannounced,
    /// A segment too far ahead of its stream to be kept until the hole is filled.
    LostReorder,
    /// Calls of the agent's own connections.
    FilteredSelf,
    /// Calls of services that `select` leaves out.
    FilteredSelect,
    /// Calls dropped because the judging task was behind.
    LostQueue,
    /// Calls kept in the store.
    Kept,
    /// Calls that left the store because it is bounded.
    Evicted,
    /// Calls that could not be written to the disk store: it was full, broken or too slow.
    LostDisk,
    /// Connections that were evicted because the table is bounded.
    EvictedConnection,
    /// Message heads that could not be told because bytes before them were not seen.
    Skipped,
    /// Requests with a malformed, repeated or incomplete trace header.
    MalformedContext,
    /// Annotations of pods that set a Resource attribute to something too long, or to too many.
    RefusedAnnotation,
    /// Pods, Services and addresses of the cluster that are left out because what is known of them is bounded.
    EvictedKubernetes,
}

impl Count {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Delivered,
        Self::LostUndecodable,
        Self::LostUnannounced,
        Self::LostReorder,
        Self::FilteredSelf,
        Self::FilteredSelect,
        Self::LostQueue,
        Self::Kept,
        Self::Evicted,
        Self::LostDisk,
        Self::EvictedConnection,
        Self::Skipped,
        Self::MalformedContext,
        Self::RefusedAnnotation,
        Self::EvictedKubernetes,
    ];

    /// Unit, stage and reason.
    #[must_use]
    pub fn label(self) -> (Unit, &'static str, &'static str) {
        match self {
            Self::Delivered => (Unit::Segment, "delivered", ""),
            Self::LostUndecodable => (Unit::Segment, "lost", "undecodable"),
            Self::LostUnannounced => (Unit::Segment, "lost", "unannounced"),
            Self::LostReorder => (Unit::Segment, "lost", "reorder"),
            Self::FilteredSelf => (Unit::Call, "filtered", "self"),
            Self::FilteredSelect => (Unit::Call, "filtered", "select"),
            Self::LostQueue => (Unit::Call, "lost", "queue_full"),
            Self::Kept => (Unit::Call, "kept", ""),
            Self::Evicted => (Unit::Call, "evicted", ""),
            Self::LostDisk => (Unit::Event, "lost", "disk_store"),
            Self::EvictedConnection => (Unit::Event, "evicted", "connection"),
            Self::Skipped => (Unit::Event, "lost", "unseen_head"),
            Self::MalformedContext => (Unit::Event, "ignored", "malformed_trace_context"),
            Self::RefusedAnnotation => (Unit::Event, "ignored", "unusable_annotation"),
            Self::EvictedKubernetes => (Unit::Event, "evicted", "kubernetes_object"),
        }
    }
}

/// The agent's counters.
#[derive(Debug, Default)]
pub struct Meter {
    counts: [AtomicU64; Count::ALL.len()],
}

impl Meter {
    /// Adds to a counter.
    pub fn add(&self, count: Count, n: u64) {
        if let Some(counter) = self.counts.get(count as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Reads a counter.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.counts.get(count as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}
