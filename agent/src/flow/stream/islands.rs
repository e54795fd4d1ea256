//! Segments that wait for an earlier one: a sorted set of ranges that do not overlap.

use std::collections::VecDeque;

use crate::model::Thread;

use super::REORDER;
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
    lost: Option<&'static str>,
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
            lost: piece.lost,
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
            lost: self.lost,
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

    /// Keeps the bounds: the islands that are furthest ahead lose their bytes, then themselves. Gives how many. `total`
    /// bounds the memory `used` by all streams together.
    pub(super) fn keep_within(&mut self, bytes: usize, count: usize, total: usize, used: &mut usize) -> u64 {
        let mut given_up = 0;
        while self.sorted.len() > count {
            given_up += self.leave(used);
        }
        for island in self.sorted.iter_mut().rev() {
            if self.bytes <= bytes && *used <= total {
                return given_up;
            }
            if island.lost.is_none() {
                self.bytes -= island.kept.len();
                *used -= island.kept.len();
                island.kept = Box::default();
                island.lost = Some(REORDER);
                given_up += 1;
            }
        }
        while *used > total && !self.is_empty() {
            given_up += self.leave(used);
        }
        given_up
    }

    /// The one that is furthest ahead leaves. Gives 1 where it was whole, else 0.
    fn leave(&mut self, used: &mut usize) -> u64 {
        let Some(island) = self.sorted.pop_back() else { return 0 };
        self.bytes -= island.kept.len();
        *used -= island.size();
        u64::from(island.lost.is_none())
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
                given_up += u64::from(island.lost.is_none());
            }
            stays
        });
        given_up
    }
}
