//! The states that no rule changes: version, field lines, body framing (RFC 9112).

use weir_common::judge::{
    ACT_CHUNK, ACT_CHUNKED, ACT_CODING, ACT_DIGIT, ACT_FLAG, ACT_HEAD, ACT_HEX, ACT_HOST, ACT_HOST_END, ACT_LENGTH,
    ACT_MESSAGE, ACT_NONE, ACT_NOT_HTTP, ACT_OLD, ACT_PATH, ACT_PATH_HEAD, ACT_PATH_UP, ACT_UP_HEAD, CLASSES, state,
    unclear,
};

use super::rows::{CR, LF, ODD_SPACE, Rows, SPACE, TAB, is_token};

/// Where a path, a query or a host may end: states that the rules' own states lead to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exits {
    /// Behind the path, at the version (`ACT_PATH`).
    pub(super) path_space: u16,
    /// The same by a byte that only some servers take for a space.
    pub(super) path_odd: u16,
    /// In the query (`ACT_PATH`).
    pub(super) path_query: u16,
    /// At the CR that ends a version-less line (`ACT_PATH`).
    pub(super) path_cr: u16,
    /// At the LF that ends it.
    pub(super) path_lf: u16,
    /// The five above for a path that ends in `..`.
    pub(super) up_space: u16,
    /// See `path_odd`.
    pub(super) up_odd: u16,
    /// See `path_query`.
    pub(super) up_query: u16,
    /// See `path_cr`.
    pub(super) up_cr: u16,
    /// See `path_lf`.
    pub(super) up_lf: u16,
    /// In the query, no action.
    pub(super) query: u16,
    /// At the version, no action.
    pub(super) version: u16,
    /// At the CR that ends a version-less line, no action.
    pub(super) bare_cr: u16,
    /// Behind the colon of `Host`; its successors are the caller's to set.
    pub(super) host: u16,
    /// At the CR behind a host (`ACT_HOST_END`).
    pub(super) host_cr: u16,
    /// At the LF behind a host.
    pub(super) host_lf: u16,
    /// Behind a host, anything up to the line's end (`ACT_HOST_END`).
    pub(super) host_rest: u16,
}

/// Builds the states up to [`state::FREE`].
pub(super) fn build(rows: &mut Rows) -> Exits {
    let not_http = rows.add(state::NOT_HTTP, ACT_NOT_HTTP, 0);
    debug_assert_eq!(not_http, state::NOT_HTTP);
    rows.add(state::NOT_HTTP, ACT_NONE, 0); // START
    rows.add(state::TARGET, ACT_NONE, 0); // TARGET
    rows.add(state::CHUNK, ACT_NONE, 0); // CHUNK
    rows.add(state::CHUNK_END, ACT_NONE, 0); // CHUNK_END
    rows.add(state::TRAILER, ACT_NONE, 0); // TRAILER
    let end = rows.add(0, ACT_HEAD, 0);
    let lines = lines(rows, end);
    let exits = targets(rows, lines, end);
    chunks(rows);
    rows.on(state::START, CR, state::START);
    rows.on(state::START, LF, state::START);
    debug_assert_eq!(rows.0.len(), usize::from(state::FREE));
    exits
}

/// Field lines.
#[derive(Clone, Copy)]
struct Lines {
    /// Start of a line.
    line: u16,
    /// Behind the CR of a line.
    line_cr: u16,
    /// Inside a line that means nothing here.
    skip: u16,
    host: u16,
}

fn lines(rows: &mut Rows, end: u16) -> Lines {
    let skip = rows.add(0, ACT_NONE, 0);
    let line = rows.add(skip, ACT_NONE, 0);
    let line_cr = rows.add(0, ACT_NONE, 0);
    let bare = rows.add(skip, ACT_FLAG, unclear::BARE_CR);
    rows.fill(skip, skip);
    for from in [skip, bare] {
        rows.on(from, LF, line);
        rows.on(from, CR, line_cr);
    }
    rows.fill(line_cr, bare);
    rows.on(line_cr, LF, line);
    rows.on(line_cr, CR, line_cr);
    let odd = rows.like(skip, ACT_FLAG, unclear::FIELD);
    for class in 0..CLASSES as u8 {
        let token = class < CR && is_token(class + b' ');
        rows.on(line, class, if token { skip } else { odd });
    }
    rows.on_byte(line, b':', odd);
    let end_cr = rows.add(bare, ACT_NONE, 0);
    rows.on(end_cr, LF, end);
    rows.on(line, CR, end_cr);
    rows.on(line, LF, end);

    let (length, empty) = length(rows, line, line_cr, skip);
    let (coding, chunked) = coding(rows, line, line_cr);
    let host = rows.add(skip, ACT_HOST, 0);
    for (name, value) in [("content-length", length), ("transfer-encoding", coding), ("host", host)] {
        word(rows, line, name.as_bytes(), skip, odd, value);
    }
    // Only now does the start of a line know its names.
    rows.follow(empty, line);
    rows.follow(chunked, line);
    Lines { line, line_cr, skip, host }
}

/// A word of letters and `-` in any case from `from`, then a colon.
fn word(rows: &mut Rows, from: u16, word: &[u8], other: u16, odd: u16, then: u16) {
    let mut at = from;
    for &byte in word {
        let next = rows.like(other, ACT_NONE, 0);
        rows.on_letter(at, byte, next);
        at = next;
    }
    for class in 0..CLASSES as u8 {
        let token = class < CR && is_token(class + b' ');
        if !token && class != CR && class != LF {
            rows.on(at, class, odd);
        }
    }
    rows.on_byte(at, b':', then);
}

fn length(rows: &mut Rows, line: u16, line_cr: u16, skip: u16) -> (u16, u16) {
    let wrong = rows.like(skip, ACT_FLAG, unclear::LENGTH);
    let empty = rows.add(0, ACT_FLAG, unclear::LENGTH);
    let start = rows.add(wrong, ACT_LENGTH, 0);
    let space = rows.add(wrong, ACT_NONE, 0);
    let digit = rows.add(wrong, ACT_DIGIT, 0);
    let tail = rows.add(wrong, ACT_NONE, 0);
    for from in [start, space] {
        rows.on(from, SPACE, space);
        rows.on(from, TAB, space);
        rows.on(from, LF, empty);
    }
    for from in [digit, tail] {
        rows.on(from, SPACE, tail);
        rows.on(from, TAB, tail);
        rows.on(from, CR, line_cr);
        rows.on(from, LF, line);
    }
    for from in [start, space, digit] {
        for byte in b'0'..=b'9' {
            rows.on_byte(from, byte, digit);
        }
    }
    (start, empty)
}

fn coding(rows: &mut Rows, line: u16, line_cr: u16) -> (u16, u16) {
    let other = rows.add(0, ACT_NONE, 0);
    rows.fill(other, other);
    let space = rows.add(other, ACT_NONE, 0);
    rows.on_byte(other, b',', space);
    let start = rows.add(other, ACT_CODING, 0);
    let full = rows.add(other, ACT_NONE, 0);
    let full_space = rows.add(other, ACT_NONE, 0);
    let full_cr = rows.like(line_cr, ACT_CHUNKED, 0);
    let full_lf = rows.add(0, ACT_CHUNKED, 0);
    for from in [start, space] {
        rows.on(from, SPACE, space);
        rows.on(from, TAB, space);
        rows.on_byte(from, b',', space);
    }
    let mut at = vec![start, space];
    for (index, &byte) in b"chunked".iter().enumerate() {
        let next = if index == 6 { full } else { rows.like(other, ACT_NONE, 0) };
        for &from in &at {
            rows.on_letter(from, byte, next);
        }
        at = vec![next];
        rows.on(next, CR, line_cr);
        rows.on(next, LF, line);
    }
    for from in [start, space, other] {
        rows.on(from, CR, line_cr);
        rows.on(from, LF, line);
    }
    for from in [full, full_space] {
        rows.on(from, SPACE, full_space);
        rows.on(from, TAB, full_space);
        rows.on_byte(from, b',', space);
        rows.on(from, CR, full_cr);
        rows.on(from, LF, full_lf);
    }
    (start, full_lf)
}

fn targets(rows: &mut Rows, lines: Lines, end: u16) -> Exits {
    let Lines { line, line_cr, skip, host } = lines;
    let other = rows.add(0, ACT_NONE, 0);
    rows.fill(other, other);
    rows.on(other, CR, line_cr);
    rows.on(other, LF, line);
    let extra = rows.like(other, ACT_FLAG, unclear::SPACE);
    let version = rows.like(other, ACT_NONE, 0);
    let mut at = vec![version, extra];
    let mut states = vec![other, version, extra];
    for (index, &byte) in b"HTTP/1.0".iter().enumerate() {
        let next = rows.like(other, if index == 7 { ACT_OLD } else { ACT_NONE }, 0);
        for from in at {
            rows.on_letter(from, byte, next);
        }
        at = vec![next];
        states.push(next);
    }
    for from in states {
        rows.on(from, SPACE, extra);
        rows.on(from, TAB, extra);
        rows.on(from, ODD_SPACE, extra);
    }
    let stray = rows.like(other, ACT_FLAG, unclear::BARE_CR);
    let bare_cr = rows.add(stray, ACT_NONE, 0);
    rows.on(bare_cr, LF, end);
    let query = rows.add(0, ACT_NONE, 0);
    rows.fill(query, query);
    rows.on(query, SPACE, version);
    rows.on(query, TAB, extra);
    rows.on(query, ODD_SPACE, extra);
    rows.on(query, CR, bare_cr);
    rows.on(query, LF, end);
    Exits {
        path_space: rows.like(version, ACT_PATH, 0),
        path_odd: rows.like(version, ACT_PATH, unclear::SPACE),
        path_query: rows.like(query, ACT_PATH, 0),
        path_cr: rows.like(bare_cr, ACT_PATH, 0),
        path_lf: rows.like(end, ACT_PATH_HEAD, 0),
        up_space: rows.like(version, ACT_PATH_UP, 0),
        up_odd: rows.like(version, ACT_PATH_UP, unclear::SPACE),
        up_query: rows.like(query, ACT_PATH_UP, 0),
        up_cr: rows.like(bare_cr, ACT_PATH_UP, 0),
        up_lf: rows.like(end, ACT_UP_HEAD, 0),
        query,
        version,
        bare_cr,
        host,
        host_cr: rows.like(line_cr, ACT_HOST_END, 0),
        host_lf: rows.like(line, ACT_HOST_END, 0),
        host_rest: rows.like(skip, ACT_HOST_END, 0),
    }
}

fn chunks(rows: &mut Rows) {
    let done = rows.add(0, ACT_CHUNK, 0);
    let done_odd = rows.add(0, ACT_CHUNK, unclear::CHUNK);
    let message = rows.add(0, ACT_MESSAGE, 0);
    let message_odd = rows.add(0, ACT_MESSAGE, unclear::CHUNK);
    let extension = rows.add(0, ACT_NONE, 0);
    rows.fill(extension, extension);
    let cr = rows.add(0, ACT_NONE, 0);
    let wrong = rows.like(extension, ACT_FLAG, unclear::CHUNK);
    rows.fill(cr, wrong);
    rows.on(cr, LF, done);
    for from in [extension, wrong] {
        rows.on(from, CR, cr);
        rows.on(from, LF, done_odd);
    }
    let digit = rows.add(wrong, ACT_HEX, 0);
    rows.on(digit, CR, cr);
    rows.on(digit, LF, done_odd);
    // Whitespace may stand before an extension, not in place of one (RFC 9112 §7.1.1).
    let space = rows.add(wrong, ACT_NONE, 0);
    rows.on(space, CR, cr);
    rows.on(space, LF, done_odd);
    for from in [digit, space] {
        rows.on(from, SPACE, space);
        rows.on(from, TAB, space);
        rows.on_byte(from, b';', extension);
    }
    rows.fill(state::CHUNK, wrong);
    for from in [state::CHUNK, digit] {
        for byte in *b"0123456789abcdefABCDEF" {
            rows.on_byte(from, byte, digit);
        }
    }
    let chunk_odd = rows.like(state::CHUNK, ACT_FLAG, unclear::CHUNK);
    let end_cr = rows.add(wrong, ACT_NONE, 0);
    rows.on(end_cr, LF, state::CHUNK);
    rows.fill(state::CHUNK_END, wrong);
    rows.on(state::CHUNK_END, CR, end_cr);
    rows.on(state::CHUNK_END, LF, chunk_odd);

    let skip = rows.add(0, ACT_NONE, 0);
    rows.fill(skip, skip);
    rows.on(skip, LF, state::TRAILER);
    let trailer_cr = rows.add(skip, ACT_NONE, 0);
    rows.on(trailer_cr, LF, message);
    rows.fill(state::TRAILER, skip);
    rows.on(state::TRAILER, CR, trailer_cr);
    rows.on(state::TRAILER, LF, message_odd);
}
