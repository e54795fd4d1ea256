//! What a process's environment says about it (`/proc/PID/environ`: the environment at exec, which the process may
//! have overwritten since).
//!
//! Sources: OpenTelemetry specification, "Environment Variable Specification" and "Resource SDK".

use std::io::Read;
use std::sync::Arc;

/// Longest value that is used; a longer one is left out whole.
const VALUE: usize = 8 * 1024;
/// Most bytes of an environment that are looked at.
const ENVIRONMENT: u64 = 8 * 1024 * 1024;
/// Most attributes of `OTEL_RESOURCE_ATTRIBUTES`.
const ATTRIBUTES: usize = 64;

/// Resource facts of an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environ {
    /// `OTEL_SERVICE_NAME`, if not empty.
    pub(super) service_name: Option<Arc<str>>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, decoded, in the order given; empty if any part of it is malformed.
    pub(super) attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl Environ {
    /// An attribute of `OTEL_RESOURCE_ATTRIBUTES`; the last one wins.
    pub(super) fn attribute(&self, key: &str) -> Option<&Arc<str>> {
        self.attributes.iter().rev().find(|(name, _)| &**name == key).map(|(_, value)| value)
    }
}

/// Reads `NAME=value` strings, NUL between them, in constant memory. An I/O error ends the environment: what was
/// read until then is used.
pub(super) fn scan(mut from: impl Read) -> Environ {
    let mut found = Environ::default();
    let mut variable = Vec::new();
    let mut overlong = false;
    let mut chunk = vec![0; 32 * 1024];
    let mut left = ENVIRONMENT;
    while left > 0 {
        let n = match from.read(&mut chunk) {
            Ok(n) if n > 0 => n,
            _ => break,
        };
        left = left.saturating_sub(n as u64);
        let mut parts = chunk.get(..n).unwrap_or_default().split(|&byte| byte == 0).peekable();
        while let Some(part) = parts.next() {
            if variable.len() + part.len() > VALUE {
                overlong = true;
            } else {
                variable.extend_from_slice(part);
            }
            if parts.peek().is_some() {
                if !overlong {
                    found.take(&variable);
                }
                variable.clear();
                overlong = false;
            }
        }
    }
    if !overlong {
        found.take(&variable);
    }
    found
}

impl Environ {
    fn take(&mut self, variable: &[u8]) {
        if let Some(value) = variable.strip_prefix(b"OTEL_SERVICE_NAME=") {
            self.service_name = std::str::from_utf8(value).ok().and_then(clean);
        } else if let Some(value) = variable.strip_prefix(b"OTEL_RESOURCE_ATTRIBUTES=") {
            self.attributes = std::str::from_utf8(value).ok().and_then(attributes).unwrap_or_default();
        }
    }
}

/// `key=value` pairs, comma between them, both percent-encoded. Any error discards all of it, as the specification
/// asks.
fn attributes(text: &str) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let mut list = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (percent(key.trim())?, percent(value.trim())?);
        let key = clean(&key)?;
        if let Some(value) = clean(&value)
            && list.len() < ATTRIBUTES
        {
            list.push((key, value));
        }
    }
    Some(list)
}

/// Percent-decoding (RFC 3986 §2.1); `None` for a bad escape or for what is no UTF-8.
fn percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Longest name or attribute value, in bytes.
const NAME: usize = 255;

/// A name fit to be shown and exported: no control characters, no white space around it, at most 255 bytes. `None` if
/// nothing is left.
pub(super) fn clean(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if text.len() <= NAME && !text.chars().any(char::is_control) {
        return Some(Arc::from(text));
    }
    let mut out = String::with_capacity(NAME);
    for c in text.chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        if out.len() + c.len_utf8() > NAME {
            break;
        }
        out.push(c);
    }
    Some(Arc::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(environ: &Environ) -> Vec<(&str, &str)> {
        environ.attributes.iter().map(|(key, value)| (&**key, &**value)).collect()
    }

    #[test]
    fn both_variables_are_found_anywhere() {
        let environ = scan(
            &b"PATH=/bin\0OTEL_SERVICE_NAME=shop\0A=\0OTEL_RESOURCE_ATTRIBUTES=service.name=x,service.version=1%2C2\0"
                [..],
        );
        assert_eq!(environ.service_name.as_deref(), Some("shop"));
        assert_eq!(pairs(&environ), [("service.name", "x"), ("service.version", "1,2")]);
    }

    #[test]
    fn an_environment_of_one_megabyte_is_read_in_pieces() {
        let mut bytes = Vec::new();
        for i in 0..32 {
            bytes.extend_from_slice(format!("PAD{i}=").as_bytes());
            bytes.resize(bytes.len() + 32 * 1024 - 7, b'x');
            bytes.push(0);
        }
        bytes.extend_from_slice(b"OTEL_SERVICE_NAME=after\0");
        assert_eq!(scan(&bytes[..]).service_name.as_deref(), Some("after"));
    }

    #[test]
    fn malformed_attributes_are_discarded_whole() {
        for bad in ["a=b,c", "a=%zz", "a=%f", "a=%ff", "=b", "a=b,=c"] {
            let environ = scan(format!("OTEL_RESOURCE_ATTRIBUTES={bad}\0").as_bytes());
            assert_eq!(pairs(&environ), [], "{bad}");
        }
        assert_eq!(pairs(&scan(&b"OTEL_RESOURCE_ATTRIBUTES= a = b , c=%20 ,d=e=f,\0"[..])), [("a", "b"), ("d", "e=f")]);
    }

    #[test]
    fn hostile_names_are_made_harmless() {
        assert_eq!(scan(&b"OTEL_SERVICE_NAME=\xff\xfe\0"[..]).service_name, None);
        assert_eq!(scan(&b"OTEL_SERVICE_NAME=  \0"[..]).service_name, None);
        assert_eq!(
            scan(&b"OTEL_SERVICE_NAME=a\nb\x1b[2J\0"[..]).service_name.as_deref(),
            Some("a\u{fffd}b\u{fffd}[2J")
        );
        let long = format!("OTEL_SERVICE_NAME={}\0", "é".repeat(200));
        assert_eq!(scan(long.as_bytes()).service_name.map(|name| name.len()), Some(254));
        let huge = [b"OTEL_SERVICE_NAME=".as_slice(), "x".repeat(100_000).as_bytes(), b"\0X=1\0"].concat();
        assert_eq!(scan(&huge[..]), Environ::default());
    }

    #[test]
    fn a_variable_whose_name_only_starts_so_is_another() {
        assert_eq!(scan(&b"OTEL_SERVICE_NAMES=a\0XOTEL_SERVICE_NAME=b\0"[..]), Environ::default());
    }
}
