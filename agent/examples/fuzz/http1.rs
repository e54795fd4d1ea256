//! HTTP/1: conversations, spoiled or whole, in pieces, with holes.

use weir::model::{Call, End, Thread};
use weir::proto::http1::Http1;
use weir::proto::{Chunk, Close, Gap, Parser, STOPPED, Side, Step};

use crate::random::Random;
use crate::talk::{self, Talk, WORDS};
use crate::{Outcome, Target};

/// What a connection's machine may hold: text of waiting requests (256 KiB and one target), the queue, two heads.
const MOST: usize = 1 << 20;

/// The machine.
#[derive(Default)]
pub(crate) struct Machine {
    calls: Vec<Call>,
}

impl Target for Machine {
    fn name(&self) -> &'static str {
        "http1"
    }

    fn weight(&self) -> u32 {
        8
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut talk = talk::valid(random);
        let spoiled = random.one_in(2);
        if spoiled {
            for (_, bytes) in &mut talk.turns {
                if random.one_in(2) {
                    random.mutate(bytes, WORDS);
                }
            }
        }
        if random.one_in(16) {
            let at = random.below(talk.turns.len());
            let len = random.below(64);
            if let Some((_, bytes)) = talk.turns.get_mut(at) {
                random.bytes(bytes, len);
                talk.calls = usize::MAX;
            }
        }
        let holes = random.one_in(3);
        let most = Feed { calls: &mut self.calls, at: 0, seq: [0; 2], most: 0, lines: Vec::new() };
        most.run(&talk, spoiled || talk.calls == usize::MAX, holes, random)
    }
}

struct Feed<'a> {
    calls: &'a mut Vec<Call>,
    at: u64,
    seq: [u32; 2],
    most: usize,
    /// What the client sent, to count request lines.
    lines: Vec<u8>,
}

impl Feed<'_> {
    fn run(mut self, talk: &Talk, spoiled: bool, holes: bool, random: &mut Random) -> Outcome {
        let mut http = Http1::new(holes && random.one_in(4));
        self.calls.clear();
        let mut step = Step::Continue;
        for (side, bytes) in &talk.turns {
            let size = if random.one_in(2) { bytes.len().max(1) } else { 1 + random.below(64) };
            for piece in bytes.chunks(size) {
                if step == Step::Continue {
                    step = self.piece(&mut http, *side, piece, holes, random);
                }
                drop(http.begun());
                self.most = self.most.max(http.held());
            }
        }
        if step == Step::Continue {
            self.end(&mut http, random);
        }
        let lines = self.lines.windows(7).filter(|window| *window == b"HTTP/1.").count();
        if self.calls.len() > lines {
            return Err(format!("{} calls from {lines} request lines", self.calls.len()));
        }
        if self.most > MOST {
            return Err(format!("{} bytes held", self.most));
        }
        let whole = self.calls.iter().filter(|call| call.end == End::Complete).count();
        if !spoiled && !holes && (whole, self.calls.len()) != (talk.calls, talk.calls) {
            return Err(format!("{whole} whole calls of {}, {} were made", self.calls.len(), talk.calls));
        }
        Ok(self.most)
    }

    fn piece(&mut self, http: &mut Http1, side: Side, bytes: &[u8], holes: bool, random: &mut Random) -> Step {
        self.at += random.next() % 1_000_000;
        let Some(seq) = self.seq.get_mut(side as usize) else { return Step::Continue };
        let (at, first) = (self.at, *seq);
        *seq = seq.wrapping_add(bytes.len() as u32);
        if holes && random.one_in(64) {
            http.tick(at.saturating_add(random.next() % 1_000_000_000), self.calls);
        }
        if holes && random.one_in(4) {
            let len = match random.below(8) {
                0 => 0,
                1 => random.next() >> random.below(64),
                _ => bytes.len() as u64,
            };
            let lost = random.one_in(2).then_some("ring_full");
            return http.gap(Gap { side, at, seq: first, len, lost }, self.calls);
        }
        if side == Side::Client {
            self.lines.extend_from_slice(bytes);
        }
        http.feed(Chunk { side, at, seq: first, bytes, by: Thread::default() }, self.calls)
    }

    fn end(&mut self, http: &mut Http1, random: &mut Random) {
        let closes = [
            Close::Fin(Side::Client),
            Close::Fin(Side::Server),
            Close::Reset(None),
            Close::Gone,
            Close::Forgotten(STOPPED),
            Close::Forgotten("connection_table_full"),
        ];
        for _ in 0..2 {
            if let Some(close) = closes.get(random.below(closes.len())) {
                http.close(*close, self.at, self.calls);
            }
        }
        http.close(Close::Gone, self.at, self.calls);
    }
}
