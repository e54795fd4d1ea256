//! The first bytes of HTTP/2 in clear (RFC 9113 §3.3): whether the client exports spans by gRPC, and is accepted.
//!
//! No calls are made of it. The path of the first `Export` of a connection is written out in its header block, as text or
//! in Huffman's code, because nothing before it has put it into the dynamic table (RFC 7541 §6.2); so neither a table nor
//! a decoder is needed to know it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use super::Side;

/// What the client says before its first frame (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// OTLP's path, and the same in Huffman's code (RFC 7541 appendix B).
const EXPORT: &[u8] = b"/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const EXPORT_CODED: &[u8] = &[
    0x60, 0xf5, 0x96, 0xa4, 0x96, 0x82, 0xd2, 0x54, 0xd9, 0xe9, 0x7a, 0xec, 0x3a, 0x4e, 0xb9, 0x0f, 0x45, 0x05, 0x22,
    0x4f, 0x62, 0xe9, 0xb0, 0x64, 0x2a, 0xfd, 0xc2, 0xbe, 0xfb, 0x06, 0x42, 0xee, 0x2d, 0x9d, 0xcc, 0x42, 0xb1, 0x83,
    0xcd, 0x67, 0xb1, 0x3f,
];
/// The name `:path`: its indices in the static table (RFC 7541 appendix A), as text and in Huffman's code. gRPC's C core
/// writes it out.
const PATH: [u64; 2] = [4, 5];
const PATH_TEXT: &[u8] = b":path";
const PATH_CODED: &[u8] = &[0xb9, 0x58, 0xd3, 0x3f];
/// `:status: 200` in the static table.
const OK: u8 = 0x88;
/// Frame types and flags (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// Length of a frame's header, and of a gRPC message's.
const HEADER: usize = 9;
const MESSAGE: u32 = 5;
/// Longest header block that is read, bytes.
const BLOCK: usize = 8 * 1024;
/// Header blocks that are looked at, on both sides together.
const BLOCKS: u32 = 64;

/// Whether a server that speaks first speaks HTTP/2: a SETTINGS frame of less than 256 bytes (RFC 9113 §3.4).
#[must_use]
pub fn is_settings(server: &[u8]) -> bool {
    matches!(server, [0, 0, _, 4, 0, 0, 0, 0, 0, ..])
}

/// What is known so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing; more bytes may tell.
    Open,
    /// The client exports spans, and the server has answered with a message.
    Exports,
    /// Nothing, and more bytes tell nothing.
    Never,
}

/// Reads a connection from its first byte.
#[derive(Debug, Default)]
pub struct Opening {
    client: Frames,
    server: Frames,
    blocks: u32,
    /// Stream of the export that was asked for.
    asked: Option<u32>,
    /// Its response's head has come.
    accepted: bool,
    over: bool,
}

/// One side's frames.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of the preface that are read.
    preface: usize,
    /// Header of the frame at hand, as far as it is read.
    header: Vec<u8>,
    /// Bytes of that frame that are not read yet.
    left: usize,
    /// Header block at hand.
    block: Vec<u8>,
    /// Nothing of this side is read any more.
    deaf: bool,
}

/// A header block, or that a stream has data.
enum Part {
    Block { stream: u32, ends: bool, block: Vec<u8> },
    Data { stream: u32, len: u32 },
    Broken,
}

impl Opening {
    /// Takes bytes in order.
    pub fn hear(&mut self, side: Side, mut bytes: &[u8]) -> Outcome {
        while !self.over {
            let frames = if side == Side::Client { &mut self.client } else { &mut self.server };
            if frames.deaf || bytes.is_empty() {
                return self.open();
            }
            let Some(part) = frames.next(side, &mut bytes) else { continue };
            if self.is_proof(side, part) {
                self.over = true;
                return Outcome::Exports;
            }
        }
        Outcome::Never
    }

    /// Bytes of this side are missing: where its next frame begins is unknown.
    pub fn gap(&mut self, side: Side) -> Outcome {
        (if side == Side::Client { &mut self.client } else { &mut self.server }).deaf = true;
        self.open()
    }

    fn open(&mut self) -> Outcome {
        self.over |= self.server.deaf || (self.client.deaf && self.asked.is_none());
        if self.over { Outcome::Never } else { Outcome::Open }
    }

    fn is_proof(&mut self, side: Side, part: Part) -> bool {
        match (side, part) {
            (_, Part::Broken) => self.over = true,
            (Side::Client, Part::Block { stream, block, .. }) => {
                if self.asked.is_none() && asks_export(&block) {
                    self.asked = Some(stream);
                }
                self.count_block();
            }
            (Side::Server, Part::Block { stream, ends, block }) if self.asked == Some(stream) && !self.accepted => {
                // An error has no message: its only block, or its second one, ends the stream. Then the next is waited for,
                // whose path stands in the dynamic table.
                self.accepted = !ends && block.contains(&OK);
                self.over |= !self.accepted;
            }
            (Side::Server, Part::Block { stream, .. }) => {
                self.over |= self.asked == Some(stream);
                self.count_block();
            }
            (Side::Server, Part::Data { stream, len }) => {
                return self.accepted && self.asked == Some(stream) && len >= MESSAGE;
            }
            (Side::Client, Part::Data { .. }) => {}
        }
        false
    }

    fn count_block(&mut self) {
        self.blocks += 1;
        self.over |= self.blocks > BLOCKS;
    }
}

impl Frames {
    /// Reads on; what it gives is whole.
    fn next(&mut self, side: Side, bytes: &mut &[u8]) -> Option<Part> {
        if side == Side::Client && self.preface < PREFACE.len() {
            let expected = PREFACE.get(self.preface..).unwrap_or_default();
            let said = take(bytes, expected.len());
            self.preface += said.len();
            return (!expected.starts_with(said)).then_some(Part::Broken);
        }
        if self.header.len() < HEADER {
            self.header.extend_from_slice(take(bytes, HEADER - self.header.len()));
            let [a, b, c, ..] = *self.header.as_slice() else { return None };
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        }
        let &[_, _, _, kind, flags, s1, s2, s3, s4] = self.header.as_slice() else { return None };
        let stream = u32::from_be_bytes([s1, s2, s3, s4]) & 0x7fff_ffff;
        let payload = take(bytes, self.left);
        self.left -= payload.len();
        if kind == HEADERS || kind == CONTINUATION {
            self.block.extend_from_slice(payload);
            if self.block.len() > BLOCK {
                return Some(Part::Broken);
            }
        }
        if self.left > 0 {
            return None;
        }
        let len = self.header.get(..3).map_or(0, |len| len.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)));
        self.header.clear();
        match kind {
            DATA => Some(Part::Data { stream, len }),
            HEADERS => {
                let Some(bare) = unpadded(&self.block, flags) else { return Some(Part::Broken) };
                self.block = bare.to_vec();
                // A block in several frames is none that an exporter sends: it is read, and not looked at more closely.
                (flags & END_HEADERS != 0).then(|| self.whole(stream, flags & END_STREAM != 0))
            }
            CONTINUATION if flags & END_HEADERS != 0 => Some(self.whole(stream, false)),
            _ => None,
        }
    }

    fn whole(&mut self, stream: u32, ends: bool) -> Part {
        Part::Block { stream, ends, block: std::mem::take(&mut self.block) }
    }
}

/// Up to `len` bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(len.min(bytes.len()));
    *bytes = rest;
    taken
}

/// A HEADERS frame's payload without padding and priority (RFC 9113 §6.2).
fn unpadded(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let mut rest = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, after) = rest.split_first()?;
        (padding, rest) = (usize::from(*first), after);
    }
    if flags & PRIORITY != 0 {
        rest = rest.get(5..)?;
    }
    rest.get(..rest.len().checked_sub(padding)?)
}

/// Whether a request's header block has OTLP's path (RFC 7541 §6).
fn asks_export(block: &[u8]) -> bool {
    let mut rest = block;
    while let Some(first) = rest.first().copied() {
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let Some(index) = integer(&mut rest, bits) else { return false };
        if !literal {
            continue;
        }
        let mut is_path = PATH.contains(&index);
        if index == 0 {
            let Some((coded, name)) = string(&mut rest) else { return false };
            is_path = name == if coded { PATH_CODED } else { PATH_TEXT };
        }
        let Some((coded, value)) = string(&mut rest) else { return false };
        if is_path {
            return value == if coded { EXPORT_CODED } else { EXPORT };
        }
    }
    false
}

/// An integer behind a prefix of some bits (RFC 7541 §5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Option<u64> {
    let most = (1_u64 << bits) - 1;
    let value = u64::from(*take(rest, 1).first()?) & most;
    if value < most {
        return Some(value);
    }
    let mut more = 0;
    for shift in [0, 7, 14, 21] {
        let byte = u64::from(*take(rest, 1).first()?);
        more |= (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(most + more);
        }
    }
    None
}

/// A string, and whether it is in Huffman's code (RFC 7541 §5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let coded = rest.first()? & 0x80 != 0;
    let len = usize::try_from(integer(rest, 7)?).ok()?;
    let text = take(rest, len);
    (text.len() == len).then_some((coded, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u32;
        [&len.to_be_bytes()[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// `:method: POST`, `:scheme: http`, a literal with a name of its own, the path, and one more.
    fn request(path: &[u8], coded: bool) -> Vec<u8> {
        let len = path.len() as u8 | if coded { 0x80 } else { 0 };
        [&[0x83, 0x86, 0x40, 2][..], b"te", &[8], b"trailers", &[0x44, len], path, &[0x41, 3], b"a:1"].concat()
    }

    fn client(path: &[u8], coded: bool) -> Vec<u8> {
        let data = frame(DATA, END_STREAM, 1, &[0, 0, 0, 0, 3, 1, 2, 3]);
        [PREFACE, &frame(4, 0, 0, &[]), &frame(HEADERS, END_HEADERS, 1, &request(path, coded)), &data].concat()
    }

    fn server(ends: u8, block: &[u8], data: &[u8]) -> Vec<u8> {
        let head = frame(HEADERS, END_HEADERS | ends, 1, block);
        let data = if data.is_empty() { Vec::new() } else { frame(DATA, 0, 1, data) };
        [frame(4, 0, 0, &[0; 6]), frame(4, 1, 0, &[]), head, data].concat()
    }

    /// What both sides' bytes come to, in steps of some bytes.
    fn both(client: &[u8], server: &[u8], step: usize) -> Outcome {
        let mut opening = Opening::default();
        let mut last = Outcome::Open;
        for (side, bytes) in [(Side::Client, client), (Side::Server, server)] {
            for part in bytes.chunks(step) {
                last = opening.hear(side, part);
                if last != Outcome::Open {
                    return last;
                }
            }
        }
        last
    }

    #[test]
    fn an_accepted_export_is_a_proof() {
        let answer = server(0, &[OK, 0x5f, 1, b'x'], &[0; 5]);
        for step in [1, 2, 7, 10_000] {
            assert_eq!(both(&client(EXPORT, false), &answer, step), Outcome::Exports);
            assert_eq!(both(&client(EXPORT_CODED, true), &answer, step), Outcome::Exports);
            assert_eq!(
                both(&client(b"/opentelemetry.proto.collector.metrics.v1", false), &answer, step),
                Outcome::Open
            );
            assert_eq!(
                both(&client(EXPORT, false), &server(1, &[OK, 0x40, 1, b'g', 1, b'8'], &[]), step),
                Outcome::Never
            );
            assert_eq!(both(&client(EXPORT, false), &server(0, &[0x8d], &[0; 5]), step), Outcome::Never);
            assert_eq!(both(&client(EXPORT, false), &server(0, &[OK], &[]), step), Outcome::Open);
        }
    }

    #[test]
    fn the_path_is_found_in_each_form() {
        let coded = EXPORT_CODED.len() as u8 | 0x80;
        let text = EXPORT.len() as u8;
        let written = [&[0x40, 5][..], PATH_TEXT, &[text], EXPORT].concat();
        let short = [&[0x83, 0x00, 4 | 0x80][..], PATH_CODED, &[coded], EXPORT_CODED].concat();
        let resized = [&[0x3f, 0xe1, 0x1f, 0x14, text][..], EXPORT].concat();
        for block in [&written, &short, &resized] {
            assert!(asks_export(block), "{block:x?}");
            for len in 0..block.len() {
                assert!(!asks_export(&block[..len]), "{len} of {block:x?}");
            }
        }
        let other = [&[0x40, 5][..], b":pats", &[text], EXPORT].concat();
        assert!(!asks_export(&other));
    }

    #[test]
    fn what_is_missing_or_broken_proves_nothing() {
        let (asks, answer) = (client(EXPORT, false), server(0, &[OK], &[0; 5]));
        for at in 0..asks.len() {
            let mut opening = Opening::default();
            opening.hear(Side::Client, &asks[..at]);
            let deaf = opening.gap(Side::Client);
            let told = opening.hear(Side::Server, &answer);
            assert_eq!(deaf == Outcome::Open, told == Outcome::Exports, "{at}: {deaf:?} {told:?}");
        }
        assert_eq!(Opening::default().gap(Side::Server), Outcome::Never);
        assert_eq!(Opening::default().hear(Side::Client, b"PRI * HTTP/2.0\r\n\r\nXX"), Outcome::Never);
        // A block without an end.
        let mut opening = Opening::default();
        opening.hear(Side::Client, PREFACE);
        let endless = frame(HEADERS, 0, 1, &[0x82; 4000]);
        opening.hear(Side::Client, &endless);
        let more = frame(CONTINUATION, 0, 1, &[0x82; 4000]);
        assert_eq!(opening.hear(Side::Client, &more), Outcome::Open);
        assert_eq!(opening.hear(Side::Client, &more), Outcome::Never);
        // Blocks without an end of them.
        let mut opening = Opening::default();
        opening.hear(Side::Client, PREFACE);
        let many = frame(HEADERS, END_HEADERS, 1, &[0x82]);
        let outcomes: Vec<_> = (0..=BLOCKS).map(|_| opening.hear(Side::Client, &many)).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Open).count(), BLOCKS as usize);
        assert_eq!(unpadded(&[9, 1, 2], PADDED), None);
        assert_eq!(unpadded(&[1, 0, 0, 0, 0, 0, 7, 0], PADDED | PRIORITY), Some(&[7][..]));
    }
}
