//! Names that are asked for, and the addresses that answer.

use std::net::IpAddr;

/// A question for the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// Chosen by who asks, repeated in the answer (RFC 1035 §4.1.1).
    pub id: u16,
    /// The name in lower case, without its last dot; letters, digits, `-`, `_` and dots only, 253 bytes at most.
    pub name: Box<str>,
    /// Asks for IPv6 addresses (AAAA), not for IPv4 ones (A).
    pub v6: bool,
}

/// What a question was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The question that the answer repeats.
    pub lookup: Lookup,
    /// Addresses, each with how many seconds it may be kept; 64 at most.
    pub found: Vec<(IpAddr, u32)>,
}
