//! Start lines: the request line and the status line (RFC 9112 §3, §4).

use crate::model::{Method, Version};
use crate::proto::Guess;
use crate::proto::proxy::{self, Prefix};

/// Kept of a method that is not known by name, in bytes.
const METHOD_KEPT: usize = 32;
/// Longest method that is believed, in bytes: longer tokens are not HTTP.
const METHOD_MAX: usize = 256;
/// Kept of a request target, in bytes.
pub(super) const TARGET_KEPT: usize = 8192;
/// ` HTTP/1.x`.
const VERSION_LEN: usize = 9;

/// RFC 9110 §9, RFC 5789, RFC 4918, RFC 3253, RFC 3648, RFC 3744, RFC 5323, RFC 4791.
const KNOWN: [&str; 31] = [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "PATCH",
    "OPTIONS",
    "CONNECT",
    "TRACE",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "VERSION-CONTROL",
    "REPORT",
    "CHECKOUT",
    "CHECKIN",
    "UNCHECKOUT",
    "MKWORKSPACE",
    "UPDATE",
    "LABEL",
    "MERGE",
    "BASELINE-CONTROL",
    "MKACTIVITY",
    "ORDERPATCH",
    "ACL",
    "SEARCH",
    "MKCALENDAR",
];

/// A request line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) target: Box<str>,
    pub(super) version: Version,
    /// The target is longer than what was kept.
    pub(super) cut: bool,
}

impl RequestLine {
    /// From the parts that a parser found; `None` where the method is not believed.
    pub(super) fn new(method: &str, target: &[u8], version: Version) -> Option<Self> {
        let kept = target.get(..TARGET_KEPT).unwrap_or(target);
        let cut = kept.len() < target.len();
        (method.len() <= METHOD_MAX).then(|| Self { method: self::method(method), target: text(kept), version, cut })
    }
}

/// Bytes as text: what is not UTF-8 becomes U+FFFD, a character cut at the end is left off.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default()).into()
        }
        Err(_) => String::from_utf8_lossy(bytes).into(),
    }
}

fn method(name: &str) -> Method {
    match KNOWN.iter().find(|&&known| known == name) {
        Some(known) => Method::Known(known),
        // A token is ASCII, so the cut is at a character.
        None => Method::Other(name.get(..METHOD_KEPT).unwrap_or(name).into()),
    }
}

/// RFC 9110 §5.6.2.
fn token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn token(bytes: &[u8]) -> Option<&str> {
    let fine = !bytes.is_empty() && bytes.len() <= METHOD_MAX && bytes.iter().all(|&byte| token_byte(byte));
    if fine { std::str::from_utf8(bytes).ok() } else { None }
}

fn control(byte: u8) -> bool {
    byte < b' ' || byte == 0x7f
}

fn version(last: &[u8]) -> Option<Version> {
    match last.strip_prefix(b" HTTP/1.")? {
        b"0" => Some(Version::Http10),
        [b'1'..=b'9'] => Some(Version::Http11),
        _ => None,
    }
}

/// Takes a line apart, its line end already off. More than one space between the parts and spaces behind them are
/// accepted, as RFC 9112 §3 lets a recipient do; a space inside the target is taken as part of it (a server answers
/// such a line with 400, and that is a call too).
///
/// `end` is the line's last bytes when `line` was cut, and else empty.
pub(super) fn request(line: &[u8], end: &[u8]) -> Option<RequestLine> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    let (method, rest) = line.split_at_checked(space)?;
    let method = token(method)?;
    if line.iter().chain(end).any(|&byte| control(byte)) {
        return None;
    }
    if end.is_empty() {
        let rest = rest.trim_ascii_end();
        let (target, last) = rest.split_at_checked(rest.len().checked_sub(VERSION_LEN)?)?;
        let target = target.trim_ascii();
        if target.is_empty() { None } else { RequestLine::new(method, target, version(last)?) }
    } else {
        // The version may lie across the cut.
        let last = line.len().saturating_sub(VERSION_LEN);
        let end = [line.get(last..)?, end].concat();
        let end = end.trim_ascii_end();
        let last = end.get(end.len().checked_sub(VERSION_LEN)?..)?;
        Some(RequestLine { cut: true, ..RequestLine::new(method, rest.trim_ascii_start(), version(last)?)? })
    }
}

/// The beginning of a line can still become a request line.
pub(super) fn request_begun(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let method = line.iter().position(|&byte| byte == b' ').and_then(|space| line.get(..space)).unwrap_or(line);
    (line.is_empty() || token(method).is_some()) && !line.iter().any(|&byte| control(byte))
}

/// Reads a status line, its line end already off. Any reason phrase will do.
pub(super) fn response(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [b'0'..=b'9', b' ', hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] = rest else {
        return None;
    };
    let code = u16::from(hundreds - b'0') * 100 + u16::from(tens - b'0') * 10 + u16::from(ones - b'0');
    matches!(rest, [] | [b' ', ..]).then_some(code)
}

/// The beginning of a line can still become a status line.
pub(super) fn response_begun(line: &[u8]) -> bool {
    matches!(line, [] | [b'\r']) || line.iter().zip(b"HTTP/1.").all(|(a, b)| a == b)
}

/// The first line of a chunk, without its line end; `None` while there is no line end.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = bytes.get(..end)?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// The chunk certainly starts with a request: a whole request line is at its start.
pub(super) fn starts_request(bytes: &[u8]) -> bool {
    request_line(bytes).is_some()
}

/// Methods of RFC 9110 §9.3 and RFC 5789.
const USUAL: [&str; 9] = ["GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "CONNECT ", "OPTIONS ", "TRACE ", "PATCH "];

/// The chunk starts with a usual method: the rest of a longer one looks like none of them, but for `PROPPATCH`'s.
pub(super) fn starts_usually(bytes: &[u8]) -> bool {
    USUAL.iter().any(|method| bytes.starts_with(method.as_bytes()))
}

/// The request line that the chunk certainly starts with.
pub(super) fn request_line(bytes: &[u8]) -> Option<RequestLine> {
    bytes.first().filter(|&&byte| token_byte(byte)).and_then(|_| request(first_line(bytes)?, b""))
}

/// The chunk certainly starts with a response: `HTTP/1.x` SP 3DIGIT, then a space or the line's end.
pub(super) fn starts_response(bytes: &[u8]) -> bool {
    bytes.get(..12).is_some_and(|start| response(start).is_some())
        && bytes.get(12).is_none_or(|byte| matches!(byte, b' ' | b'\r' | b'\n'))
}

/// First bytes by which a request line without an end is believed, unless they speak against it.
const BELIEVED: usize = 64;

/// What a connection's first bytes say of HTTP/1.
///
/// A whole start line is certain. A request line that has no end after 64 bytes is believed, to be judged when it ends;
/// so is a PROXY protocol prefix of that length.
pub(super) fn guess(client: &[u8], server: &[u8]) -> Guess {
    if client.is_empty() {
        return match server {
            [] => Guess::More,
            _ if starts_response(server) => Guess::Yes,
            _ if server.len() < 13 && response_begun(server) => Guess::More,
            _ => Guess::No,
        };
    }
    let undecided = if client.len() < BELIEVED { Guess::More } else { Guess::Likely };
    let rest = match proxy::prefix(client) {
        Prefix::Absent => client,
        Prefix::Of(len) => client.get(len..).unwrap_or_default(),
        Prefix::Unsure => return undecided,
    };
    let empty = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let rest = rest.get(empty..).unwrap_or_default();
    match first_line(rest) {
        Some(_) if starts_request(rest) => Guess::Yes,
        None if request_begun(rest) => undecided,
        _ => Guess::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str) -> Option<(String, String, Version)> {
        request(line.as_bytes(), b"").map(|line| (line.method.as_str().into(), line.target.into(), line.version))
    }

    #[test]
    fn request_lines() {
        let same = |method: &str, target: &str, version| Some((method.to_owned(), target.to_owned(), version));
        assert_eq!(parts("GET / HTTP/1.1"), same("GET", "/", Version::Http11));
        assert_eq!(parts("GET / HTTP/1.0"), same("GET", "/", Version::Http10));
        assert_eq!(parts("GET / HTTP/1.7"), same("GET", "/", Version::Http11));
        assert_eq!(parts("get  /a b  HTTP/1.1 "), same("get", "/a b", Version::Http11));
        assert_eq!(parts("OPTIONS * HTTP/1.1"), same("OPTIONS", "*", Version::Http11));
        assert_eq!(parts("CONNECT a:443 HTTP/1.1"), same("CONNECT", "a:443", Version::Http11));
        for bad in [
            "",
            "GET",
            "GET /",
            "GET HTTP/1.1",
            "GET  HTTP/1.1",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "GET / HTTP/1.",
            "GET / HTTP/1.11",
            "G@T / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET /\u{1} HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            assert_eq!(parts(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn long_ones_are_cut() {
        let long = format!("GET /{} HTTP/1.1", "x".repeat(TARGET_KEPT));
        let line = request(long.as_bytes(), b"").unwrap();
        assert_eq!((line.target.len(), line.cut), (TARGET_KEPT, true));
        let line = request(b"GET /xxx", b"xx HTTP/1.0").unwrap();
        assert_eq!((&*line.target, line.version, line.cut), ("/xxx", Version::Http10, true));
        let other = request(format!("{} / HTTP/1.1", "M".repeat(40)).as_bytes(), b"").unwrap();
        assert_eq!(other.method, Method::Other("M".repeat(32).into()));
        assert_eq!(request(format!("{} / HTTP/1.1", "M".repeat(257)).as_bytes(), b""), None);
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(method("MKCALENDAR"), Method::Known("MKCALENDAR"));
        assert_eq!(method("get"), Method::Other("get".into()));
    }

    #[test]
    fn status_lines() {
        assert_eq!(response(b"HTTP/1.1 200 OK"), Some(200));
        assert_eq!(response(b"HTTP/1.0 404"), Some(404));
        assert_eq!(response(b"HTTP/1.1 999 "), Some(999));
        for bad in
            [&b"HTTP/1.1 2000"[..], b"HTTP/1.1 099 x", b"HTTP/2 200", b"HTTP/1.1  200", b"http/1.1 200", b"ICY 200 OK"]
        {
            assert_eq!(response(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn guesses() {
        assert_eq!(guess(b"GET / HTTP/1.1\r\n", b""), Guess::Yes);
        assert_eq!(guess(b"\r\nGET / HTTP/1.1\n", b""), Guess::Yes);
        assert_eq!(guess(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\n", b""), Guess::Yes);
        assert_eq!(guess(format!("BREW /{}", "x".repeat(60)).as_bytes(), b""), Guess::Likely);
        assert_eq!(guess(b"", b"HTTP/1.1 200 OK\r\n"), Guess::Yes);
        for more in [&b"G"[..], b"GET / HTTP/1.1", b"PROXY TCP4 1.2.3.4", b"\r", b"PRI * HTTP"] {
            assert_eq!(guess(more, b""), Guess::More, "{more:?}");
        }
        assert_eq!(guess(b"", b"HTTP/1"), Guess::More);
        for no in [&b"GET /\r\n"[..], b"\x16\x03\x01", b"*1\r\n", b"PRI * HTTP/2.0\r\n", b"\0\0\0\x08"] {
            assert_eq!(guess(no, b""), Guess::No, "{no:?}");
        }
        for no in [&b"SSH-2.0-x"[..], b"220 mail", b"HTTP/2 200\r\n", b"HTTP/1.1 20x OK\r\n"] {
            assert_eq!(guess(b"", no), Guess::No, "{no:?}");
        }
    }

    #[test]
    fn text_is_always_text() {
        assert_eq!(&*text("a\u{e4}".as_bytes()), "a\u{e4}");
        assert_eq!(&*text(&"a\u{e4}".as_bytes()[..2]), "a");
        assert_eq!(&*text(b"a\xffb"), "a\u{fffd}b");
    }
}
