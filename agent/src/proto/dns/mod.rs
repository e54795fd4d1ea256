//! DNS messages (RFC 1035 §4): questions for addresses, and what answers them.
//!
//! Of an answer only what belongs to its own question counts: addresses of the name that was asked for, or of the name
//! to which its aliases (CNAME) lead. Nothing is believed of any other name that stands in it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Addresses, Lookup};

/// `TYPE` and `CLASS` (RFC 1035 §3.2.2, §3.2.4; RFC 3596 §2.1).
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const IN: u16 = 1;
/// Longest name as text, bytes (RFC 1035 §2.3.4: 255 octets with lengths and the root).
const NAME: usize = 253;
/// Aliases that are followed; resolvers give up at 8 to 16.
const ALIASES: usize = 16;
/// Records that are looked at, and addresses that are taken.
const RECORDS: usize = 256;
const FOUND: usize = 64;

/// Why a message says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// It breaks RFC 1035, or is cut.
    Malformed,
    /// It asks, or answers, something else: not one question for addresses, a name that is no host's, an error.
    Other,
}

/// Reads a question.
///
/// # Errors
/// Where it is none for addresses.
pub fn question(message: &[u8]) -> Result<Lookup, Nothing> {
    let header = Header::read(message)?;
    if header.flags & 0xf800 != 0 {
        return Err(Nothing::Other);
    }
    header.lookup(message).map(|(lookup, _)| lookup)
}

/// Reads an answer. Addresses may be none: the name has none of this kind.
///
/// # Errors
/// Where it answers no question for addresses, or with an error, or says itself that it is cut.
pub fn answer(message: &[u8]) -> Result<Addresses, Nothing> {
    let header = Header::read(message)?;
    // QR, OPCODE, TC and RCODE.
    if header.flags & 0xfa0f != 0x8000 {
        return Err(Nothing::Other);
    }
    let (lookup, mut at) = header.lookup(message)?;
    let mut aliases = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..usize::from(header.answers).min(RECORDS) {
        let owner;
        (owner, at) = name(message, at)?;
        let (kind, class) = (number(message, at)?, number(message, at + 2)?);
        // RFC 2181 §8: a TTL with its first bit set is none.
        let ttl = Some(u32::from(number(message, at + 4)?) << 16 | u32::from(number(message, at + 6)?));
        let ttl = ttl.filter(|ttl| ttl >> 31 == 0).unwrap_or(0);
        let len = usize::from(number(message, at + 8)?);
        let data = message.get(at + 10..).and_then(|rest| rest.get(..len)).ok_or(Nothing::Malformed)?;
        match (class, kind) {
            (IN, CNAME) => aliases.push((owner, name(message, at + 10)?.0, ttl)),
            (IN, A) if !lookup.v6 => {
                let octets = <[u8; 4]>::try_from(data).map_err(|_| Nothing::Malformed)?;
                addresses.push((owner, IpAddr::V4(Ipv4Addr::from(octets)), ttl));
            }
            (IN, AAAA) if lookup.v6 => {
                let octets = <[u8; 16]>::try_from(data).map_err(|_| Nothing::Malformed)?;
                addresses.push((owner, IpAddr::V6(Ipv6Addr::from(octets)), ttl));
            }
            _ => {}
        }
        at += 10 + len;
    }
    let (mut current, mut most) = (lookup.name.to_string().into_bytes(), u32::MAX);
    for _ in 0..ALIASES {
        let Some((_, target, ttl)) = aliases.iter().find(|(owner, ..)| *owner == current) else { break };
        current.clone_from(target);
        most = most.min(*ttl);
    }
    let found = addresses.into_iter().filter(|(owner, ..)| *owner == current);
    let found = found.map(|(_, address, ttl)| (address, ttl.min(most))).take(FOUND).collect();
    Ok(Addresses { lookup, found })
}

struct Header {
    id: u16,
    flags: u16,
    questions: u16,
    answers: u16,
}

impl Header {
    fn read(message: &[u8]) -> Result<Self, Nothing> {
        let field = |at| number(message, at);
        let header = Self { id: field(0)?, flags: field(2)?, questions: field(4)?, answers: field(6)? };
        if message.len() < 12 { Err(Nothing::Malformed) } else { Ok(header) }
    }

    /// The one question, and what comes behind it.
    fn lookup(&self, message: &[u8]) -> Result<(Lookup, usize), Nothing> {
        if self.questions != 1 {
            return Err(Nothing::Other);
        }
        let (name, at) = name(message, 12)?;
        let (kind, class) = (number(message, at)?, number(message, at + 2)?);
        let host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if class != IN || ![A, AAAA].contains(&kind) || name.is_empty() || !name.iter().all(|&byte| host(byte)) {
            return Err(Nothing::Other);
        }
        let name = String::from_utf8(name).map_err(|_| Nothing::Other)?.into_boxed_str();
        Ok((Lookup { id: self.id, name, v6: kind == AAAA }, at + 4))
    }
}

fn number(message: &[u8], at: usize) -> Result<u16, Nothing> {
    let two = message.get(at..).and_then(|rest| rest.first_chunk::<2>()).ok_or(Nothing::Malformed)?;
    Ok(u16::from_be_bytes(*two))
}

/// Reads a name in lower case, and gives where it ends. A dot inside a label becomes a byte that no host's name has.
fn name(message: &[u8], start: usize) -> Result<(Vec<u8>, usize), Nothing> {
    let mut text = Vec::new();
    let (mut at, mut end, mut limit) = (start, None, start);
    loop {
        match message.get(at).copied().ok_or(Nothing::Malformed)? {
            0 => return Ok((text, end.unwrap_or(at + 1))),
            len @ 1..=63 => {
                let label = message.get(at + 1..).and_then(|rest| rest.get(..usize::from(len)));
                let label = label.ok_or(Nothing::Malformed)?;
                if !text.is_empty() {
                    text.push(b'.');
                }
                text.extend(label.iter().map(|byte| if *byte == b'.' { 0 } else { byte.to_ascii_lowercase() }));
                if text.len() > NAME {
                    return Err(Nothing::Malformed);
                }
                at += 1 + usize::from(len);
            }
            0xc0.. => {
                let to = usize::from(number(message, at)? & 0x3fff);
                end.get_or_insert(at + 2);
                // Each pointer leads further back than the one before: there are no loops.
                if to >= limit {
                    return Err(Nothing::Malformed);
                }
                (at, limit) = (to, to);
            }
            _ => return Err(Nothing::Malformed),
        }
    }
}

#[cfg(test)]
mod tests;
