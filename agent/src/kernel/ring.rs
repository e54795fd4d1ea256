//! The ring's reader: drains on a short adaptive timer, because nobody is woken by the kernel half.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};

use super::decode;
use crate::meter::{Count, Meter};
use crate::model::Event;

/// Shortest and longest sleep between two drains. The longest bounds how late a call is told; the shortest is what an
/// idle look costs little against.
const SHORTEST: Duration = Duration::from_micros(500);
const LONGEST: Duration = Duration::from_millis(10);
/// Bytes a second that must not overflow the ring while the reader sleeps: about 90,000 paired records.
const RATE: u64 = 100 << 20;
/// Records taken in one drain before time is given to others.
const BURST: usize = 8192;

/// Reads records in order.
pub struct Reader {
    ring: RingBuf<MapData>,
    sleep: Duration,
    longest: Duration,
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
        Self { ring, sleep: SHORTEST.min(fills), longest: LONGEST.min(fills) }
    }

    /// Hands every record that is there to `take`, at most [`BURST`]; returns how many.
    pub fn drain(&mut self, meter: &Meter, mut take: impl FnMut(Event<'_>)) -> usize {
        let mut records = 0;
        while records < BURST {
            let Some(item) = self.ring.next() else { break };
            records += 1;
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

    /// How long to sleep after a drain of `records`: twice as long after an empty one, half as long after a full one.
    pub fn pause(&mut self, records: usize) -> Duration {
        self.sleep = match records {
            0 => (self.sleep * 2).min(self.longest),
            1..512 => self.sleep,
            _ => (self.sleep / 2).max(SHORTEST).min(self.longest),
        };
        self.sleep
    }
}
