//! What a rule says about paths and hosts, and when a path or host matches it.
//!
//! | as sent | judged as |
//! |---|---|
//! | percent-encoded unreserved character, or any encoded character that does not structure a path | the character (RFC 3986 §6.2.2.2) |
//! | `//` | `/` |
//! | `/./` | `/` |
//! | `/../` | without the segment before it (RFC 3986 §5.2.4); ambiguous |
//! | `;` in a segment | the segment's end; parameters are not compared |
//! | `?`, `#` | the path's end |
//! | `%2F`, `%5C`, `\`, encoded or raw control characters, raw octets above 0x7f | no pattern's character; ambiguous |
//! | any scheme, with an authority (absolute-form) | host, then path; the host wins over `Host` (RFC 9112 §3.2.2) |
//! | any scheme, without an authority | path |
//! | host in any case, with a port, with a trailing dot | the host in lower case |
//!
//! An ambiguous head is met by rules marked strict, whatever its path; other rules judge it by this table.

use std::fmt;

use weir_common::judge::SEGMENTS;

/// Longest pattern, bytes.
pub const PATTERN_MAX: usize = 256;

/// A pattern that can't be used: what is wrong and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {text:?}: {why}")]
pub struct PatternError {
    pub(super) key: &'static str,
    text: String,
    why: &'static str,
}

/// One segment of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// These symbols: characters as themselves, 256 + octet for an encoded octet that is not its character.
    Literal(Vec<u16>),
    /// Any one segment that is not empty.
    Any,
}

/// A path that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPattern {
    /// Its segments.
    pub segments: Vec<Segment>,
    /// The path has no further segments. Without it the pattern is a prefix, at segment boundaries.
    pub whole: bool,
    text: Box<str>,
}

impl PathPattern {
    /// Reads a pattern: `/login` is a prefix (`/login`, `/login/x`, not `/loginx`), `=/login` the path alone,
    /// `/orders/{id}` a template for the whole path.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let fail = |why| PatternError { key: "path", text: text.chars().take(PATTERN_MAX).collect(), why };
        if text.len() > PATTERN_MAX {
            return Err(fail("it is longer than 256 bytes"));
        }
        let (exact, path) = text.strip_prefix('=').map_or((false, text), |path| (true, path));
        let inner = path.strip_prefix('/').ok_or_else(|| fail("it must start with '/' (or '=/')"))?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let mut segments = Vec::new();
        if !inner.is_empty() {
            for part in inner.split('/') {
                segments.push(segment(part).map_err(fail)?);
            }
        }
        if segments.len() > SEGMENTS {
            return Err(fail("it has more than 14 segments: a shorter prefix meets the same and more"));
        }
        let template = segments.contains(&Segment::Any);
        Ok(Self { segments, whole: exact || template, text: text.into() })
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Matches a request target by the table above; the kernel half's machine is tested against this.
    #[must_use]
    pub fn matches(&self, target: &str) -> bool {
        let path = normal(target);
        let Some(path) = path else { return false };
        if path.len() < self.segments.len() || (self.whole && path.len() != self.segments.len()) {
            return false;
        }
        self.segments.iter().zip(&path).all(|(wanted, got)| match wanted {
            Segment::Any => !got.is_empty(),
            Segment::Literal(symbols) => symbols == got,
        })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn segment(part: &str) -> Result<Segment, &'static str> {
    if part.starts_with('{') && part.ends_with('}') {
        return Ok(Segment::Any);
    }
    if part == "." || part == ".." || part.is_empty() {
        return Err("it is not in canonical form: no '//', '/./' or '/../' (RFC 3986 §6.2.2)");
    }
    let mut symbols = Vec::with_capacity(part.len());
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        symbols.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err("'%' needs two hexadecimal digits");
                };
                match (high << 4 | low) as u8 {
                    b'/' | b'\\' | 0..0x20 | 0x7f => {
                        return Err("an encoded slash, backslash or control character is ambiguous: use a strict rule");
                    }
                    byte => decoded(byte),
                }
            }
            b'?' | b'#' => return Err("a path ends before '?' and '#'; queries are not compared"),
            b';' => return Err("parameters behind ';' are not compared"),
            b'{' | b'}' => return Err("a template's '{name}' must be a whole segment"),
            b'\\' => return Err("a backslash is ambiguous: use a strict rule"),
            b'!'..=b'~' => u16::from(byte),
            0x80.. => 256 + u16::from(byte),
            _ => return Err("a space or control character must be percent-encoded"),
        });
    }
    Ok(Segment::Literal(symbols))
}

/// An encoded octet as a symbol: the character itself, unless a path would read differently with it.
fn decoded(byte: u8) -> u16 {
    match byte {
        b'%' | b'?' | b'#' | b';' | b' ' | 0x80.. => 256 + u16::from(byte),
        _ => u16::from(byte),
    }
}

/// A target's path as segments of symbols, by the table above; absent for asterisk- and authority-form. Characters that
/// no pattern can name become symbol 0. A trailing slash adds no segment.
fn normal(target: &str) -> Option<Vec<Vec<u16>>> {
    let path = match target.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => match rest.strip_prefix("//") {
            Some(rest) => {
                rest.find(['/', '?', '#']).map_or("/", |at| if rest[at..].starts_with('/') { &rest[at..] } else { "/" })
            }
            None => rest,
        },
        _ => target,
    };
    let path = &path.as_bytes()[..path.bytes().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len())];
    if path.first() != Some(&b'/') {
        return None;
    }
    let mut out: Vec<Vec<u16>> = Vec::new();
    for part in path[1..].split(|&byte| byte == b'/') {
        let mut symbols = Vec::with_capacity(part.len());
        let mut at = 0;
        while let Some(&byte) = part.get(at) {
            at += 1;
            let encoded = (byte == b'%').then(|| {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                Some((digit(part.get(at)?)? << 4 | digit(part.get(at + 1)?)?) as u8)
            });
            symbols.push(match encoded {
                Some(Some(octet)) => {
                    at += 2;
                    match octet {
                        b'/' | b'\\' | 0..0x20 | 0x7f => 0,
                        octet => decoded(octet),
                    }
                }
                Some(None) => {
                    // The machine reads what can be a digit before it knows better.
                    at += usize::from(part.get(at).is_some_and(u8::is_ascii_hexdigit));
                    continue;
                }
                None if byte == b';' => break,
                None if matches!(byte, b'!'..=b'~') && byte != b'\\' => u16::from(byte),
                None => 0,
            });
        }
        match symbols.as_slice() {
            [] | [DOT] if !part.contains(&b';') => {}
            [DOT, DOT] if !part.contains(&b';') => drop(out.pop()),
            _ => out.push(symbols),
        }
    }
    Some(out)
}

const DOT: u16 = b'.' as u16;

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// A host that a rule names: lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    /// The name, or what follows `*.`.
    pub name: Box<str>,
    /// `*.`: any host below the name, not the name itself.
    pub below: bool,
}

impl HostPattern {
    /// Reads `shop.test`, `*.shop.test`, `192.0.2.1` or `[2001:db8::1]`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let fail = |why| PatternError { key: "server.host", text: text.chars().take(PATTERN_MAX).collect(), why };
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name.is_empty() || name.len() > 253 {
            return Err(fail("a host has 1 to 253 characters (RFC 1035 §2.3.4)"));
        }
        let literal = name.starts_with('[') && name.ends_with(']');
        let ok =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || (literal && b"[]:".contains(&byte));
        if !name.bytes().all(ok) {
            return Err(fail(
                "write the name alone, without scheme, port or path; '*.' only in front; IPv6 in brackets",
            ));
        }
        Ok(Self { name: name.into(), below })
    }

    /// Matches a host as sent, with or without a port.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = if host.starts_with('[') {
            host.find(']').map_or(host, |at| &host[..=at])
        } else {
            host.split(':').next().unwrap_or(host)
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if !self.below {
            return host == *self.name;
        }
        host.strip_suffix(&*self.name).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty())
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}
