//! What a segment starts like. No grammar: enough to tell text protocols with heads from everything else.

use crate::packet::PEEK;

/// tchar of RFC 9110 §5.6.2 as two bit sets, for bytes below 64 and below 128.
const TCHAR: [u64; 2] = tchar();

const fn tchar() -> [u64; 2] {
    let mut set = [0u64; 2];
    let mut c = 0u8;
    while c < 128 {
        let is = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        if is {
            set[(c >> 6) as usize] |= 1 << (c & 63);
        }
        c += 1;
    }
    set
}

/// How much a segment's first bytes look like the start of a request.
pub(crate) mod like {
    /// They can't be one.
    pub(crate) const NO: u32 = 0;
    // 1: too few bytes to say.
    /// A token, a space, and what a target may start with.
    pub(crate) const YES: u32 = 2;
    /// A bit beside: it is how HTTP/2 begins.
    pub(crate) const PREFACE: u32 = 4;
}

/// 1 where `a == b`, else 0, without a branch.
#[inline(always)]
pub(crate) fn same(a: u32, b: u32) -> u32 {
    ((a ^ b).wrapping_sub(1) >> 31) & 1
}

/// All ones of 1, zero of 0.
#[inline(always)]
fn mask(bit: u32) -> u64 {
    i64::from(bit.wrapping_neg().cast_signed()).cast_unsigned()
}

/// 1 where `a < b` (both below 2³¹), else 0, without a branch.
#[inline(always)]
fn below(a: u32, b: u32) -> u32 {
    a.wrapping_sub(b) >> 31
}

/// Looks at the first `n` of `bytes` for `method SP request-target` (RFC 9112 §3). Empty lines before it are allowed
/// (§2.2) and leave it open. Without branches on the bytes: the verifier would follow each way of each byte.
#[inline(always)]
pub(crate) fn request(bytes: &[u8; PEEK], n: u32) -> u32 {
    // `open`: nothing but token bytes so far; `yes`: token, space, target seen.
    let (mut open, mut yes, mut maybe) = (1u32, 0u32, 0u32);
    let mut i = 0usize;
    while i < PEEK - 1 {
        let c = u32::from(bytes[i]);
        let there = below(i as u32, n);
        let space = same(c, u32::from(b' '));
        let next = below(i as u32 + 1, n);
        let target = u32::from(bytes[i + 1]);
        // Visible ASCII: what a target starts with is not looked at more closely.
        let visible = below(0x20, target) & below(target, 0x7f);
        let hit = open & there & space & below(0, i as u32);
        yes |= hit & next & visible;
        maybe |= hit & (1 - next);
        let set = TCHAR[0] & mask(below(c, 64)) | TCHAR[1] & mask(below(c, 128) & (1 - below(c, 64)));
        let token = (set >> (c & 63)) as u32 & 1;
        open &= (token & there) | (1 - there);
        i += 1;
    }
    let first = u32::from(bytes[0]);
    let empty = same(first, u32::from(b'\r')) | same(first, u32::from(b'\n'));
    (yes * like::YES) | ((1 - yes) * (open | maybe | empty))
}

/// 1 where the bytes start with `HTTP/` (RFC 9112 §4), or with as much of it as there is.
#[inline(always)]
pub(crate) fn status(bytes: &[u8; PEEK], n: u32) -> u32 {
    let want = *b"HTTP/";
    let mut is = 1u32;
    let mut i = 0usize;
    while i < 5 {
        is &= same(u32::from(bytes[i]), u32::from(want[i])) | (1 - below(i as u32, n));
        i += 1;
    }
    is
}

/// 1 where `x == 0`, else 0, without a branch.
#[inline(always)]
fn zero(x: u64) -> u32 {
    (((x >> 1 | x & 1).wrapping_sub(1)) >> 63) as u32
}

/// The eight bytes from `at` on.
#[inline(always)]
fn word(bytes: &[u8; PEEK], at: usize) -> u64 {
    let b = |i: usize| bytes[at + i];
    u64::from_le_bytes([b(0), b(1), b(2), b(3), b(4), b(5), b(6), b(7)])
}

/// [`like::PREFACE`] for how HTTP/2 in clear begins, else 0: what a client with prior knowledge says first (RFC 9113
/// §3.4), or what a server says first, which may be before its client says anything: a short SETTINGS frame (§6.5).
/// Word by word: the verifiers of before 6.12 follow each way of each byte.
#[inline(always)]
pub(crate) fn http2(bytes: &[u8; PEEK], n: u32) -> u32 {
    let (one, two) = (word(bytes, 0), word(bytes, 8));
    let client = u64::from_le_bytes(*b"PRI * HT") ^ one | u64::from_le_bytes(*b"TP/2.0\r\n") ^ two;
    // Three bytes of length, of which the last may be anything; type 4; no flags; stream 0.
    let server = (one & !0xff_0000) ^ 0x0400_0000 | two & 0xff;
    (zero(client) & below(PEEK as u32 - 1, n) | zero(server) & below(8, n)) * like::PREFACE
}

/// 1 for the signature of the PROXY protocol's version 2, which stands before the first request.
#[inline(always)]
pub(crate) fn proxy_v2(bytes: &[u8; PEEK], n: u32) -> u32 {
    below(11, n) & same(u32::from(bytes[0]), 13) & same(u32::from(bytes[1]), 10) & same(u32::from(bytes[4]), 0)
}

/// 1 where `n` bytes are enough for a certain answer of [`status`].
#[inline(always)]
pub(crate) fn told(n: u32) -> u32 {
    below(4, n)
}
