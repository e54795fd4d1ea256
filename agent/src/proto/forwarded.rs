//! `X-Forwarded-For` and `Forwarded` (RFC 7239): lists of addresses from which requests came.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::model::Hops;

/// Longest hop that is looked at, bytes: a quoted IPv6 address with port has under 50.
const LONGEST: usize = 64;

/// Takes a value of `X-Forwarded-For`. `cut`: its end is not there.
pub fn x_forwarded_for(value: &[u8], cut: bool, to: &mut Hops) {
    for hop in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
        to.add(address(hop));
    }
    if cut {
        to.add(None);
    }
}

/// Takes a value of `Forwarded`. `cut`: its end is not there.
pub fn forwarded(value: &[u8], cut: bool, to: &mut Hops) {
    for element in parts(value, b',').filter(|element| !element.is_empty()) {
        let mut named = parts(element, b';').filter_map(|pair| {
            let at = pair.iter().position(|&byte| byte == b'=')?;
            let (key, said) = (pair.get(..at)?, pair.get(at + 1..)?);
            key.eq_ignore_ascii_case(b"for").then_some(said)
        });
        // RFC 7239 §4: a parameter occurs once at most.
        let hop = named.next().filter(|_| named.next().is_none()).and_then(unquoted);
        to.add(hop.and_then(address));
    }
    if cut {
        to.add(None);
    }
}

/// Parts between separators that are not within quotes, without blanks around them.
fn parts(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let split = value.split(move |&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        byte == separator && !quoted
    });
    split.map(<[u8]>::trim_ascii)
}

/// A token, or what is in quotes; an address needs no escapes.
fn unquoted(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', inner @ .., b'"'] => Some(inner),
        [b'"', ..] => None,
        token => Some(token),
    }
}

/// An address: alone, in brackets, or with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= LONGEST)?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|end| end.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::HOPS;

    fn told(hops: &Hops) -> Vec<String> {
        hops.last.iter().map(|hop| hop.map_or_else(|| "-".to_owned(), |ip| ip.to_string())).collect()
    }

    fn x(value: &str) -> Vec<String> {
        let mut hops = Hops::default();
        x_forwarded_for(value.as_bytes(), false, &mut hops);
        told(&hops)
    }

    fn rfc(value: &str) -> Vec<String> {
        let mut hops = Hops::default();
        forwarded(value.as_bytes(), false, &mut hops);
        told(&hops)
    }

    #[test]
    fn lists_of_addresses() {
        assert_eq!(
            x("203.0.113.7, 198.51.100.2:4711 ,[2001:db8::1]:80,2001:db8::2"),
            ["203.0.113.7", "198.51.100.2", "2001:db8::1", "2001:db8::2"]
        );
        assert_eq!(
            x("unknown,, ::ffff:192.0.2.1,1.2.3,300.1.1.1,a.test, 1.1.1.1 2.2.2.2"),
            ["-", "192.0.2.1", "-", "-", "-", "-"]
        );
        assert_eq!(x(""), [""; 0]);
    }

    #[test]
    fn elements_of_rfc_7239() {
        assert_eq!(
            rfc("for=192.0.2.60;proto=http;by=203.0.113.43, For=\"[2001:db8:cafe::17]:4711\""),
            ["192.0.2.60", "2001:db8:cafe::17"]
        );
        // A separator within quotes, no `for`, a hidden one, two of them, quotes that do not end.
        assert_eq!(rfc("ext=\"a,b;for=1.1.1.1\";for=192.0.2.1"), ["192.0.2.1"]);
        assert_eq!(rfc("proto=http, for=_hidden, for=1.1.1.1;for=2.2.2.2"), ["-", "-", "-"]);
        assert_eq!(rfc("for=\"192.0.2.1, for=192.0.2.2"), ["-"]);
        assert_eq!(rfc("for=192.0.2.1, for=\"\\\"\", for=192.0.2.3"), ["192.0.2.1", "-", "192.0.2.3"]);
    }

    #[test]
    fn of_many_the_nearest_stay() {
        let mut hops = Hops::default();
        let many = (0..100).map(|i| format!("10.0.0.{i}")).collect::<Vec<_>>().join(",");
        x_forwarded_for(many.as_bytes(), false, &mut hops);
        assert!(hops.more && hops.last.len() == HOPS);
        assert_eq!(hops.last.last(), Some(&Some("10.0.0.99".parse().unwrap())));
        x_forwarded_for(b"10.0.0.1, 10.0.", true, &mut hops);
        assert_eq!(hops.last.last(), Some(&None));
    }

    proptest! {
        #[test]
        fn any_bytes_stay_within_bounds(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut hops = Hops::default();
            x_forwarded_for(&value, false, &mut hops);
            forwarded(&value, false, &mut hops);
            prop_assert!(hops.last.len() <= HOPS);
        }
    }
}
