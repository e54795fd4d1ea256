//! Wire identity: the ids of a call, equal on both its ends without a byte being added.
//!
//! An id is SipHash-1-3 with 128 bits of output, under the key `weir wire id v01`, of 41 bytes: client address (16,
//! IPv4 as IPv4-mapped IPv6), client port (2), server address (16), server port (2), TCP sequence number of the
//! request's first byte (4), all in network byte order, and one byte that says which id it is. The key is a constant:
//! agents on two hosts must agree, and nothing here is secret.

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::model::{Ids, Kind, TraceContext};

const KEY: &[u8; 16] = b"weir wire id v01";

/// What is hashed, but for its last byte.
#[derive(Debug)]
pub(super) struct Wire([u8; 41]);

impl Wire {
    /// The identity of a request on a connection.
    pub(super) fn new(client: SocketAddr, server: SocketAddr, seq: u32) -> Self {
        let mut bytes = [0; 41];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            if let Some(room) = bytes.get_mut(at..at + field.len()) {
                room.copy_from_slice(field);
            }
            at += field.len();
        };
        for end in [client, server] {
            put(&octets(end.ip()));
            put(&end.port().to_be_bytes());
        }
        put(&seq.to_be_bytes());
        Self(bytes)
    }

    fn hash(&mut self, which: u8) -> [u8; 16] {
        if let Some(last) = self.0.last_mut() {
            *last = which;
        }
        let mut hasher = SipHasher13::new_with_key(KEY);
        hasher.write(&self.0);
        hasher.finish128().as_bytes()
    }

    /// The ids of one end's call.
    ///
    /// `mirrored`: the other end of the connection is observed too, on this node or by another host's agent, so that the
    /// client's span is there.
    pub(super) fn ids(mut self, kind: Kind, context: Option<TraceContext>, mirrored: bool) -> Ids {
        let trace = context.map_or_else(|| valid(self.hash(0)), |context| context.trace);
        let spans = u128::from_be_bytes(self.hash(1));
        let client = valid(((spans >> 64) as u64).to_be_bytes());
        let server = valid((spans as u64).to_be_bytes());
        let outside = context.map(|context| context.span);
        match kind {
            Kind::Client => Ids { trace, span: client, parent: outside, link: None },
            Kind::Server => {
                Ids { trace, span: server, parent: if mirrored { Some(client) } else { outside }, link: None }
            }
        }
    }
}

/// An id of zeros is invalid (W3C Trace Context §3.2.2.3, §3.2.2.4).
fn valid<const N: usize>(mut id: [u8; N]) -> [u8; N] {
    if id == [0; N]
        && let Some(last) = id.last_mut()
    {
        *last = 1;
    }
    id
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(seq: u32) -> Wire {
        Wire::new("10.1.0.7:51234".parse().unwrap(), "10.1.0.2:443".parse().unwrap(), seq)
    }

    const CONTEXT: TraceContext = TraceContext { trace: [7; 16], span: [9; 8], flags: 1 };

    #[test]
    fn both_ends_agree_and_join() {
        let client = wire(1000).ids(Kind::Client, None, true);
        let server = wire(1000).ids(Kind::Server, None, true);
        assert_eq!(client.trace, server.trace);
        assert_eq!(client.parent, None);
        assert_eq!(server.parent, Some(client.span));
        assert_ne!(client.span, server.span);
    }

    #[test]
    fn an_unproven_parent_is_absent() {
        assert_eq!(wire(1000).ids(Kind::Server, None, false).parent, None);
    }

    #[test]
    fn an_incoming_context_is_honoured() {
        let client = wire(1).ids(Kind::Client, Some(CONTEXT), false);
        assert_eq!((client.trace, client.parent), ([7; 16], Some([9; 8])));
        assert_eq!(wire(1).ids(Kind::Server, Some(CONTEXT), false).parent, Some([9; 8]));
        let server = wire(1).ids(Kind::Server, Some(CONTEXT), true);
        assert_eq!((server.trace, server.parent), ([7; 16], Some(client.span)));
    }

    #[test]
    fn the_recipe_stays() {
        // Agents of different versions must agree: these numbers, got from another implementation, never change.
        let ids = wire(1).ids(Kind::Client, None, false);
        assert_eq!(
            (u128::from_be_bytes(ids.trace), u64::from_be_bytes(ids.span)),
            (0xdb79_a234_b6ad_ce20_17a9_ad3f_19f0_4b9b, 0xf8c1_7da5_e073_236c)
        );
    }

    #[test]
    fn each_request_has_its_own_ids() {
        let mut seen = std::collections::HashSet::new();
        for seq in 0..10_000 {
            let ids = wire(seq).ids(Kind::Client, None, false);
            assert!(seen.insert(ids.span));
            assert!(seen.insert(wire(seq).ids(Kind::Server, None, false).span));
        }
    }

    #[test]
    fn no_id_is_zero() {
        assert_eq!(valid([0; 8]), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(valid([3; 8]), [3; 8]);
    }
}
