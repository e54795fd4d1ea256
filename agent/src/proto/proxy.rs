//! The PROXY protocol's prefix (v1 text, v2 binary), which a load balancer may put before a connection's first byte.
//! Its source address is a claim of the sender: it counts where the sender is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest v1 line with its CRLF (PROXY protocol §2.1).
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Header, and what of its addresses is waited for (§2.2: two IPv6 addresses and ports).
const V2_HEADER: usize = 16;
const V2_ADDRESSES: usize = 36;
const V1_STARTS: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];

/// What a connection's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// No prefix.
    Absent,
    /// A prefix of this many bytes, possibly more than are there yet.
    Of(usize),
    /// So far it could be one: ask again with more bytes. Never said of more than [`V1_MAX`] bytes.
    Unsure,
}

/// Looks at the first bytes of a connection.
#[must_use]
pub fn prefix(bytes: &[u8]) -> Prefix {
    match bytes.first() {
        Some(b'P') => v1(bytes),
        Some(b'\r') => v2(bytes),
        Some(_) => Prefix::Absent,
        None => Prefix::Unsure,
    }
}

fn v1(bytes: &[u8]) -> Prefix {
    let begun = |start: &&&[u8]| bytes.iter().zip(start.iter()).all(|(a, b)| a == b);
    let Some(start) = V1_STARTS.iter().find(begun) else { return Prefix::Absent };
    if bytes.len() < start.len() {
        return Prefix::Unsure;
    }
    match bytes.iter().take(V1_MAX).position(|&byte| byte == b'\n') {
        Some(end) => Prefix::Of(end + 1),
        None if bytes.len() < V1_MAX => Prefix::Unsure,
        None => Prefix::Absent,
    }
}

fn v2(bytes: &[u8]) -> Prefix {
    if !bytes.iter().zip(V2_SIGNATURE).all(|(a, b)| a == b) {
        return Prefix::Absent;
    }
    match (bytes.get(12), bytes.get(14), bytes.get(15)) {
        (Some(version), ..) if version >> 4 != 2 => Prefix::Absent,
        (_, Some(&high), Some(&low)) => {
            let len = usize::from(u16::from_be_bytes([high, low]));
            let there = bytes.len() >= V2_HEADER + len.min(V2_ADDRESSES);
            if there { Prefix::Of(V2_HEADER + len) } else { Prefix::Unsure }
        }
        _ => Prefix::Unsure,
    }
}

/// The address that the prefix names as the connection's source, once [`prefix`] has said how long it is; `None`: it
/// names none (`UNKNOWN`, `LOCAL`, another family), or is malformed.
#[must_use]
pub fn source(bytes: &[u8]) -> Option<IpAddr> {
    if bytes.first() == Some(&b'P') {
        let line = bytes.iter().take(V1_MAX).position(|&byte| byte == b'\n').and_then(|end| bytes.get(..end))?;
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\r')?;
        let mut words = line.split(' ').skip(1);
        let (family, source, target) = (words.next()?, words.next()?, words.next()?);
        let ports = [words.next()?, words.next()?];
        if words.next().is_some() || ports.iter().any(|port| port.parse::<u16>().is_err()) {
            return None;
        }
        let (source, target) = (source.parse::<IpAddr>().ok()?, target.parse::<IpAddr>().ok()?);
        let four = match family {
            "TCP4" => true,
            "TCP6" => false,
            _ => return None,
        };
        return (source.is_ipv4() == four && target.is_ipv4() == four).then(|| source.to_canonical());
    }
    let len = u16::from_be_bytes([*bytes.get(14)?, *bytes.get(15)?]);
    let addresses = bytes.get(V2_HEADER..)?;
    // Version 2 and PROXY; TCP over IPv4, over IPv6.
    let ip = match (bytes.get(12)?, bytes.get(13)?) {
        (0x21, 0x11) if len >= 12 => IpAddr::V4(Ipv4Addr::from(*addresses.first_chunk::<4>()?)),
        (0x21, 0x21) if len >= 36 => IpAddr::V6(Ipv6Addr::from(*addresses.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_is_a_line() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n";
        assert_eq!(prefix(line), Prefix::Of(36));
        assert_eq!(prefix(b"PROXY UNKNOWN\r\n"), Prefix::Of(15));
        for cut in 0..35 {
            assert_eq!(prefix(&line[..cut]), Prefix::Unsure, "{cut}");
        }
    }

    #[test]
    fn v2_is_counted() {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([0x21, 0x11, 0, 12]);
        bytes.extend([192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2]);
        assert_eq!(prefix(&bytes), Prefix::Of(28));
        for cut in 0..28 {
            assert_eq!(prefix(&bytes[..cut]), Prefix::Unsure, "{cut}");
        }
        // Of a long one no more than its addresses is waited for.
        bytes[14] = 0xff;
        assert_eq!(prefix(&bytes), Prefix::Unsure);
        bytes.resize(16 + 36, 0);
        assert_eq!(prefix(&bytes), Prefix::Of(16 + 0xff0c));
    }

    #[test]
    fn sources_are_told() {
        let v1 = |line: &str| source(line.as_bytes()).map(|ip| ip.to_string());
        assert_eq!(v1("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").as_deref(), Some("192.0.2.1"));
        assert_eq!(v1("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n").as_deref(), Some("2001:db8::1"));
        for line in [
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 70000\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        ] {
            assert_eq!(v1(line), None, "{line:?}");
        }
        let v2 = |head: [u8; 4]| {
            let mut bytes = V2_SIGNATURE.to_vec();
            bytes.extend(head);
            bytes.extend([0xfd; 36]);
            source(&bytes).map(|ip| ip.to_string())
        };
        assert_eq!(v2([0x21, 0x11, 0, 12]).as_deref(), Some("253.253.253.253"));
        assert!(v2([0x21, 0x21, 0, 36]).is_some_and(|ip| ip.starts_with("fdfd:")));
        for head in [[0x20, 0x11, 0, 12], [0x21, 0x12, 0, 12], [0x21, 0x31, 0, 216], [0x21, 0x21, 0, 12]] {
            assert_eq!(v2(head), None, "{head:?}");
        }
    }

    #[test]
    fn requests_are_not_prefixes() {
        for bytes in [
            &b"POST / HTTP/1.1"[..],
            b"PROXY / HTTP/1.1",
            b"PROPFIND",
            b"\r\nGET",
            b"GET",
            &[b'\r', b'\n', b'\r', b'\n', 1],
        ] {
            assert_eq!(prefix(bytes), Prefix::Absent, "{bytes:?}");
        }
        let mut endless = b"PROXY TCP6 ".to_vec();
        endless.resize(V1_MAX, b'f');
        assert_eq!(prefix(&endless), Prefix::Absent);
    }
}
