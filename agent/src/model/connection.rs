//! A TCP connection, as one of its ends on this node sees it.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_common::conn::Owner;

/// Which end the observed socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It sends requests.
    Client,
    /// It answers requests.
    Server,
    /// Not known.
    Unknown,
}

/// How a connection's calls are seen (CONTRACT `visibility`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Bytes on the wire are the protocol's own.
    Plaintext,
    /// TLS, read.
    Tls,
    /// Not readable; the text is `weir.opaque.reason`.
    Opaque(&'static str),
}

impl Visibility {
    /// CONTRACT's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "tls",
            Self::Opaque(_) => "opaque",
        }
    }

    /// Why it can't be read.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Opaque(reason) => Some(reason),
            Self::Plaintext | Self::Tls => None,
        }
    }
}

/// What does not change over a connection's life.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Socket cookie, unique on this node since boot.
    pub cookie: u64,
    /// Local end, IPv4-mapped addresses as IPv4.
    pub local: SocketAddr,
    /// Remote end, IPv4-mapped addresses as IPv4.
    pub remote: SocketAddr,
    /// Which end this is.
    pub role: Role,
    /// Who held the socket when the connection was announced.
    pub owner: Owner,
    /// Network namespace cookie; 0 where the kernel has none.
    pub netns: u64,
    /// Established (or first seen) at, `CLOCK_MONOTONIC` nanoseconds.
    pub opened_at: u64,
    /// Older than the agent: its first bytes were not seen.
    pub midway: bool,
}

/// A connection as it stands now: a row of `weir connections`.
#[derive(Clone, Debug)]
pub struct OpenConnection {
    /// Its ends, role and owner.
    pub connection: Arc<Connection>,
    /// What is spoken (`http`, `tls`, `h2c`); absent where it is not known.
    pub protocol: Option<&'static str>,
    /// How its calls are seen.
    pub visibility: Visibility,
    /// Host that a TLS client asked for (SNI), lower case; absent where it named none.
    pub server_name: Option<Arc<str>>,
    /// Payload bytes that the kernel half told of: received, sent.
    pub bytes: [u64; 2],
    /// Calls so far.
    pub calls: u64,
    /// Its other end, where it is observed on this node too.
    pub mirror: Option<Arc<Connection>>,
    /// A call is running.
    pub in_flight: bool,
    /// It belongs to the agent itself, or its other end does.
    pub own: bool,
    /// Last record, `CLOCK_MONOTONIC` nanoseconds.
    pub last_at: u64,
}

/// A connection that ended without a call: it failed, or nothing of it could be read.
#[derive(Clone, Debug)]
pub struct EndedConnection {
    /// Its ends, role and owner.
    pub connection: Arc<Connection>,
    /// It was established.
    pub established: bool,
    /// Its other end, where it is observed on this node too and tells the same.
    pub mirror: Option<Arc<Connection>>,
    /// What was spoken; absent where it is not known.
    pub protocol: Option<&'static str>,
    /// How it was seen.
    pub visibility: Visibility,
    /// As in [`OpenConnection`].
    pub server_name: Option<Arc<str>>,
    /// Payload bytes received, sent.
    pub bytes: [u64; 2],
    /// When it ended, `CLOCK_MONOTONIC` nanoseconds.
    pub ended_at: u64,
    /// `connection_refused`, `no_answer`, `not_established`, `connection_reset`; absent for an orderly end.
    pub error: Option<&'static str>,
}
