//! Streams against what was sent.

use proptest::prelude::*;
use weir_common::record::{SEG_AHEAD, SEG_BEHIND, SEG_FIN};

use super::islands::Island;
use super::{Piece, Room, Sink, Stream};
use crate::flow::Settings;
use crate::model::Thread;

/// What came out, in order.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Out {
    Bytes(u32, Vec<u8>),
    Gap(u32, u64, Option<&'static str>),
    Fin,
}

#[derive(Default)]
struct Log(Vec<Out>);

impl Sink for Log {
    fn bytes(&mut self, _: u64, seq: u32, bytes: &[u8], _: Thread) {
        match self.0.last_mut() {
            Some(Out::Bytes(first, all)) => {
                assert_eq!(first.wrapping_add(all.len() as u32), seq, "bytes out of order");
                all.extend_from_slice(bytes);
            }
            _ => self.0.push(Out::Bytes(seq, bytes.to_vec())),
        }
    }
    fn gap(&mut self, _: u64, seq: u32, len: u64, lost: Option<&'static str>) {
        self.0.push(Out::Gap(seq, len, lost));
    }
    fn fin(&mut self, _: u64) {
        self.0.push(Out::Fin);
    }
}

fn room() -> Room {
    Room { settings: Settings::default(), used: 0, given_up: 0 }
}

fn piece(seq: u32, kept: &[u8]) -> Piece<'_> {
    Piece { at: 1, seq, len: kept.len() as u32, kept, tail: false, by: Thread::default(), given_up: false }
}

/// Runs segments `(seq, bytes, flags, lost)` through a stream that starts at `start`.
fn run(start: u32, segments: &[(u32, &[u8], u8, bool)]) -> (Vec<Out>, Room, Stream) {
    let (mut stream, mut room, mut log) = (Stream::starting_at(start), room(), Log::default());
    for (seq, bytes, flags, lost) in segments {
        stream.take(piece(*seq, bytes), *flags, *lost, &mut room, &mut log);
    }
    (log.0, room, stream)
}

fn bytes(seq: u32, text: &[u8]) -> Out {
    Out::Bytes(seq, text.to_vec())
}

#[test]
fn in_order_goes_through() {
    let (out, room, stream) = run(10, &[(10, b"ab", 0, false), (12, b"cd", SEG_FIN, false)]);
    assert_eq!(out, [bytes(10, b"abcd"), Out::Fin]);
    assert_eq!((room.used, room.given_up, stream.waits()), (0, 0, false));
}

#[test]
fn an_early_segment_waits() {
    let (out, room, stream) = run(
        10,
        &[(12, b"cd", SEG_AHEAD, false), (14, b"ef", SEG_AHEAD | SEG_FIN, false), (10, b"ab", SEG_BEHIND, false)],
    );
    assert_eq!(out, [bytes(10, b"abcdef"), Out::Fin]);
    assert_eq!((room.used, room.given_up, stream.waits()), (0, 0, false));
}

#[test]
fn the_sequence_space_wraps() {
    let start = u32::MAX - 2;
    let (out, ..) = run(start, &[(1, b"ef", SEG_AHEAD, false), (start, b"abcd", SEG_BEHIND, false)]);
    assert_eq!(out, [bytes(start, b"abcdef")]);
}

#[test]
fn what_the_ring_refused_is_a_gap_at_once() {
    let (out, ..) = run(10, &[(10, b"ab", 0, false), (20, b"cd", 0, true), (22, b"ef", 0, false)]);
    assert_eq!(out, [bytes(10, b"ab"), Out::Gap(12, 8, Some("ring_full")), bytes(20, b"cdef")]);
}

#[test]
fn more_than_half_the_sequence_space_was_refused() {
    let (out, ..) = run(10, &[(10, b"ab", 0, false), (12 + 3_000_000_000, b"cd", 0, true)]);
    assert_eq!(out, [bytes(10, b"ab"), Out::Gap(12, 3_000_000_000, Some("ring_full")), bytes(3_000_000_012, b"cd")]);
}

#[test]
fn a_refused_filler_lets_its_islands_go_when_tcp_has_it() {
    let (out, room, stream) =
        run(10, &[(12, b"cd", SEG_AHEAD, false), (14, b"ef", SEG_AHEAD, true), (20, b"gh", 0, false)]);
    assert_eq!(
        out,
        [Out::Gap(10, 2, Some("ring_full")), bytes(12, b"cdef"), Out::Gap(16, 4, Some("ring_full")), bytes(20, b"gh")]
    );
    assert_eq!((room.used, room.given_up, stream.waits()), (0, 0, false));
}

#[test]
fn the_first_segment_may_not_be_the_first_byte() {
    let (mut stream, mut room, mut log) = (Stream::default(), room(), Log::default());
    stream.take(piece(50, b"ab"), 0, true, &mut room, &mut log);
    assert_eq!(log.0, [Out::Gap(50, 0, Some("ring_full")), bytes(50, b"ab")]);
}

#[test]
fn overlaps_are_cut() {
    let (out, room, _) = run(
        10,
        &[
            (14, b"ef", SEG_AHEAD, false),
            (12, b"cdefgh", SEG_BEHIND, false),
            (10, b"abc", SEG_BEHIND, false),
            (10, b"abcdef", SEG_BEHIND, false),
            (17, b"hij", SEG_BEHIND, false),
        ],
    );
    assert_eq!(out, [bytes(10, b"abcdefghij")]);
    assert_eq!((room.used, room.given_up), (0, 0));
}

#[test]
fn a_forged_segment_ahead_loses_against_the_stream() {
    let (out, room, stream) = run(
        10,
        &[
            (13, b"GET /forged", SEG_AHEAD, false),
            (10, b"abcdef", SEG_BEHIND, false),
            (16, b"ghi", SEG_BEHIND, false),
            (19, b"jklmnop", SEG_BEHIND, false),
        ],
    );
    assert_eq!(out, [bytes(10, b"abcdefghijklmnop")]);
    assert_eq!((room.used, room.given_up, stream.waits()), (0, 1, false));
}

#[test]
fn a_segment_beyond_reach_is_left_out() {
    let (out, room, stream) = run(10, &[(10 + (17 << 20), b"xx", SEG_AHEAD, false), (10, b"ab", SEG_BEHIND, false)]);
    assert_eq!(out, [bytes(10, b"ab")]);
    assert_eq!((room.given_up, stream.waits()), (1, false));
}

#[test]
fn a_forged_fin_ends_nothing() {
    let (out, ..) = run(
        10,
        &[
            (500, b"", SEG_AHEAD | SEG_FIN, false),
            (10, b"ab", SEG_BEHIND, false),
            (12, b"cd", SEG_BEHIND | SEG_FIN, false),
        ],
    );
    assert_eq!(out, [bytes(10, b"abcd"), Out::Fin]);
}

#[test]
fn the_furthest_lose_their_bytes_first() {
    let mut room = room();
    room.settings.stream_bytes = 5;
    room.settings.stream_segments = 3;
    let (mut stream, mut log) = (Stream::starting_at(10), Log::default());
    for seq in [12, 16, 20, 24] {
        stream.take(piece(seq, b"xy"), SEG_AHEAD, false, &mut room, &mut log);
    }
    assert_eq!((room.used, room.given_up), (3 * size_of::<Island>() + 4, 1));
    for (seq, text) in [(10, b"ab"), (14, b"ef"), (18, b"ij"), (22, b"mn")] {
        stream.take(piece(seq, text), SEG_BEHIND, false, &mut room, &mut log);
    }
    assert_eq!(log.0, [bytes(10, b"abxyefxyij"), Out::Gap(20, 2, Some("reorder")), bytes(22, b"mn")]);
    assert_eq!(room.used, 0);
}

#[test]
fn a_whole_window_may_wait_for_its_first_segment() {
    const LEN: u32 = 4096;
    let (mut stream, mut room, mut log) = (Stream::starting_at(0), room(), Log::default());
    let long = |n: u32| Piece { len: LEN, tail: true, ..piece(n * LEN, &[b'x'; 32]) };
    for n in 1..1536 {
        stream.take(long(n), SEG_AHEAD, false, &mut room, &mut log);
    }
    assert_eq!((log.0.len(), room.given_up), (0, 0));
    stream.take(long(0), SEG_BEHIND, false, &mut room, &mut log);
    assert_eq!((stream.next, stream.waits(), room.used, room.given_up), (1536 * LEN, false, 0, 0));
    assert!(log.0.iter().all(|out| !matches!(out, Out::Gap(.., Some(_)))));
}

#[test]
fn patience_ends() {
    let (_, mut room, mut stream) = run(10, &[(12, b"cd", SEG_AHEAD, false)]);
    let mut log = Log::default();
    stream.expire(30_000_000_000, &mut room, &mut log);
    assert!(stream.waits());
    stream.expire(30_000_000_002, &mut room, &mut log);
    assert_eq!((stream.waits(), room.given_up, room.used), (false, 1, 0));
    stream.take(piece(14, b"ef"), 0, false, &mut room, &mut log);
    assert_eq!(log.0, [Out::Gap(10, 4, Some("reorder")), bytes(14, b"ef")]);
}

#[test]
fn doubt_ends_sooner_and_keeps_what_came() {
    let (_, mut room, mut stream) = run(10, &[(12, b"cd", SEG_AHEAD, false), (20, b"kl", SEG_AHEAD, true)]);
    let mut log = Log::default();
    stream.expire(1_000_000_001, &mut room, &mut log);
    let (lost, kept) = (Some("ring_full"), [bytes(12, b"cd"), bytes(20, b"kl")]);
    assert_eq!(log.0, [Out::Gap(10, 2, lost), kept[0].clone(), Out::Gap(14, 6, lost), kept[1].clone()]);
    assert_eq!((stream.waits(), room.used, room.given_up), (false, 0, 0));
}

#[test]
fn an_end_gives_up_what_nobody_received() {
    let (_, mut room, mut stream) = run(10, &[(12, b"cd", SEG_AHEAD, false)]);
    let mut log = Log::default();
    stream.settle(9, &mut room, &mut log);
    assert_eq!((log.0.len(), stream.waits(), room.given_up, room.used), (0, false, 1, 0));
}

#[test]
fn windows_make_gaps() {
    let (mut stream, mut room, mut log) = (Stream::starting_at(0), room(), Log::default());
    stream.take(Piece { len: 10, ..piece(0, b"abc") }, 0, false, &mut room, &mut log);
    stream.take(Piece { len: 10, tail: true, ..piece(10, b"xyz") }, 0, false, &mut room, &mut log);
    assert_eq!(log.0, [bytes(0, b"abc"), Out::Gap(3, 7, None), Out::Gap(10, 7, None), bytes(17, b"xyz")]);
}

#[test]
fn windows_are_cut_where_they_are() {
    for tail in [false, true] {
        for kept in 0..=8u8 {
            let all: Vec<u8> = (0..kept).collect();
            let whole = Piece { len: 8, tail, ..piece(100, &all) };
            for from in 0..=8 {
                for to in from..=8 {
                    let (mut parts, mut once) = (Log::default(), Log::default());
                    for part in [whole.cut(0, from), whole.cut(from, to), whole.cut(to, 8)] {
                        assert!(part.kept.len() as u32 <= part.len);
                        part.give(&mut parts);
                    }
                    whole.give(&mut once);
                    assert_eq!(flat(&parts.0), flat(&once.0), "{tail} {kept} {from} {to}");
                }
            }
        }
    }
}

/// Every place of a stream with its byte, or that it is a gap.
fn flat(out: &[Out]) -> Vec<(u32, Option<u8>)> {
    let mut all = Vec::new();
    for out in out {
        match out {
            Out::Bytes(seq, bytes) => all.extend((*seq..).zip(bytes.iter().map(|byte| Some(*byte)))),
            Out::Gap(seq, len, _) => all.extend((*seq..).take(*len as usize).map(|seq| (seq, None))),
            Out::Fin => {}
        }
    }
    all
}

/// The kernel half's own judgement of a segment (`track::sequence`), TCP being slow to say that a hole was filled.
struct Judge {
    next: u32,
    hole: Option<u32>,
}

impl Judge {
    fn flags(&mut self, seq: u32, len: u32) -> Option<(u32, u8)> {
        let end = seq.wrapping_add(len);
        let ahead = seq.wrapping_sub(self.next).cast_signed();
        if ahead >= 0 {
            if ahead > 0 && self.hole.is_none() {
                self.hole = Some(self.next);
            }
            self.next = end;
            return Some((seq, if self.hole.is_some() { SEG_AHEAD } else { 0 }));
        }
        let over = end.wrapping_sub(self.next).cast_signed();
        if self.hole.is_some_and(|hole| end.wrapping_sub(hole).cast_signed() > 0) {
            if over > 0 {
                self.next = end;
            }
            return Some((seq, SEG_BEHIND));
        }
        if over > 0 {
            let first = self.next;
            self.next = end;
            return Some((first, 0));
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_order_gives_the_same_bytes(
        start: u32,
        len in 1usize..400,
        mut cuts in prop::collection::vec((0usize..400, 1usize..60, any::<u32>()), 0..60),
        last: u32,
    ) {
        let sent: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        // Whatever overlaps and repeats, and each byte at least once.
        cuts.extend((0..len).step_by(13).map(|at| (at, 13, last.rotate_left(at as u32))));
        cuts.sort_by_key(|cut| cut.2);
        let (mut stream, mut room, mut log) = (Stream::starting_at(start), room(), Log::default());
        let mut judge = Judge { next: start, hole: None };
        for (at, size, _) in cuts {
            let Some(bytes) = sent.get(at..len.min(at + size)).filter(|bytes| !bytes.is_empty()) else { continue };
            let seq = start.wrapping_add(at as u32);
            let Some((first, flags)) = judge.flags(seq, bytes.len() as u32) else { continue };
            let new = &bytes[first.wrapping_sub(seq) as usize..];
            stream.take(piece(first, new), flags, false, &mut room, &mut log);
        }
        prop_assert_eq!(&log.0, &[Out::Bytes(start, sent)]);
        prop_assert_eq!((room.used, room.given_up, stream.waits()), (0, 0, false));
    }

    #[test]
    fn nothing_grows_or_breaks(
        segments in prop::collection::vec((any::<u32>(), 0u32..5, 0u32..300, 0usize..300, 0u8..32, any::<bool>()), 0..200),
        bound in 1usize..700,
    ) {
        let data = [0u8; 300];
        let (mut stream, mut room, mut log) = (Stream::default(), room(), Log::default());
        room.settings.stream_bytes = bound;
        room.settings.total_bytes = bound;
        room.settings.stream_segments = 4;
        for (i, (seq, near, len, kept, flags, lost)) in segments.into_iter().enumerate() {
            let seq = if near > 0 { stream.next.wrapping_add(seq % 2000).wrapping_sub(1000) } else { seq };
            let kept = &data[..kept.min(len as usize)];
            let piece = Piece { at: i as u64, seq, len, kept, tail: near == 1, by: Thread::default(), given_up: false };
            stream.take(piece, flags, lost, &mut room, &mut log);
            prop_assert!(room.used <= bound);
            log.0.clear();
        }
        stream.settle(0, &mut room, &mut log);
        prop_assert_eq!((room.used, stream.waits()), (0, false));
    }
}
