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
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Like {
    /// They can't be one.
    No,
    /// Too few bytes to say.
    Maybe,
    /// A token, a space, and what a target may start with.
    Yes,
}

/// Looks at the first `n` of `bytes` for `method SP request-target` (RFC 9112 §3). Empty lines before it are allowed
/// (§2.2) and leave it open.
#[inline(always)]
pub(crate) fn request(bytes: &[u8; PEEK], n: u32) -> Like {
    if bytes[0] == b'\r' || bytes[0] == b'\n' {
        return Like::Maybe;
    }
    let mut i = 0usize;
    while i < PEEK - 1 {
        if i as u32 >= n {
            return Like::Maybe;
        }
        let c = bytes[i];
        if c == b' ' {
            if i == 0 {
                return Like::No;
            }
            if i as u32 + 1 >= n {
                return Like::Maybe;
            }
            let t = bytes[i + 1];
            return if t == b'/' || t == b'*' || t == b'[' || t.is_ascii_alphanumeric() { Like::Yes } else { Like::No };
        }
        let set = if c < 64 {
            TCHAR[0]
        } else if c < 128 {
            TCHAR[1]
        } else {
            0
        };
        if (set >> (c & 63)) & 1 == 0 {
            return Like::No;
        }
        i += 1;
    }
    Like::Maybe
}

/// Looks for `HTTP/` (RFC 9112 §4), or as much of it as there is.
#[inline(always)]
pub(crate) fn status(bytes: &[u8; PEEK], n: u32) -> bool {
    let want = *b"HTTP/";
    let mut i = 0usize;
    while i < 5 {
        if i as u32 >= n {
            return true;
        }
        if bytes[i] != want[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The signature of the PROXY protocol's version 2, which stands before the first request.
#[inline(always)]
pub(crate) fn proxy_v2(bytes: &[u8; PEEK], n: u32) -> bool {
    n >= 12 && bytes[0] == 0x0d && bytes[1] == 0x0a && bytes[2] == 0x0d && bytes[3] == 0x0a && bytes[4] == 0
}
