//! The PROXY protocol's prefix (v1 text, v2 binary), which a load balancer may put before a connection's first byte.
//! It is only stepped over: its addresses are a claim of the sender and are not used.

/// Longest v1 line with its CRLF (PROXY protocol §2.1).
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
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
        (_, Some(&high), Some(&low)) => Prefix::Of(16 + usize::from(u16::from_be_bytes([high, low]))),
        _ => Prefix::Unsure,
    }
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
        assert_eq!(prefix(&bytes), Prefix::Of(28));
        for cut in 0..15 {
            assert_eq!(prefix(&bytes[..cut]), Prefix::Unsure, "{cut}");
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
