//! Message heads: at once from a slice (httparse), or line by line from pieces.
//!
//! The slow way takes what httparse refuses or can't see whole: heads in pieces, of any length, obs-fold (RFC 9112
//! §5.2), versions 1.2 to 1.9, more than [`FIELDS`] fields, lines that are no fields (left out). Where both can read a
//! head, both read the same (a property test compares them). It keeps a line, never the whole head.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};

use crate::model::{Stamp, Version};
use crate::proto::Side;

use super::fields::Fields;
use super::line::{self, RequestLine, TARGET_KEPT};

/// Fields that the fast way has room for.
const FIELDS: usize = 64;
/// Kept of a line, in bytes: longer ones lose their rest, which is scanned but not kept.
const LINE_KEPT: usize = TARGET_KEPT + 1024;
/// Kept of a request's head as it was sent, in bytes, where it is not of the plain form.
const SENT_KEPT: usize = 16 * 1024;
/// Kept of the end of such a line, in bytes: enough for ` HTTP/1.1` and spaces behind it.
const END_KEPT: usize = 16;

/// A start line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    Request(RequestLine),
    /// Status code, 100..=999.
    Response(u16),
}

/// A message head, or what was seen of it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) start: Start,
    pub(super) fields: Fields,
    pub(super) first: Stamp,
    /// Bytes on the wire.
    pub(super) wire: u64,
    /// When its last byte passed.
    pub(super) last_at: u64,
    /// Its end was not seen.
    pub(super) cut: bool,
    /// A request's as it was sent, up to [`SENT_KEPT`], unless it is plain: nothing about it but its target can be read
    /// differently.
    pub(super) sent: Option<Box<[u8]>>,
}

/// Reads a whole head at the start of `bytes`, where that can be done at once.
pub(super) fn at_once(side: Side, bytes: &[u8], first: Stamp) -> Option<Head> {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS];
    let config = ParserConfig::default();
    let (start, headers, wire) = match side {
        Side::Client => {
            let mut request = httparse::Request::new(&mut []);
            let parsed = config.parse_request_with_uninit_headers(&mut request, bytes, &mut headers);
            let Ok(Status::Complete(wire)) = parsed else { return None };
            let version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
            let line = RequestLine::new(request.method?, request.path?.as_bytes(), version)?;
            (Start::Request(line), request.headers, wire)
        }
        Side::Server => {
            let mut response = httparse::Response::new(&mut []);
            let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
            let Ok(Status::Complete(wire)) = parsed else { return None };
            let code = response.code.filter(|&code| code >= 100)?;
            (Start::Response(code), response.headers, wire)
        }
    };
    let mut fields = Fields::default();
    for header in headers.iter() {
        fields.add(header.name.as_bytes(), header.value, false);
    }
    let odd = matches!(&start, Start::Request(line) if fields.odd(line.version));
    let sent = odd.then(|| bytes.get(..wire.min(SENT_KEPT)).unwrap_or(bytes).into());
    Some(Head { start, fields, first, wire: wire as u64, last_at: first.at, cut: false, sent })
}

/// What a [`Scanner`] made of its bytes.
#[derive(Debug)]
pub(super) enum Scanned {
    /// All of them; the head goes on.
    More,
    /// This many; the head is whole.
    Whole(usize),
    /// This is no start line.
    Invalid,
}

/// Reads a head in pieces. Holds at most two lines of [`LINE_KEPT`] bytes, [`SENT_KEPT`] of the whole, and what
/// [`Fields`] keeps.
#[derive(Debug)]
pub(super) struct Scanner {
    side: Side,
    start: Option<Start>,
    fields: Fields,
    first: Option<Stamp>,
    wire: u64,
    last_at: u64,
    /// The line that is being read, without its line end.
    line: Line,
    /// The field before it, which may go on in it (obs-fold).
    field: Line,
    /// A request's head as it was sent.
    sent: Vec<u8>,
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// Last bytes of a line that is longer than [`LINE_KEPT`].
    end: Vec<u8>,
}

impl Line {
    fn push(&mut self, piece: &[u8]) {
        let room = LINE_KEPT.saturating_sub(self.bytes.len()).min(piece.len());
        let (fits, rest) = piece.split_at_checked(room).unwrap_or((piece, &[]));
        self.bytes.extend_from_slice(fits);
        if !rest.is_empty() {
            let last = rest.len().saturating_sub(END_KEPT);
            self.end.extend_from_slice(rest.get(last..).unwrap_or_default());
            self.end.drain(..self.end.len().saturating_sub(END_KEPT));
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.end.clear();
    }

    fn cut(&self) -> bool {
        !self.end.is_empty()
    }

    /// Takes the CR of a CRLF off.
    fn trim(&mut self) {
        let last = if self.cut() { &mut self.end } else { &mut self.bytes };
        last.pop_if(|byte| *byte == b'\r');
    }
}

impl Scanner {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            start: None,
            fields: Fields::default(),
            first: None,
            wire: 0,
            last_at: 0,
            line: Line::default(),
            field: Line::default(),
            sent: Vec::new(),
        }
    }

    /// Takes bytes; `here` is the place of the first of them.
    pub(super) fn push(&mut self, bytes: &[u8], here: Stamp) -> Scanned {
        let mut rest = bytes;
        self.last_at = here.at;
        while !rest.is_empty() {
            if self.first.is_none() {
                let seq = here.seq.wrapping_add((bytes.len() - rest.len()) as u32);
                self.first = Some(Stamp { seq, ..here });
            }
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                self.wire += rest.len() as u64;
                self.line.push(rest);
                self.send(rest);
                return if self.start.is_some() || self.begun() { Scanned::More } else { Scanned::Invalid };
            };
            let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            self.wire += end as u64 + 1;
            self.line.push(line);
            self.send(rest.get(..=end).unwrap_or(rest));
            rest = after.get(1..).unwrap_or_default();
            match self.end_of_line() {
                None => {}
                Some(true) => return Scanned::Whole(bytes.len() - rest.len()),
                Some(false) => return Scanned::Invalid,
            }
        }
        Scanned::More
    }

    fn send(&mut self, piece: &[u8]) {
        if self.side == Side::Client {
            let room = SENT_KEPT.saturating_sub(self.sent.len()).min(piece.len());
            self.sent.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
    }

    /// The start line, so far without its end, can still become one. A long line is looked at whole only when it ends.
    fn begun(&self) -> bool {
        let kept = self.line.bytes.get(..1024).unwrap_or(&self.line.bytes);
        match self.side {
            Side::Client => line::request_begun(kept),
            Side::Server => line::response_begun(kept),
        }
    }

    /// `Some(true)`: the head is whole; `Some(false)`: that was no start line.
    fn end_of_line(&mut self) -> Option<bool> {
        self.line.trim();
        let line = &self.line;
        if self.start.is_none() {
            if line.bytes.is_empty() {
                // RFC 9112 §2.2: empty lines before a request line are ignored.
                self.first = None;
                self.wire = 0;
                return None;
            }
            self.start = match self.side {
                Side::Client => line::request(&line.bytes, &line.end).map(Start::Request),
                Side::Server => line::response(&line.bytes).map(Start::Response),
            };
            if self.start.is_none() {
                return Some(false);
            }
            self.line.clear();
            return None;
        }
        match line.bytes.first() {
            None => {
                self.take_field();
                return Some(true);
            }
            Some(b' ' | b'\t') => {
                // RFC 9112 §5.2: an obs-fold is a space. Before the first field it is left out (§2.2).
                if !self.field.bytes.is_empty() {
                    self.field.push(b" ");
                    self.field.push(line.bytes.trim_ascii());
                }
            }
            Some(_) => {
                self.take_field();
                std::mem::swap(&mut self.field, &mut self.line);
            }
        }
        self.line.clear();
        None
    }

    fn take_field(&mut self) {
        let field = &self.field.bytes;
        if let Some(colon) = field.iter().position(|&byte| byte == b':') {
            let (name, value) = field.split_at_checked(colon).unwrap_or_default();
            let value = value.get(1..).unwrap_or_default();
            self.fields.add(name.trim_ascii_end(), value.trim_ascii(), self.field.cut());
        }
        self.field.clear();
    }

    /// A start line was seen whole.
    pub(super) fn has_start(&self) -> bool {
        self.start.is_some()
    }

    /// The status code, once it was seen.
    pub(super) fn status(&self) -> Option<u16> {
        match self.start {
            Some(Start::Response(code)) => Some(code),
            _ => None,
        }
    }

    /// Something of a message was seen: where it began, how many bytes, when the last.
    pub(super) fn seen(&self) -> Option<(Stamp, u64, u64)> {
        self.first.map(|first| (first, self.wire, self.last_at))
    }

    /// What was taken for a start line is the preface of HTTP/2 (RFC 9113 §3.4).
    pub(super) fn http2(&self) -> bool {
        self.line.bytes == b"PRI * HTTP/2.0"
    }

    /// The head, or with `cut` what was seen of it; absent without a start line.
    pub(super) fn into_head(mut self, cut: bool) -> Option<Head> {
        // The field before the cut is whole; the line that was cut is not taken.
        self.take_field();
        let Self { side, start, fields, first, wire, last_at, sent, .. } = self;
        let sent = (side == Side::Client).then(|| sent.into());
        Some(Head { start: start?, fields, first: first?, wire, last_at, cut, sent })
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        [&self.line, &self.field].map(|line| line.bytes.capacity() + line.end.capacity()).iter().sum::<usize>()
            + self.sent.capacity()
    }
}
