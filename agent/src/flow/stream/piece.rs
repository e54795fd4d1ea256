//! A range of a stream with what was kept of it.

use crate::model::Thread;

use super::REORDER;

/// What a stream gives, in its order.
pub(crate) trait Sink {
    /// Bytes that were kept.
    fn bytes(&mut self, at: u64, seq: u32, bytes: &[u8], by: Thread);
    /// Bytes that passed and are not there; `lost` as in `proto::Gap`.
    fn gap(&mut self, at: u64, seq: u32, len: u64, lost: Option<&'static str>);
    /// Bytes that waited and were given up: a gap for that reason, unless nobody wanted more than their number.
    fn given_up(&mut self, at: u64, seq: u32, len: u64) {
        self.gap(at, seq, len, Some(REORDER));
    }
    /// The stream ended.
    fn fin(&mut self, at: u64);
}

/// A range of a stream: `len` bytes from `seq`, of which the first (or last, with `tail`) are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// When it passed.
    pub at: u64,
    /// Sequence number of its first byte.
    pub seq: u32,
    /// How many bytes it has.
    pub len: u32,
    /// What was kept, at most `len` bytes.
    pub kept: &'a [u8],
    /// The kept bytes are its last ones.
    pub tail: bool,
    /// Thread that sent it.
    pub by: Thread,
    /// It passed, but what was kept of it was given up.
    pub given_up: bool,
}

impl Piece<'_> {
    /// Sequence number behind its last byte.
    pub(crate) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len)
    }

    /// Where the kept bytes are, as offsets into the range.
    fn window(&self) -> (u32, u32) {
        let kept = (self.kept.len() as u32).min(self.len);
        if self.tail { (self.len - kept, self.len) } else { (0, kept) }
    }

    /// The part from offset `from` to offset `to`.
    pub(crate) fn cut(self, from: u32, to: u32) -> Self {
        if from == 0 && to == self.len {
            return self;
        }
        let (first, last) = self.window();
        let (a, b) = (from.clamp(first, last), to.clamp(first, last));
        let kept = self.kept.get((a - first) as usize..(b.max(a) - first) as usize).unwrap_or_default();
        // A part of a tail is a tail again, a part of a beginning a beginning; a middle is both.
        Self { seq: self.seq.wrapping_add(from), len: to - from, kept, ..self }
    }

    /// Hands it over.
    pub(crate) fn give(&self, sink: &mut impl Sink) {
        if self.given_up {
            sink.given_up(self.at, self.seq, self.len.into());
            return;
        }
        let (first, last) = self.window();
        if first > 0 {
            sink.gap(self.at, self.seq, first.into(), None);
        }
        if last > first {
            sink.bytes(self.at, self.seq.wrapping_add(first), self.kept, self.by);
        }
        if last < self.len {
            sink.gap(self.at, self.seq.wrapping_add(last), (self.len - last).into(), None);
        }
    }

    /// Whether both have bytes of the same place, and they differ.
    pub(crate) fn contradicts(&self, other: &Piece<'_>) -> bool {
        let first = |piece: &Piece<'_>| piece.seq.wrapping_add(piece.window().0);
        let apart = first(other).wrapping_sub(first(self)).cast_signed();
        let later = apart.unsigned_abs() as usize;
        let (mine, theirs) = if apart >= 0 {
            (self.kept.get(later..).unwrap_or_default(), other.kept)
        } else {
            (self.kept, other.kept.get(later..).unwrap_or_default())
        };
        mine.iter().zip(theirs).any(|(mine, theirs)| mine != theirs)
    }
}
