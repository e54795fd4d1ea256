//! The machine that reads request heads for the rules: one interpreter for the kernel half and for the agent's tests.
//!
//! The agent compiles methods, paths and hosts of all rules, together with the grammar of RFC 9112, into a table of
//! [`Row`]s (a Moore automaton); the kernel half walks it byte by byte, so a head may be cut anywhere and any number
//! of heads may stand in one segment. Bodies are skipped by arithmetic. The table is data: new rules need no new
//! program, and what the verifier sees is a loop with one look-up a byte.

#![expect(
    clippy::inline_always,
    reason = "the kernel half has no calls to spare: 5.10 does not mix them with tail calls"
)]

/// Columns of a row: a state's successor for each class of symbols, then what the state itself says.
pub const COLUMNS: usize = 128;
/// First column that is not a class.
pub const CLASSES: usize = 124;
/// Column: bit 0 says that `%` starts an escape here (the state stands inside a path).
pub const ESCAPES: usize = 124;
/// Column: argument of the action: reasons of [`unclear`] to note with it, unless it says otherwise.
pub const ARGUMENT: usize = 125;
/// Column: what to do on entering the state (`ACT_*`).
pub const ACTION: usize = 126;
/// Column: what the bytes up to here matched: an index into the masks.
pub const ACCEPT: usize = 127;

/// One state.
pub type Row = [u16; COLUMNS];

/// Classes of the 512 symbols: bytes as sent (0..=255), bytes that were percent-encoded (256..=511).
pub type Classes = [u8; 512];

/// States that every table has at the same place.
pub mod state {
    /// Not HTTP/1: nothing is read any more.
    pub const NOT_HTTP: u16 = 0;
    /// Between messages.
    pub const START: u16 = 1;
    /// Inside a target that no path rule can match any more.
    pub const TARGET: u16 = 2;
    /// Start of a chunk-size line.
    pub const CHUNK: u16 = 3;
    /// Behind a chunk's data.
    pub const CHUNK_END: u16 = 4;
    /// Start of a trailer line.
    pub const TRAILER: u16 = 5;
    /// First state whose number depends on the rules.
    pub const FREE: u16 = 108;
}

/// Nothing.
pub const ACT_NONE: u16 = 0;
/// First byte of a request.
pub const ACT_FIRST: u16 = 1;
/// The method is known: what the state before accepted.
pub const ACT_METHOD: u16 = 2;
/// A path segment starts: remembered for `..`.
pub const ACT_SLASH: u16 = 3;
/// A `..` segment is complete: back to where the segment before started.
pub const ACT_UP: u16 = 4;
/// The path is complete: what the state before accepted.
pub const ACT_PATH: u16 = 5;
/// The path is complete and ends in `..`.
pub const ACT_PATH_UP: u16 = 6;
/// The request line ends behind the path: an HTTP/0.9 request.
pub const ACT_PATH_HEAD: u16 = 7;
/// As [`ACT_PATH_HEAD`], with a path that ends in `..`.
pub const ACT_UP_HEAD: u16 = 8;
/// An absolute-form target's authority is complete and its path starts.
pub const ACT_AUTHORITY: u16 = 9;
/// An absolute-form target's authority is complete and its path is empty: [`ARGUMENT`] is what `/` accepts.
pub const ACT_AUTHORITY_PATH: u16 = 10;
/// A `Content-Length` field starts.
pub const ACT_LENGTH: u16 = 11;
/// A digit of it.
pub const ACT_DIGIT: u16 = 12;
/// A `Transfer-Encoding` field starts.
pub const ACT_CODING: u16 = 13;
/// Its last coding is `chunked`.
pub const ACT_CHUNKED: u16 = 14;
/// A `Host` field starts.
pub const ACT_HOST: u16 = 15;
/// Its host is complete: what the state before accepted.
pub const ACT_HOST_END: u16 = 16;
/// The head is complete.
pub const ACT_HEAD: u16 = 17;
/// A digit of a chunk's size.
pub const ACT_HEX: u16 = 18;
/// A chunk-size line is complete.
pub const ACT_CHUNK: u16 = 19;
/// The message is complete.
pub const ACT_MESSAGE: u16 = 20;
/// Ambiguous: [`ARGUMENT`] is the reason.
pub const ACT_FLAG: u16 = 21;
/// Not HTTP/1.
pub const ACT_NOT_HTTP: u16 = 22;
/// The connection preface of HTTP/2 (RFC 9113 §3.4).
pub const ACT_HTTP2: u16 = 23;
/// The version is 1.0.
pub const ACT_OLD: u16 = 24;
/// A path starts behind a scheme without an authority: [`ARGUMENT`] is the state at its first slash.
pub const ACT_ROOT: u16 = 25;

/// Why a head is ambiguous: servers are known to read it differently. Rules marked strict drop it, others let it pass.
pub mod unclear {
    /// A `..` segment, plain or encoded.
    pub const DOTS: u16 = 1;
    /// A backslash, a control character, or an encoded slash, backslash or control character in the path.
    pub const ENCODED: u16 = 1 << 1;
    /// `%` without two hexadecimal digits.
    pub const PERCENT: u16 = 1 << 2;
    /// `..` below more segments than are counted.
    pub const DEEP: u16 = 1 << 3;
    /// Whitespace where RFC 9112 §3 has none.
    pub const SPACE: u16 = 1 << 4;
    /// A folded line, or whitespace before the colon of a field (RFC 9112 §5.1, §5.2).
    pub const FIELD: u16 = 1 << 5;
    /// More than one `Content-Length`, or one that is not a number below 2^53.
    pub const LENGTH: u16 = 1 << 6;
    /// A `Transfer-Encoding` that does not end in `chunked`, more than one, or one in HTTP/1.0 (RFC 9112 §6.1).
    pub const CODING: u16 = 1 << 7;
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.3).
    pub const BOTH: u16 = 1 << 8;
    /// More than one `Host`, or user information before the host.
    pub const HOST: u16 = 1 << 9;
    /// A chunk's framing that is not to the letter of RFC 9112 §7.1.
    pub const CHUNK: u16 = 1 << 10;
    /// CR without LF.
    pub const BARE_CR: u16 = 1 << 11;
    /// The rules changed in the middle of the head.
    pub const CHANGED: u16 = 1 << 12;
    /// Bytes were not seen, more of them were in one segment than are read, or one was urgent: servers leave that out of
    /// the stream, but for those that ask for it.
    pub const UNSEEN: u16 = 1 << 13;
    /// Bytes that are not HTTP/1, or a method that is no token.
    pub const NOT_HTTP: u16 = 1 << 14;
    /// HTTP/2 without TLS.
    pub const HTTP2: u16 = 1 << 15;
    /// Of the path alone: method and host are what they seem.
    pub const TARGET: u16 = DOTS | ENCODED | PERCENT | DEEP;
}

/// Path segments that are remembered for `..`. Behind them no pattern has a segment that could still be matched
/// ([`SEGMENTS`]): they are all alike, and only counted.
pub const DEPTH: usize = 16;
/// Segments that a pattern may have.
pub const SEGMENTS: usize = DEPTH - 2;

/// `seen`: a `Content-Length`.
pub const SEEN_LENGTH: u8 = 1;
/// `seen`: a `Transfer-Encoding`.
pub const SEEN_CODING: u8 = 2;
/// `seen`: its last coding is `chunked`.
pub const SEEN_CHUNKED: u8 = 4;
/// `seen`: a `Host`.
pub const SEEN_HOST: u8 = 8;
/// `seen`: an absolute-form target, whose host wins (RFC 9112 §3.2.2).
pub const SEEN_AUTHORITY: u8 = 16;
/// `seen`: HTTP/1.0.
pub const SEEN_OLD: u8 = 32;

/// What a byte brought about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Read on.
    Next,
    /// This byte is the first one of a request.
    First,
    /// Method and path are known.
    Target,
    /// The head is complete; [`Judge::skip`] body bytes follow at once.
    Head,
    /// [`Judge::skip`] bytes of a chunk follow at once.
    Body,
    /// These bytes are not HTTP/1: read no more.
    Stop,
}

/// Registers of one connection's machine.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judge {
    /// Content length or chunk size that is being read.
    pub length: u64,
    /// Body bytes that pass unread.
    pub skip: u64,
    /// Current state.
    pub state: u16,
    /// What the path matched.
    pub path: u16,
    /// What the host matched.
    pub host: u16,
    /// What the method matched.
    pub method: u16,
    /// `unclear::*` of the current message.
    pub unclear: u16,
    /// Hexadecimal digits of an escape that are still to come.
    pub escape: u8,
    /// Its first digit.
    pub high: u8,
    /// Path segments so far.
    pub depth: u16,
    /// `SEEN_*`.
    pub seen: u8,
    /// Zero.
    pub reserved: u8,
    /// Where the path's segments started.
    pub slashes: [u16; DEPTH],
}
const _: () = assert!(size_of::<Judge>() == 64);

impl Judge {
    /// Before the first message of a connection.
    pub const START: Self = Self {
        length: 0,
        skip: 0,
        state: state::START,
        path: 0,
        host: NO_HOST,
        method: NO_METHOD,
        unclear: 0,
        escape: 0,
        high: 0,
        depth: 0,
        seen: 0,
        reserved: 0,
        slashes: [0; DEPTH],
    };
}

/// Mask index of a request without a path that any rule names.
pub const NO_PATH: u16 = 0;
/// Mask index of a request without a host that any rule names.
pub const NO_HOST: u16 = 1;

/// Mask index of a request with a method that no rule names.
pub const NO_METHOD: u16 = 2;

/// Where rows are read from.
pub trait Table {
    /// A state's row; absent only when the table is damaged.
    fn row(&self, state: u16) -> Option<&Row>;
}

/// Value of a hexadecimal digit; 16 for any other byte.
#[inline(always)]
fn hex(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => 16,
    }
}

/// Feeds one byte that brings nothing about, as most do; false: it is still to be fed to [`step`]. Short, so that the
/// kernel half may have it in a loop.
#[inline(always)]
pub fn quiet<T: Table>(table: &T, classes: &Classes, regs: &mut Judge, byte: u8) -> bool {
    let Some(row) = table.row(regs.state) else { return false };
    let next = row[usize::from(classes[usize::from(byte)]) & (COLUMNS - 1)];
    let Some(then) = table.row(next) else { return false };
    // One question instead of four: the verifier keeps a way for each.
    let percent = (u32::from(byte ^ b'%').wrapping_sub(1) >> 31) & u32::from(row[ESCAPES]);
    if percent | u32::from(regs.escape) | u32::from(then[ACTION]) != 0 {
        return false;
    }
    regs.state = next;
    true
}

/// Feeds one byte. `None` when the table is damaged: the caller lets everything pass.
///
/// `regs` is only ever written through the reference, so that the verifier, which does not track a map value's
/// content, sees the same state after every branch.
#[inline(always)]
pub fn step<T: Table>(table: &T, classes: &Classes, regs: &mut Judge, byte: u8) -> Option<Signal> {
    let row = table.row(regs.state)?;
    let mut symbol = usize::from(byte);
    if regs.escape != 0 {
        let digit = hex(byte);
        if digit > 15 {
            regs.escape = 0;
            regs.unclear |= unclear::PERCENT;
        } else if regs.escape == 2 {
            regs.high = digit;
            regs.escape = 1;
            return Some(Signal::Next);
        } else {
            regs.escape = 0;
            symbol = 256 + usize::from((regs.high << 4) | digit);
        }
    }
    if symbol == usize::from(b'%') && row[ESCAPES] != 0 {
        regs.escape = 2;
        return Some(Signal::Next);
    }
    let class = usize::from(classes[symbol & 511]) & (COLUMNS - 1);
    let accepted = row[ACCEPT];
    let next = row[class];
    regs.state = next;
    let row = table.row(next)?;
    let action = row[ACTION];
    if action == ACT_NONE {
        return Some(Signal::Next);
    }
    act(table, regs, action, row[ARGUMENT], accepted, byte)
}

#[inline(always)]
#[expect(clippy::too_many_lines, reason = "one arm an action")]
fn act<T: Table>(table: &T, regs: &mut Judge, action: u16, argument: u16, accepted: u16, byte: u8) -> Option<Signal> {
    match action {
        ACT_FIRST => {
            regs.unclear = 0;
            regs.seen = 0;
            regs.length = 0;
            regs.path = NO_PATH;
            regs.host = NO_HOST;
            regs.depth = 0;
            regs.skip = 0;
            regs.unclear |= argument;
            return Some(Signal::First);
        }
        ACT_METHOD => {
            regs.method = accepted;
            regs.unclear |= argument;
        }
        ACT_SLASH => push(regs),
        ACT_UP => pop(regs),
        ACT_PATH => {
            regs.path = accepted;
            regs.unclear |= argument;
            return Some(Signal::Target);
        }
        ACT_PATH_UP => {
            regs.path = above(table, regs)?;
            regs.unclear |= argument;
            return Some(Signal::Target);
        }
        ACT_PATH_HEAD => {
            regs.path = accepted;
            return Some(head(regs));
        }
        ACT_UP_HEAD => {
            regs.path = above(table, regs)?;
            return Some(head(regs));
        }
        ACT_AUTHORITY => {
            regs.host = accepted;
            regs.seen |= SEEN_AUTHORITY;
            // The slashes before it are not the path's.
            regs.depth = 0;
            push(regs);
        }
        ACT_AUTHORITY_PATH => {
            regs.host = accepted;
            regs.seen |= SEEN_AUTHORITY;
            regs.path = argument;
            return Some(Signal::Target);
        }
        ACT_LENGTH => {
            if regs.seen & SEEN_LENGTH != 0 {
                regs.unclear |= unclear::LENGTH;
            }
            regs.seen |= SEEN_LENGTH;
            regs.length = 0;
        }
        ACT_DIGIT => {
            if regs.length >> 50 != 0 {
                regs.unclear |= unclear::LENGTH;
                regs.length = 0;
            }
            regs.length = regs.length * 10 + u64::from(byte & 15);
        }
        ACT_CODING => {
            if regs.seen & SEEN_CODING != 0 {
                regs.unclear |= unclear::CODING;
            }
            regs.seen = (regs.seen | SEEN_CODING) & !SEEN_CHUNKED;
        }
        ACT_CHUNKED => regs.seen |= SEEN_CHUNKED,
        ACT_HOST => {
            if regs.seen & SEEN_HOST != 0 {
                regs.unclear |= unclear::HOST;
            }
            regs.seen |= SEEN_HOST;
        }
        ACT_HOST_END => {
            if regs.seen & SEEN_AUTHORITY == 0 {
                regs.host = accepted;
            }
        }
        ACT_HEAD => return Some(head(regs)),
        ACT_HEX => {
            if regs.length >> 50 != 0 {
                regs.unclear |= unclear::CHUNK;
                regs.length = 0;
            }
            regs.length = (regs.length << 4) | u64::from(hex(byte) & 15);
        }
        ACT_CHUNK => {
            let size = regs.length;
            regs.length = 0;
            regs.unclear |= argument;
            if size == 0 {
                regs.state = state::TRAILER;
            } else {
                regs.skip = size;
                regs.state = state::CHUNK_END;
                return Some(Signal::Body);
            }
        }
        ACT_MESSAGE => {
            regs.unclear |= argument;
            regs.state = state::START;
        }
        ACT_FLAG => regs.unclear |= argument,
        ACT_OLD => regs.seen |= SEEN_OLD,
        ACT_ROOT => {
            regs.slashes[0] = argument;
            regs.depth = 1;
        }
        ACT_HTTP2 => {
            regs.unclear |= unclear::HTTP2;
            regs.state = state::NOT_HTTP;
            return Some(Signal::Stop);
        }
        _ => {
            regs.unclear |= unclear::NOT_HTTP;
            regs.state = state::NOT_HTTP;
            return Some(Signal::Stop);
        }
    }
    Some(Signal::Next)
}

#[inline(always)]
fn push(regs: &mut Judge) {
    let depth = usize::from(regs.depth);
    if depth < DEPTH {
        regs.slashes[depth & (DEPTH - 1)] = regs.state;
    }
    if regs.depth == u16::MAX {
        regs.unclear |= unclear::DEEP;
    } else {
        regs.depth += 1;
    }
}

/// RFC 3986 §5.2.4: drops the last segment; at the root there is none to drop.
#[inline(always)]
fn pop(regs: &mut Judge) {
    regs.unclear |= unclear::DOTS;
    if regs.depth > 1 {
        regs.depth -= 1;
    }
    let above = usize::from(regs.depth).wrapping_sub(1);
    regs.state = regs.slashes[if above < DEPTH { above } else { DEPTH - 1 } & (DEPTH - 1)];
}

/// What the path without its last segment accepts; the state stays where the target ended.
#[inline(always)]
fn above<T: Table>(table: &T, regs: &mut Judge) -> Option<u16> {
    let ended = regs.state;
    pop(regs);
    let accepted = table.row(regs.state)?[ACCEPT];
    regs.state = ended;
    Some(accepted)
}

/// RFC 9112 §6.3: how much of a body follows a request's head.
#[inline(always)]
fn head(regs: &mut Judge) -> Signal {
    regs.skip = 0;
    regs.state = state::START;
    if regs.seen & SEEN_CODING != 0 {
        if regs.seen & SEEN_LENGTH != 0 {
            regs.unclear |= unclear::BOTH;
        }
        if regs.seen & SEEN_OLD != 0 {
            regs.unclear |= unclear::CODING;
        }
        if regs.seen & SEEN_CHUNKED != 0 {
            regs.state = state::CHUNK;
        } else {
            regs.unclear |= unclear::CODING;
        }
        regs.length = 0;
    } else if regs.seen & SEEN_LENGTH != 0 {
        regs.skip = regs.length;
    }
    Signal::Head
}
