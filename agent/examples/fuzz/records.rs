//! Records of the kernel half: decoded, and assembled to calls.

use std::sync::Arc;

use weir::clock::Offset;
use weir::flow::{self, Output, Worker};
use weir::kernel::decode;
use weir::meter::Meter;
use weir::model::Event;
use weir::proto::Side;
use weir_common::record::{HOLD, Kind, SEG_AHEAD, SEG_BEHIND, SEG_FIN, SEG_TAIL};

use crate::random::Random;
use crate::talk::{self, WORDS};
use crate::{Outcome, Target};

/// Size of the record head; of a segment.
const HEAD: usize = 24;
const SEGMENT: usize = 24;
/// Connections that an [`Assembly`] may hold.
const CONNECTIONS: usize = 2;

/// Any bytes as a record.
#[derive(Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
}

impl Target for Decoder {
    fn name(&self) -> &'static str {
        "decode"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        self.bytes.clear();
        let len = random.below(1200);
        random.bytes(&mut self.bytes, len);
        if let Some([kind, more, ..]) = self.bytes.get_mut(..2) {
            (*kind, *more) = (random.below(11) as u8, 0);
        }
        for at in [HEAD + 16, HEAD + 16 + SEGMENT, 68, 69, 40] {
            // Lengths that may fit.
            if let Some(length) = self.bytes.get_mut(at..at + 4).filter(|_| random.one_in(2)) {
                length.copy_from_slice(&(random.below(700) as u32).to_ne_bytes());
            }
        }
        let kept = match decode::decode(&self.bytes) {
            Some(Event::Bytes(bytes, kept)) => (bytes.segment.kept as usize, kept.len()),
            Some(Event::Pair(pair, request, response)) => {
                (pair.request.kept as usize + pair.response.kept as usize, request.len() + response.len())
            }
            Some(Event::Dns(dns, kept)) => (dns.kept as usize, kept.len()),
            Some(Event::Exec(exec, args)) => (exec.len as usize, args.len()),
            _ => (0, 0),
        };
        if kept.0 == kept.1 { Ok(self.bytes.len()) } else { Err("a length was not kept to".into()) }
    }
}

/// Records of spoiled conversations through a worker: lost, doubled, reordered, contradicting.
pub(crate) struct Assembly {
    meter: Arc<Meter>,
    clock: Arc<Offset>,
    record: Vec<u8>,
    out: Output,
}

impl Assembly {
    pub(crate) fn new() -> Self {
        Self { meter: Arc::default(), clock: Arc::new(Offset::new()), record: Vec::new(), out: Output::default() }
    }

    /// Starts a record.
    fn head(&mut self, kind: Kind, flags: u16, lost: u32, conn: u64, at: u64) {
        self.record.clear();
        self.put(&kind.0.to_ne_bytes());
        self.put(&flags.to_ne_bytes());
        self.put(&lost.to_ne_bytes());
        self.put(&conn.to_ne_bytes());
        self.put(&at.to_ne_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.record.extend_from_slice(bytes);
    }

    fn segment(&mut self, at: u64, seq: u32, len: usize, kept: usize, way: u8, flags: u8) {
        self.put(&at.to_ne_bytes());
        for number in [seq, len as u32, kept as u32] {
            self.put(&number.to_ne_bytes());
        }
        self.put(&[way, flags, 0, 0]);
    }

    fn opened(&mut self, random: &mut Random, conn: u64) {
        let midway = u16::from(random.one_in(4));
        self.head(Kind::OPENED, midway, 0, conn, 1);
        let len = 136 - HEAD;
        random.bytes(&mut self.record, len);
        let role = random.below(4) as u8;
        let known = random.below(4) as u8;
        if let Some([to, _, bits]) = self.record.get_mut(120..123) {
            (*to, *bits) = (role, known);
        }
        if let Some(next) = self.record.get_mut(128..136) {
            next.fill(0);
        }
    }

    fn bytes(&mut self, random: &mut Random, conn: u64, at: u64, side: Side, seq: u32, payload: &[u8]) {
        let lost = u32::from(random.one_in(32));
        self.head(Kind::BYTES, 0, lost, conn, at);
        let (kept, tail) =
            if random.one_in(4) { (random.below(payload.len() + 1), random.one_in(2)) } else { (payload.len(), false) };
        let mut flags = if tail { SEG_TAIL } else { 0 };
        for (flag, chance) in [(SEG_AHEAD, 8), (SEG_BEHIND, 8), (SEG_FIN, 16)] {
            if random.one_in(chance) {
                flags |= flag;
            }
        }
        self.segment(at, seq, payload.len(), kept, side as u8, flags);
        self.put(&[0; 16]);
        let kept = if tail { payload.get(payload.len() - kept..) } else { payload.get(..kept) };
        self.put(kept.unwrap_or_default());
    }

    fn pair(&mut self, conn: u64, at: u64, seq: [u32; 2], request: &[u8], response: &[u8]) {
        self.head(Kind::PAIR, 0, 0, conn, at);
        self.segment(at, seq[0], request.len(), request.len(), 0, 0);
        self.segment(at, seq[1], response.len(), response.len(), 1, 0);
        self.put(&[0; 16]);
        self.put(request);
        self.record.resize(HEAD + 2 * SEGMENT + 16 + HOLD, 0);
        self.put(response);
    }

    fn closed(&mut self, random: &mut Random, conn: u64, at: u64) {
        self.head(Kind::CLOSED, 0, 0, conn, at);
        random.bytes(&mut self.record, 136 - HEAD);
        let ended = random.below(3) as u8;
        if let Some(to) = self.record.get_mut(125) {
            *to = ended;
        }
    }

    fn give(&mut self, worker: &mut Worker) -> Result<(), String> {
        let event = decode::decode(&self.record).ok_or("a record was not decoded")?;
        worker.event(event, &mut self.out);
        Ok(())
    }
}

impl Target for Assembly {
    fn name(&self) -> &'static str {
        "flow"
    }

    fn weight(&self) -> u32 {
        4
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let settings = flow::Settings {
            connections: CONNECTIONS,
            stream_bytes: 1024,
            stream_segments: 8,
            total_bytes: 2048,
            ..flow::Settings::default()
        };
        let mut worker = Worker::new(settings, 0, Arc::clone(&self.meter), Arc::clone(&self.clock));
        self.out.calls.clear();
        self.out.ended.clear();
        let mut talk = talk::valid(random);
        let (mut at, mut seq) = (1_000_000, [0_u32; 2]);
        let mut most = 0;
        for conn in 1..=1 + random.below(3) as u64 {
            self.opened(random, conn);
            self.give(&mut worker)?;
            for (side, payload) in &mut talk.turns {
                if random.one_in(4) {
                    random.mutate(payload, WORDS);
                }
                let size = 1 + random.below(600);
                for piece in payload.chunks(size) {
                    at += random.next() % 100_000_000;
                    let Some(next) = seq.get_mut(*side as usize) else { continue };
                    // Now and then it comes again, late, early or from nowhere.
                    let shift = if random.one_in(6) { random.next() as u32 >> random.below(32) } else { 0 };
                    let first = if random.one_in(2) { next.wrapping_add(shift) } else { next.wrapping_sub(shift) };
                    *next = next.wrapping_add(piece.len() as u32);
                    if random.one_in(8) && piece.len() <= HOLD {
                        self.pair(conn, at, [first, seq[1]], piece, b"HTTP/1.1 204 No\r\n\r\n");
                    } else {
                        self.bytes(random, conn, at, *side, first, piece);
                    }
                    self.give(&mut worker)?;
                    most = most.max(worker.snapshot().len());
                }
            }
            if random.one_in(2) {
                worker.tick(at, &mut self.out);
            }
            if random.one_in(2) {
                self.closed(random, conn, at);
                self.give(&mut worker)?;
            }
        }
        worker.finish(at, &mut self.out);
        if most > CONNECTIONS {
            return Err(format!("{most} connections held"));
        }
        Ok(most)
    }
}
