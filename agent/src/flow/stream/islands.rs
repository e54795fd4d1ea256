//! Segments that wait for an earlier one: a sorted set of ranges that do not overlap.

use std::collections::VecDeque;

use crate::model::Thread;

use super::piece::Piece;

/// A [`Piece`] that owns its bytes.
#[derive(Debug)]
pub(super) struct Island {
    at: u64,
    seq: u32,
    len: u32,
    kept: Box<[u8]>,
    tail: bool,
    by: Thread,
    given_up: bool,
}

impl Island {
    fn new(piece: &Piece<'_>) -> Self {
        Self {
            at: piece.at,
            seq: piece.seq,
            len: piece.len,
            kept: piece.kept.into(),
            tail: piece.tail,
            by: piece.by,
            given_up: piece.given_up,
        }
    }

    /// Borrows it.
    pub(super) fn piece(&self) -> Piece<'_> {
        Piece {
            at: self.at,
            seq: self.seq,
            len: self.len,
            kept: &self.kept,
            tail: self.tail,
            by: self.by,
            given_up: self.given_up,
        }
    }

    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len)
    }

    /// Bytes of memory.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.kept.len()
    }
}

/// Waiting segments of one direction.
#[derive(Debug, Default)]
pub(super) struct Islands {
    sorted: VecDeque<Island>,
    /// Of their segments, without what an island takes itself.
    bytes: usize,
}

impl Islands {
    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Sequence number of the first byte that waits.
    pub(super) fn first(&self) -> Option<u32> {
        self.sorted.front().map(|island| island.seq)
    }

    /// When the one that waits longest passed.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.sorted.iter().map(|island| island.at).min()
    }

    /// Adds what is new of `piece`; it starts behind `next`. What is there already stays.
    pub(super) fn insert(&mut self, next: u32, piece: Piece<'_>, used: &mut usize) {
        let offset = |seq: u32| seq.wrapping_sub(next);
        let end = offset(piece.seq) + piece.len;
        let mut at = offset(piece.seq);
        let mut i = self.sorted.partition_point(|island| offset(island.end()) <= at);
        while at < end {
            let found = self.sorted.get(i).map(|island| (offset(island.seq), offset(island.end())));
            match found {
                Some((from, to)) if from <= at => at = to,
                other => {
                    let to = other.map_or(end, |(from, _)| from.min(end));
                    let start = offset(piece.seq);
                    let island = Island::new(&piece.cut(at - start, to - start));
                    self.bytes += island.kept.len();
                    *used += island.size();
                    self.sorted.insert(i, island);
                    at = to;
                }
            }
            i += 1;
        }
    }

    /// Keeps the bounds: the islands that are furthest ahead give up their bytes, which is told when their turn comes, then
    /// themselves. Gives how many of these. `total` bounds the memory `used` by all streams together.
    pub(super) fn keep_within(&mut self, bytes: usize, count: usize, total: usize, used: &mut usize) -> u64 {
        let mut given_up = 0;
        while self.sorted.len() > count {
            given_up += self.leave(used);
        }
        for island in self.sorted.iter_mut().rev() {
            if self.bytes <= bytes && *used <= total {
                return given_up;
            }
            self.bytes -= island.kept.len();
            *used -= island.kept.len();
            island.given_up |= !island.kept.is_empty();
            island.kept = Box::default();
        }
        while *used > total && !self.is_empty() {
            given_up += self.leave(used);
        }
        given_up
    }

    /// The one that is furthest ahead leaves. Gives 1, if there was one.
    fn leave(&mut self, used: &mut usize) -> u64 {
        let Some(island) = self.sorted.pop_back() else { return 0 };
        self.bytes -= island.kept.len();
        *used -= island.size();
        1
    }

    /// Takes the first island if it starts at or before `next`.
    pub(super) fn pop_reached(&mut self, next: u32, used: &mut usize) -> Option<Island> {
        if self.sorted.front()?.seq.wrapping_sub(next).cast_signed() > 0 {
            return None;
        }
        let island = self.sorted.pop_front()?;
        self.bytes -= island.kept.len();
        *used -= island.size();
        Some(island)
    }

    /// Gives up what passed before `at`. Gives how many.
    pub(super) fn drop_before(&mut self, at: u64, used: &mut usize) -> u64 {
        let mut given_up = 0;
        self.sorted.retain(|island| {
            let stays = island.at >= at;
            if !stays {
                self.bytes -= island.kept.len();
                *used -= island.size();
                given_up += 1;
            }
            stays
        });
        given_up
    }
}
