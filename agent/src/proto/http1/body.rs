//! Where a body ends (RFC 9112 §6, §7).

use super::fields::Framing;

const LAST_CHUNK_AND_END: &[u8] = b"\r\n0\r\n\r\n";
const EMPTY_LINE: &[u8] = b"\r\n\r\n";

/// A body that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes are left.
    Length(u64),
    /// Chunked, every framing byte seen.
    Chunked(Chunks),
    /// Chunked, framing bytes were not seen: only its end can be told, by its look.
    Windows(Tail),
    /// Until its side closes.
    Close,
    /// Its head was not seen whole, or contradicts itself: only the next message can tell.
    Unknown(Tail),
}

/// What a body made of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that are the body's, its framing included.
    pub(super) wire: u64,
    /// Bytes of content among them; `None`: can't be known any more.
    pub(super) content: Option<u64>,
    /// The body is whole.
    pub(super) whole: bool,
    /// The chunk framing was broken: by its sender, or what came before was not what it looked like.
    pub(super) broken: bool,
}

impl Body {
    /// `None`: there is no body.
    pub(super) fn new(framing: Framing) -> Option<Self> {
        match framing {
            Framing::Length(0) => None,
            Framing::Length(length) => Some(Self::Length(length)),
            Framing::Chunked => Some(Self::Chunked(Chunks::Size { value: 0, digits: 0 })),
            Framing::Close => Some(Self::Close),
            Framing::Invalid => Some(Self::Unknown(Tail::default())),
        }
    }

    /// Takes what follows in the stream. After `whole` the rest is not the body's.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Taken {
        let all = bytes.len() as u64;
        match self {
            Self::Length(left) => {
                let wire = all.min(*left);
                *left -= wire;
                Taken { wire, content: Some(wire), whole: *left == 0, broken: false }
            }
            Self::Chunked(chunks) => {
                let taken = chunks.take(bytes);
                if taken.broken {
                    let mut tail = Tail::default();
                    tail.push(bytes);
                    *self = Self::Unknown(tail);
                    return Taken { wire: all, content: None, whole: false, broken: true };
                }
                taken
            }
            Self::Windows(tail) | Self::Unknown(tail) => {
                tail.push(bytes);
                Taken { wire: all, content: None, whole: false, broken: false }
            }
            Self::Close => Taken { wire: all, content: Some(all), whole: false, broken: false },
        }
    }

    /// How many of the next bytes are only counted, whatever they are.
    pub(super) fn counts(&self) -> u64 {
        match self {
            Self::Length(left) | Self::Chunked(Chunks::Data(left)) => *left,
            Self::Close => u64::MAX,
            Self::Chunked(_) | Self::Windows(_) | Self::Unknown(_) => 0,
        }
    }

    /// Takes bytes that were not seen.
    pub(super) fn skip(&mut self, len: u64) -> Taken {
        match self {
            Self::Length(left) => {
                let wire = len.min(*left);
                *left -= wire;
                Taken { wire, content: Some(wire), whole: *left == 0, broken: false }
            }
            Self::Chunked(Chunks::Data(left)) if len <= *left => {
                let content = Some(len);
                *self = Self::Chunked(Chunks::data(*left - len));
                Taken { wire: len, content, whole: false, broken: false }
            }
            Self::Chunked(_) | Self::Windows(_) => {
                *self = Self::Windows(Tail::default());
                Taken { wire: len, content: None, whole: false, broken: false }
            }
            Self::Unknown(tail) => {
                *tail = Tail::default();
                Taken { wire: len, content: None, whole: false, broken: false }
            }
            Self::Close => Taken { wire: len, content: Some(len), whole: false, broken: false },
        }
    }
}

/// A place in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In a chunk's size.
    Size { value: u64, digits: u8 },
    /// Behind a size: extensions and the line's end.
    Extension { size: u64 },
    /// In data; this much is left.
    Data(u64),
    /// Behind data: its line end.
    DataEnd,
    /// In the trailer section, at the start of a line or (`text`) in it.
    Trailer { text: bool },
}

impl Chunks {
    fn data(left: u64) -> Self {
        if left == 0 { Self::DataEnd } else { Self::Data(left) }
    }

    fn take(&mut self, bytes: &[u8]) -> Taken {
        let mut taken = Taken { wire: 0, content: Some(0), whole: false, broken: false };
        let mut content = 0;
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if let Self::Data(left) = *self {
                let some = left.min(rest.len() as u64);
                content += some;
                rest = rest.get(some as usize..).unwrap_or_default();
                *self = Self::data(left - some);
                continue;
            }
            rest = after;
            match self.step(byte) {
                Some(next) => *self = next,
                None if byte == b'\n' => {
                    taken.whole = true;
                    break;
                }
                None => {
                    taken.broken = true;
                    break;
                }
            }
        }
        taken.wire = (bytes.len() - rest.len()) as u64;
        taken.content = Some(content);
        taken
    }

    /// `None`: with a line feed the body is whole, with any other byte the framing is broken.
    fn step(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                let digit = char::from(byte).to_digit(16)?;
                Some(Self::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (Self::Size { value, digits: 1.. } | Self::Extension { size: value }, b'\n') => {
                Some(if value == 0 { Self::Trailer { text: false } } else { Self::Data(value) })
            }
            (Self::Size { value, digits: 1.. }, b'\r' | b';' | b' ' | b'\t') => Some(Self::Extension { size: value }),
            (Self::Extension { size }, _) => Some(Self::Extension { size }),
            (Self::DataEnd, b'\r') => Some(Self::DataEnd),
            (Self::DataEnd, b'\n') => Some(Self::Size { value: 0, digits: 0 }),
            (Self::Trailer { text: true }, b'\n') => Some(Self::Trailer { text: false }),
            (Self::Trailer { text: false }, b'\n') => None,
            (Self::Trailer { text }, _) => Some(Self::Trailer { text: text || byte != b'\r' }),
            _ => None,
        }
    }
}

/// A line in the middle of `bytes` that is a last chunk's: zeros, and extensions perhaps (RFC 9112 §7.1).
fn has_last_chunk(bytes: &[u8]) -> bool {
    // What stands before the first line feed began before these bytes, what stands behind the last has not ended.
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let before = lines.next().unwrap_or_default();
    let ended = lines.map(|line| line.strip_suffix(b"\r"));
    let last = |line: &[u8]| {
        let zeros = line.iter().take_while(|&&byte| byte == b'0').count();
        zeros > 0 && matches!(line.get(zeros), None | Some(b';' | b' ' | b'\t'))
    };
    (before.is_empty() || before.ends_with(b"\r")) && ended.flatten().any(last)
}

/// The last bytes of a stream, as far back as they are known without a hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    last: [u8; LAST_CHUNK_AND_END.len()],
    known: u8,
    /// A last chunk passed and its trailer section has not ended in a hole since.
    trailer: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        // A last chunk that lies across two pieces with extensions or trailers is not told: a rare thing, and only the
        // moment when the call is shown depends on it.
        self.trailer = bytes.ends_with(EMPTY_LINE) && has_last_chunk(bytes);
        for &byte in bytes.get(bytes.len().saturating_sub(self.last.len())..).unwrap_or_default() {
            self.last.rotate_left(1);
            if let Some(last) = self.last.last_mut() {
                *last = byte;
            }
        }
        self.known = (usize::from(self.known) + bytes.len()).min(self.last.len()) as u8;
    }

    fn bytes(&self) -> &[u8] {
        self.last.get(self.last.len() - usize::from(self.known)..).unwrap_or_default()
    }

    /// It looks like the end of a chunked body.
    pub(super) fn ends_chunked(&self) -> bool {
        self.bytes() == LAST_CHUNK_AND_END || self.trailer
    }

    /// It ends with an empty line, as heads and long trailer sections do.
    pub(super) fn ends_with_empty_line(&self) -> bool {
        self.bytes().ends_with(EMPTY_LINE)
    }

    /// Nothing is known of what came before this place.
    pub(super) fn is_blank(&self) -> bool {
        self.known == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked() -> Body {
        Body::new(Framing::Chunked).unwrap()
    }

    const CONVERSATION: &[u8] = b"5;a=b\r\nhello\r\n00A \n0123456789\r\n0\r\nX: y\r\n\r\nGET";

    #[test]
    fn chunks_in_any_pieces() {
        for size in 1..CONVERSATION.len() {
            let mut body = chunked();
            let (mut wire, mut content) = (0, 0);
            for piece in CONVERSATION.chunks(size) {
                let taken = body.take(piece);
                assert!(!taken.broken);
                wire += taken.wire;
                content += taken.content.unwrap();
                if taken.whole {
                    break;
                }
            }
            assert_eq!((wire, content), (CONVERSATION.len() as u64 - 3, 15), "{size}");
        }
    }

    #[test]
    fn a_hole_inside_a_chunk_costs_nothing() {
        let mut body = chunked();
        body.take(b"400\r\nab");
        assert_eq!(body.skip(1000), Taken { wire: 1000, content: Some(1000), whole: false, broken: false });
        assert_eq!(body.skip(22).content, Some(22));
        let taken = body.take(b"\r\n0\r\n\r\n");
        assert_eq!((taken.whole, taken.content), (true, Some(0)));
    }

    #[test]
    fn a_hole_beyond_a_chunk_leaves_windows() {
        let mut body = chunked();
        body.take(b"400\r\nab");
        assert_eq!(body.skip(1023).content, None);
        let Body::Windows(tail) = body else { panic!("{body:?}") };
        assert!(tail.is_blank());
        for (piece, ends) in [
            (&b"x\r\n0\r\n"[..], false),
            (b"\r\n", true),
            (b"more", false),
            (b"\r\n0\r\nA: b\r\n\r\n", true),
            (b"x\r\n0;a=b;c=\"0\"\r\n\r\n", true),
            (b"\r\n000 ;a\r\nA: b\r\n\r\n", true),
            (b"\r\n0a;a\r\nA: b\r\n\r\n", false),
            (b"\r\n10\r\nA: b\r\n\r\n", false),
            (b"more", false),
            (b"x\r\n", false),
            (b"0\r\n\r\n", true),
            (b"00\r\n\r\n", false),
        ] {
            body.take(piece);
            let Body::Windows(tail) = body else { panic!("{body:?}") };
            assert_eq!(tail.ends_chunked(), ends, "{piece:?}");
        }
    }

    #[test]
    fn broken_chunks_are_told() {
        for bad in [&b"x"[..], b"\r\n", b";a\r\n", b"5\r\nhelloX", b"11112222333344445\r\n", b"-1\r\n"] {
            assert!(chunked().take(bad).broken, "{bad:?}");
        }
    }

    #[test]
    fn lengths_are_arithmetic() {
        let mut body = Body::new(Framing::Length(10)).unwrap();
        assert_eq!(body.skip(4), Taken { wire: 4, content: Some(4), whole: false, broken: false });
        assert_eq!(body.take(b"abcdefgh"), Taken { wire: 6, content: Some(6), whole: true, broken: false });
        assert_eq!(Body::new(Framing::Length(0)), None);
    }
}
