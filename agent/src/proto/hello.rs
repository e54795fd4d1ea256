//! What a TLS client says first, in clear (RFC 8446 §4.1.2; the same since TLS 1.0): the name that it asks for.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

/// Record type and handshake type (RFC 8446 §5.1, §4).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// `server_name` and its only kind of name (RFC 6066 §3).
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Longest name, bytes (RFC 1035 §2.3.4).
const NAME: usize = 253;
/// Records that one hello is looked for in, and bytes of it that are looked at.
const RECORDS: usize = 16;
const HELLO: usize = 16 * 1024;

/// The host that a client's first bytes name (SNI), in lower case and without the root's dot. `None`: they name none, or
/// it stands behind what was kept, or it is no host's name. Where the client hides its hello (ECH), it is the name of
/// who unwraps it.
#[must_use]
pub fn server_name(bytes: &[u8]) -> Option<Box<str>> {
    let hello = handshake(bytes);
    let mut rest = Rest(&hello);
    if rest.byte()? != CLIENT_HELLO {
        return None;
    }
    // Length, version, random; session id, cipher suites, compression methods; length of the extensions.
    rest.take(3 + 2 + 32)?;
    rest.short_vector()?;
    rest.vector()?;
    rest.short_vector()?;
    rest.take(2)?;
    // What is cut at the end gives `None`: an extension counts only when it is whole.
    loop {
        let kind = rest.number()?;
        let data = rest.vector()?;
        if kind == SERVER_NAME {
            return name(data);
        }
    }
}

/// The handshake bytes of the records, which may share a hello in any way.
fn handshake(bytes: &[u8]) -> Vec<u8> {
    let mut rest = Rest(bytes);
    let mut hello = Vec::new();
    for _ in 0..RECORDS {
        let (Some(HANDSHAKE), Some([3, _])) = (rest.byte(), rest.take(2)) else { break };
        let Some(len) = rest.number() else { break };
        let whole = rest.0.get(..usize::from(len));
        hello.extend_from_slice(whole.unwrap_or(rest.0));
        if whole.is_none() || hello.len() > HELLO {
            break;
        }
        rest.take(usize::from(len));
    }
    hello
}

/// The first host's name of an extension's data.
fn name(data: &[u8]) -> Option<Box<str>> {
    let mut rest = Rest(data);
    let mut names = Rest(rest.vector()?);
    if names.byte()? != HOST_NAME {
        return None;
    }
    let name = names.vector()?;
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if name.is_empty() || name.len() > NAME || !name.iter().all(is_host) {
        return None;
    }
    let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
    // RFC 6066 §3: no addresses.
    name.parse::<std::net::IpAddr>().is_err().then(|| name.into_boxed_str())
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    /// Bytes behind their length of one byte.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let len = self.byte()?;
        self.take(len.into())
    }

    /// Bytes behind their length of two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(len.into())
    }
}

#[cfg(test)]
mod tests {
    use super::server_name;

    /// A hello whose extensions are these, in records of at most `step` bytes.
    fn hello(extensions: &[(u16, Vec<u8>)], step: usize) -> Vec<u8> {
        let vector = |data: &[u8]| [&(data.len() as u16).to_be_bytes()[..], data].concat();
        let all: Vec<u8> =
            extensions.iter().flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &vector(data)].concat()).collect();
        let body =
            [&[3, 3][..], &[7; 32], &[32], &[9; 32], &vector(&[0x13, 1, 0x13, 2]), &[1, 0], &vector(&all)].concat();
        let message = [&[1, 0][..], &vector(&body)].concat();
        message.chunks(step).flat_map(|part| [&[22, 3, 1][..], &vector(part)].concat()).collect()
    }

    fn sni(name: &[u8]) -> (u16, Vec<u8>) {
        let len = name.len() as u16;
        (0, [&(len + 3).to_be_bytes()[..], &[0], &len.to_be_bytes(), name].concat())
    }

    #[test]
    fn the_name_is_found_wherever_it_stands() {
        let large = (51, vec![5; 1216]);
        for step in [100, 500, 16_000] {
            for extensions in [
                vec![sni(b"Shop.Test")],
                vec![large.clone(), sni(b"shop.test.")],
                vec![sni(b"shop.test"), large.clone()],
            ] {
                assert_eq!(server_name(&hello(&extensions, step)).as_deref(), Some("shop.test"), "{step}");
            }
        }
        // A hello of a record for each byte is none that anyone sends.
        assert_eq!(server_name(&hello(&[sni(b"shop.test")], 1)), None);
    }

    #[test]
    fn what_is_cut_or_no_name_is_none() {
        let whole = hello(&[(23, vec![]), sni(b"shop.test"), (51, vec![5; 100])], 16_000);
        let end = whole.windows(9).position(|part| part == b"shop.test").unwrap() + 9;
        for len in 0..whole.len() {
            assert_eq!(server_name(&whole[..len]).as_deref(), (len >= end).then_some("shop.test"), "{len}");
        }
        let hostile: [&[u8]; 8] =
            [b"", b".", b"a b", b"x\n\"y", &[0xff, 0xfe], &[b'a'; 254], b"10.0.0.1", "ä.test".as_bytes()];
        for name in hostile {
            assert_eq!(server_name(&hello(&[sni(name)], 16_000)), None, "{name:?}");
        }
        assert_eq!(server_name(&hello(&[], 16_000)), None);
        assert_eq!(server_name(&hello(&[(0, vec![])], 16_000)), None);
        assert_eq!(server_name(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), None);
    }
}
