//! One direction of a connection: segments in the order of their passing go in, bytes in the order of the stream come
//! out, each once.
//!
//! Fed at once, without a copy: whatever starts at (or before) the next expected byte. The kernel half says of every
//! other segment whether an earlier one may still come (`SEG_AHEAD`, `SEG_BEHIND`: it waits as an island) or TCP itself
//! has everything before it (no flag: what is missing was refused by the ring, and is a gap at once).
//!
//! Forged segments pass the kernel half's hook, which runs before TCP's own checks. Behind the stream they are cut
//! away, ahead of it they wait like any other and are left out when they contradict what is contiguous. One that lies
//! exactly where the stream will continue can't be told from the stream's own; TCP takes such a one too.

mod islands;
mod piece;
#[cfg(test)]
mod tests;

use weir_common::record::{SEG_AHEAD, SEG_BEHIND, SEG_FIN};

use islands::Islands;
pub(super) use piece::{Piece, Sink};

use super::Settings;

/// Reason of a gap: the ring refused a record.
pub(super) const RING_FULL: &str = "ring_full";
/// Reason of a gap: a segment was too far ahead of its stream to be kept.
pub(super) const REORDER: &str = "reorder";

/// A wrap of the sequence space is only believed beyond this many bytes.
const WRAP: i32 = -(1 << 30);

/// What all streams of a worker share.
#[derive(Debug)]
pub(super) struct Room {
    /// Bounds.
    pub settings: Settings,
    /// Bytes that wait now, all streams together.
    pub used: usize,
    /// Segments that were given up since this was last read.
    pub given_up: u64,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// It is not known where it begins.
    #[default]
    Before,
    /// `next` is known.
    Running,
    /// FIN was reached.
    Ended,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Stream {
    next: u32,
    phase: Phase,
    /// The ring refused records while segments waited.
    doubt: bool,
    /// Waiting segments were given up.
    dropped: bool,
    fin: Option<u32>,
    islands: Option<Box<Islands>>,
}

impl Stream {
    /// A stream whose first byte is known.
    pub(super) fn starting_at(next: u32) -> Self {
        Self { next, phase: Phase::Running, ..Self::default() }
    }

    /// Whether segments wait for an earlier one.
    pub(super) fn waits(&self) -> bool {
        self.islands.is_some()
    }

    /// The ring refused records of this connection.
    pub(super) fn doubt(&mut self) {
        self.doubt |= self.islands.is_some();
    }

    /// Tells at once what was refused before a segment, without taking it: where a record holds segments of both ways,
    /// what is missing of each passed before either.
    pub(super) fn catch_up(&mut self, seq: u32, at: u64, flags: u8, room: &mut Room, sink: &mut impl Sink) {
        let waits = flags & (SEG_AHEAD | SEG_BEHIND) != 0;
        if self.phase == Phase::Running && !waits && seq.wrapping_sub(self.next).cast_signed() > 0 {
            self.skip_to(seq, at, room, sink);
        }
    }

    /// Takes a segment. `lost`: the ring refused records of this connection since the record before.
    pub(super) fn take(&mut self, piece: Piece<'_>, flags: u8, lost: bool, room: &mut Room, sink: &mut impl Sink) {
        if self.phase == Phase::Ended {
            return;
        }
        let waits = flags & (SEG_AHEAD | SEG_BEHIND) != 0;
        if self.phase == Phase::Before {
            self.start(&piece, waits, lost, sink);
        }
        let ahead = piece.seq.wrapping_sub(self.next).cast_signed();
        if ahead > 0 {
            if waits {
                self.wait(piece, flags, lost, room);
                return;
            }
            self.skip_to(piece.seq, piece.at, room, sink);
        } else if ahead < WRAP && !waits && lost {
            self.drop_islands(room);
            sink.gap(piece.at, self.next, piece.seq.wrapping_sub(self.next).into(), Some(RING_FULL));
            self.next = piece.seq;
        }
        if flags & SEG_FIN != 0 {
            self.fin = Some(piece.end());
        }
        let at = piece.at;
        let old = self.next.wrapping_sub(piece.seq);
        if old < piece.len {
            self.feed(piece.cut(old, piece.len), room, sink);
        }
        self.finish(at, sink);
    }

    /// Time passes: gives up what waited too long. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn expire(&mut self, now: u64, room: &mut Room, sink: &mut impl Sink) {
        let Some(islands) = &mut self.islands else { return };
        if self.doubt {
            if islands.oldest().is_some_and(|at| now.saturating_sub(at) >= room.settings.doubt_ns) {
                self.flush(now, room, sink);
            }
            return;
        }
        let given_up = islands.drop_before(now.saturating_sub(room.settings.patience_ns), &mut room.used);
        room.given_up += given_up;
        self.dropped |= given_up > 0;
        if islands.is_empty() {
            self.islands = None;
        }
    }

    /// The connection ends: what waits is given up, or fed after a gap where the ring may have refused what it waits for.
    pub(super) fn settle(&mut self, at: u64, room: &mut Room, sink: &mut impl Sink) {
        if self.doubt {
            self.flush(at, room, sink);
        } else {
            self.drop_islands(room);
        }
    }

    /// Nobody reads it any more: what waits is of no use, and no loss.
    pub(super) fn forget(&mut self, room: &mut Room) {
        if let Some(mut islands) = self.islands.take() {
            islands.drop_before(u64::MAX, &mut room.used);
        }
        self.doubt = false;
    }

    fn start(&mut self, piece: &Piece<'_>, waits: bool, lost: bool, sink: &mut impl Sink) {
        self.phase = Phase::Running;
        self.next = piece.seq;
        if waits || lost {
            // Something came before, nobody knows how much.
            sink.gap(piece.at, piece.seq, 0, Some(if lost { RING_FULL } else { REORDER }));
        }
    }

    fn wait(&mut self, piece: Piece<'_>, flags: u8, lost: bool, room: &mut Room) {
        if piece.seq.wrapping_sub(self.next) > room.settings.reach {
            room.given_up += 1;
            return;
        }
        if flags & SEG_FIN != 0 && self.fin.is_none() {
            self.fin = Some(piece.end());
        }
        if piece.len == 0 {
            return;
        }
        // What was refused may be what this waits for.
        self.doubt |= lost;
        let islands = self.islands.get_or_insert_default();
        islands.insert(self.next, piece, &mut room.used);
        let settings = room.settings;
        let over =
            islands.keep_within(settings.stream_bytes, settings.stream_segments, settings.total_bytes, &mut room.used);
        room.given_up += over;
        self.dropped |= over > 0;
        if islands.is_empty() {
            self.islands = None;
            self.doubt = false;
        }
    }

    /// Feeds what starts at the next expected byte, then every island that has become contiguous. An island that
    /// overlaps with different bytes was forged: what is contiguous wins.
    fn feed(&mut self, piece: Piece<'_>, room: &mut Room, sink: &mut impl Sink) {
        piece.give(sink);
        self.next = piece.end();
        if self.islands.is_some() {
            self.join(Some(&piece), room, sink);
        }
    }

    fn join(&mut self, fed: Option<&Piece<'_>>, room: &mut Room, sink: &mut impl Sink) {
        let Some(islands) = &mut self.islands else { return };
        while let Some(island) = islands.pop_reached(self.next, &mut room.used) {
            let piece = island.piece();
            if fed.is_some_and(|fed| fed.contradicts(&piece)) {
                room.given_up += 1;
                continue;
            }
            let old = self.next.wrapping_sub(piece.seq);
            if old < piece.len {
                piece.cut(old, piece.len).give(sink);
                self.next = piece.end();
            }
        }
        if islands.is_empty() {
            self.islands = None;
            self.doubt = false;
        }
    }

    /// Everything before `seq` that is not there was not seen.
    fn skip_to(&mut self, seq: u32, at: u64, room: &mut Room, sink: &mut impl Sink) {
        loop {
            let first = self.islands.as_ref().and_then(|islands| islands.first());
            let to = match first {
                Some(first) if first.wrapping_sub(self.next) < seq.wrapping_sub(self.next) => first,
                _ => seq,
            };
            let len = to.wrapping_sub(self.next);
            if len > 0 {
                let reason = if self.dropped { REORDER } else { RING_FULL };
                sink.gap(at, self.next, len.into(), Some(reason));
                self.next = to;
            }
            if to == seq {
                break;
            }
            self.join(None, room, sink);
            if self.next.wrapping_sub(seq).cast_signed() >= 0 {
                break;
            }
        }
        self.dropped = false;
    }

    /// Feeds every island, with gaps between.
    fn flush(&mut self, at: u64, room: &mut Room, sink: &mut impl Sink) {
        while let Some(first) = self.islands.as_ref().and_then(|islands| islands.first()) {
            self.skip_to(first, at, room, sink);
            self.join(None, room, sink);
        }
        self.islands = None;
        self.doubt = false;
        self.finish(at, sink);
    }

    fn drop_islands(&mut self, room: &mut Room) {
        if let Some(mut islands) = self.islands.take() {
            room.given_up += islands.drop_before(u64::MAX, &mut room.used);
        }
        self.doubt = false;
    }

    fn finish(&mut self, at: u64, sink: &mut impl Sink) {
        let Some(fin) = self.fin else { return };
        match fin.wrapping_sub(self.next).cast_signed() {
            0 => {
                self.phase = Phase::Ended;
                sink.fin(at);
            }
            ..0 => self.fin = None,
            1.. => {}
        }
    }
}
