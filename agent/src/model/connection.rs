//! A TCP connection, as one of its ends on this node sees it.

use std::net::SocketAddr;

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
