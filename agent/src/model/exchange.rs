//! A call with everything that is known about it: the core noun.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Call, Connection, Service, Thread};

/// Side of the observer (OpenTelemetry span kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The observed process sent the request.
    Client,
    /// The observed process answered it.
    Server,
}

impl Kind {
    /// `client` or `server`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Trace identity (OpenTelemetry trace API).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Trace id.
    pub trace: [u8; 16],
    /// Span id.
    pub span: [u8; 8],
    /// Parent's span id, only where it is proven.
    pub parent: Option<[u8; 8]>,
    /// A span that belongs to this call and has another trace id. The span at the other end, on a node of which nothing is
    /// known: it can't know what this call was joined to. Or the span that caused this call, whose other end is told by
    /// another host's agent as this call's child.
    pub link: Option<Link>,
}

/// A span of another trace that belongs to this call (OpenTelemetry span link).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Trace id.
    pub trace: [u8; 16],
    /// Span id.
    pub span: [u8; 8],
}

/// What enforcement said (CONTRACT `verdict`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No rule met it.
    Allowed,
    /// A rule in monitor mode met it.
    WouldDrop {
        /// `weir.block.id`.
        rule: Arc<str>,
        /// `weir.block.reason`.
        reason: Arc<str>,
    },
    /// It was dropped.
    Dropped {
        /// `weir.block.id`.
        rule: Arc<str>,
        /// `weir.block.reason`.
        reason: Arc<str>,
    },
}

impl Verdict {
    /// CONTRACT's word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::WouldDrop { .. } => "would_drop",
            Self::Dropped { .. } => "dropped",
        }
    }
}

/// One call, seen from one of its ends.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Trace identity.
    pub ids: Ids,
    /// Which end saw it.
    pub kind: Kind,
    /// What the wire showed.
    pub call: Call,
    /// Over what.
    pub connection: Arc<Connection>,
    /// Thread that sent this end's message: the caller's, or the one that answered.
    pub by: Thread,
    /// The observed process's service.
    pub service: Arc<Service>,
    /// The connection's other end, where it is observed on this node too: then the same call is told twice, as the
    /// client's and as the server's, whose parent is the client's span. Its owner is the peer.
    pub mirror: Option<Arc<Connection>>,
    /// The other end is told by the agent of another host.
    pub elsewhere: bool,
    /// The other end's service, where it is proven.
    pub peer: Option<Arc<Service>>,
    /// By what name the client called the server, where its address was translated to the server's on the way and both
    /// ends are observed here: a Service of the cluster, a name of DNS, or the address itself.
    pub via: Option<Arc<Service>>,
    /// semconv `client.address` of a call that its server saw: its connection's other end, or who is behind that where
    /// a trusted proxy says so; absent where that is a proxy and what it says can't be used.
    pub client: Option<IpAddr>,
    /// Start of the call, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// What enforcement said.
    pub verdict: Verdict,
}

impl Exchange {
    /// First request byte to last response byte (or to what ended the call), nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        let last = self.call.response.map_or(self.call.request.last_at, |response| response.last_at);
        last.max(self.call.request.last_at).saturating_sub(self.call.request.first.at)
    }

    /// First request byte to first response byte, nanoseconds.
    #[must_use]
    pub fn time_to_first_byte_ns(&self) -> Option<u64> {
        self.call.response.map(|response| response.first.at.saturating_sub(self.call.request.first.at))
    }
}
