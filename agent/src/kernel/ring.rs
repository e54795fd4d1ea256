//! The ring's reader: drains on a short adaptive timer, because nobody is woken by the kernel half.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};

use super::decode;
use super::level::Level;
use crate::meter::{Count, Meter};
use crate::model::Event;

/// Shortest and longest sleep between two drains. The longest bounds how late a call is told; the shortest is what an
/// idle look costs little against.
const SHORTEST: Duration = Duration::from_micros(500);
const LONGEST: Duration = Duration::from_millis(10);
/// Bytes a second that must not overflow the ring while the reader sleeps: about 90,000 paired records.
const RATE: u64 = 100 << 20;
/// Records taken in one drain before their calls are handed over: what they become fits into a processor's own cache, and
/// whoever judges them begins early.
const BURST: usize = 512;
/// Part of the ring that a drain is to find filled: each one costs the observed programs a switch of threads and a part
/// of their caches, so there should be few; what comes during a late one must still fit.
const FILL: usize = 16;

/// Reads records in order.
pub struct Reader {
    ring: RingBuf<MapData>,
    sleep: Duration,
    longest: Duration,
    /// Bytes that a drain is to find.
    target: usize,
    /// Bytes that fit into the ring.
    bytes: u32,
    /// Bytes that were found since the last sleep.
    found: usize,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("sleep", &self.sleep).finish_non_exhaustive()
    }
}

impl Reader {
    /// Takes the ring, which has `bytes`. A small one is looked at more often, so that [`RATE`] fits into it.
    #[must_use]
    pub fn new(ring: RingBuf<MapData>, bytes: u32) -> Self {
        let fills = Duration::from_nanos(u64::from(bytes) * 1_000_000_000 / RATE);
        let target = bytes as usize / FILL;
        Self { ring, sleep: SHORTEST.min(fills), longest: LONGEST.min(fills), target, bytes, found: 0 }
    }

    /// How full the ring is, for another thread.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn level(&self) -> io::Result<Level> {
        Level::new(self.ring.as_fd(), self.bytes)
    }

    /// Hands every record that is there to `take`, at most [`BURST`]; returns how many.
    pub fn drain(&mut self, meter: &Meter, mut take: impl FnMut(Event<'_>)) -> usize {
        let mut records = 0;
        while records < BURST {
            let Some(item) = self.ring.next() else { break };
            records += 1;
            self.found += item.len();
            match decode::decode(&item) {
                Some(event) => take(event),
                None => meter.add(Count::LostUndecodable, 1),
            }
        }
        records
    }

    /// Whether a drain ended because it had taken its share, and there may be more.
    #[must_use]
    pub fn is_burst(records: usize) -> bool {
        records >= BURST
    }

    /// How long to sleep after a drain: half as long where it found more than it should, twice as long where it found
    /// little.
    pub fn pause(&mut self) -> Duration {
        self.sleep = if self.found > self.target {
            (self.sleep / 2).max(SHORTEST)
        } else if self.found < self.target / 4 {
            self.sleep * 2
        } else {
            self.sleep
        }
        .min(self.longest);
        self.found = 0;
        self.sleep
    }
}
