//! For whom a request was passed on, as the hops before its server say it: claims, until somebody trusts who makes them.

use std::net::IpAddr;

/// Hops that are kept of a list, the nearest ones.
pub const HOPS: usize = 16;

/// A list of hops as it came: each hop added, at its end, where it had the request from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// From the farthest to the nearest; absent where it is no address (unknown, hidden, malformed, cut).
    pub last: Vec<Option<IpAddr>>,
    /// There were more before, of which nothing is kept.
    pub more: bool,
}

impl Hops {
    /// Takes the next nearer hop.
    pub fn add(&mut self, hop: Option<IpAddr>) {
        if self.last.len() >= HOPS {
            self.last.remove(0);
            self.more = true;
        }
        self.last.push(hop);
    }
}

/// What was said of a request's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Source address of the PROXY protocol's prefix before the connection's first byte.
    pub proxy: Option<IpAddr>,
    /// `X-Forwarded-For`, all of its fields as one list (RFC 9110 §5.3).
    pub x_forwarded_for: Hops,
    /// `for` of `Forwarded` (RFC 7239), all of its fields as one list.
    pub forwarded: Hops,
}

impl Forwarded {
    /// Bytes of memory held.
    #[must_use]
    pub fn held(&self) -> usize {
        let hops = self.x_forwarded_for.last.capacity() + self.forwarded.last.capacity();
        size_of::<Self>() + hops * size_of::<Option<IpAddr>>()
    }
}
