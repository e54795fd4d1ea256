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
    /// Clients' calls by what proves their parent inside their process: `weir_chains_total`; the stage is the proof.
    Chain,
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
    /// Connections without a call, and proofs of exports, that the judging thread could not take: it was behind.
    LostConnection,
    /// Connections that were evicted because the table is bounded.
    EvictedConnection,
    /// Message heads that could not be told because bytes before them were not seen.
    Skipped,
    /// Requests with a malformed, repeated or incomplete trace header.
    MalformedContext,
    /// Requests whose forwarding headers or PROXY prefix came from a hop that is not trusted.
    UntrustedForwarded,
    /// Requests by a trusted proxy whose word on their client can't be used.
    UnusableForwarded,
    /// Requests by a trusted proxy in which two headers name two clients.
    ContradictingForwarded,
    /// Spans that are not exported because the application exports its own.
    ToldByApplication,
    /// DNS messages that could not be read.
    MalformedDns,
    /// DNS answers to questions that nobody had asked so, or that were answered already.
    UnaskedDns,
    /// DNS answers whose addresses found no room.
    RefusedDns,
    /// Connections to an address that had several names.
    AmbiguousName,
    /// Annotations of pods that set a Resource attribute to something too long, or to too many.
    RefusedAnnotation,
    /// Pods, Services and addresses of the cluster that are left out because what is known of them is bounded.
    EvictedKubernetes,
    /// The parent was proven by ids that the request carries.
    ChainCarried,
    /// The parent was proven by the thread.
    ChainThread,
    /// The parent was proven by the goroutine.
    ChainGoroutine,
    /// The process takes no requests.
    ChainNoRequest,
    /// The request names a span that the application made.
    ChainOwnSpan,
    /// Several requests under way had the ids that it carries.
    ChainSeveral,
    /// The request that had the ids which it carries was answered long before.
    ChainEnded,
    /// The thread had taken no request.
    ChainIdle,
    /// Something else waited for the socket from which the thread read its request, or the request was pipelined.
    ChainShared,
    /// The thread read its request from a non-blocking socket.
    ChainFree,
    /// The thread serves many connections at once.
    ChainLoop,
    /// The thread took another request before its answer, or the answer began before the call.
    ChainMixed,
    /// Another thread answered.
    ChainOther,
    /// The answer was sent before every response was read.
    ChainUnread,
    /// Requests of the connection were pipelined.
    ChainPipelined,
    /// The thread that sent it is not known.
    ChainUnknown,
    /// The process had not called anybody for long, so that what it had taken is not known.
    ChainNew,
    /// Records were lost that would have told.
    ChainLost,
    /// The parent was not settled in time.
    ChainLate,
    /// Too many calls waited.
    ChainFull,
}

impl Count {
    /// All of them.
    pub const ALL: [Self; 44] = [
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
        Self::LostConnection,
        Self::EvictedConnection,
        Self::Skipped,
        Self::MalformedContext,
        Self::UntrustedForwarded,
        Self::UnusableForwarded,
        Self::ContradictingForwarded,
        Self::ToldByApplication,
        Self::MalformedDns,
        Self::UnaskedDns,
        Self::RefusedDns,
        Self::AmbiguousName,
        Self::RefusedAnnotation,
        Self::EvictedKubernetes,
        Self::ChainCarried,
        Self::ChainThread,
        Self::ChainGoroutine,
        Self::ChainNoRequest,
        Self::ChainOwnSpan,
        Self::ChainSeveral,
        Self::ChainEnded,
        Self::ChainIdle,
        Self::ChainShared,
        Self::ChainFree,
        Self::ChainLoop,
        Self::ChainMixed,
        Self::ChainOther,
        Self::ChainUnread,
        Self::ChainPipelined,
        Self::ChainUnknown,
        Self::ChainNew,
        Self::ChainLost,
        Self::ChainLate,
        Self::ChainFull,
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
            Self::LostConnection => (Unit::Event, "lost", "connection_queue_full"),
            Self::EvictedConnection => (Unit::Event, "evicted", "connection"),
            Self::Skipped => (Unit::Event, "lost", "unseen_head"),
            Self::MalformedContext => (Unit::Event, "ignored", "malformed_trace_context"),
            Self::UntrustedForwarded => (Unit::Event, "ignored", "untrusted_forwarded"),
            Self::UnusableForwarded => (Unit::Event, "ignored", "unusable_forwarded"),
            Self::ContradictingForwarded => (Unit::Event, "ignored", "contradicting_forwarded"),
            Self::ToldByApplication => (Unit::Event, "filtered", "span_told_by_application"),
            Self::MalformedDns => (Unit::Event, "ignored", "malformed_dns"),
            Self::UnaskedDns => (Unit::Event, "ignored", "dns_answer_not_asked_for"),
            Self::RefusedDns => (Unit::Event, "ignored", "dns_names_full"),
            Self::AmbiguousName => (Unit::Event, "ignored", "ambiguous_dns_name"),
            Self::RefusedAnnotation => (Unit::Event, "ignored", "unusable_annotation"),
            Self::EvictedKubernetes => (Unit::Event, "evicted", "kubernetes_object"),
            Self::ChainCarried => (Unit::Chain, "carried", ""),
            Self::ChainThread => (Unit::Chain, "thread", ""),
            Self::ChainGoroutine => (Unit::Chain, "goroutine", ""),
            Self::ChainNoRequest => (Unit::Chain, "none", "no_request"),
            Self::ChainOwnSpan => (Unit::Chain, "none", "own_span"),
            Self::ChainSeveral => (Unit::Chain, "none", "several_requests"),
            Self::ChainEnded => (Unit::Chain, "none", "ended_request"),
            Self::ChainShared => (Unit::Chain, "none", "shared_socket"),
            Self::ChainFree => (Unit::Chain, "none", "nonblocking_socket"),
            Self::ChainIdle => (Unit::Chain, "none", "idle_thread"),
            Self::ChainLoop => (Unit::Chain, "none", "event_loop"),
            Self::ChainMixed => (Unit::Chain, "none", "interleaved"),
            Self::ChainOther => (Unit::Chain, "none", "other_thread"),
            Self::ChainUnread => (Unit::Chain, "none", "unread_response"),
            Self::ChainPipelined => (Unit::Chain, "none", "pipelined"),
            Self::ChainUnknown => (Unit::Chain, "none", "unknown_sender"),
            Self::ChainNew => (Unit::Chain, "none", "new_caller"),
            Self::ChainLost => (Unit::Chain, "none", "lost_records"),
            Self::ChainLate => (Unit::Chain, "none", "late"),
            Self::ChainFull => (Unit::Chain, "none", "full"),
        }
    }
}

/// The agent's counters.
#[derive(Debug)]
pub struct Meter {
    counts: [AtomicU64; Count::ALL.len()],
}

impl Default for Meter {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; Count::ALL.len()] }
    }
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
