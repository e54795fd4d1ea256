//! Recent calls: the newest in memory, bounded by bytes, and more of them on disk where asked for.

mod block;
mod bytes;
mod code;
mod disk;
mod memory;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

pub use disk::{Disk, DiskStats};

use crate::{
    meter::{Count, Meter},
    model::{Exchange, Filter},
};
use memory::Memory;

/// Calls taken out of the ring at once, so that a long search does not hold up who inserts.
const BATCH: usize = 256;

/// The store of recent calls. Shared by reference; all methods take `&self`.
#[derive(Debug)]
pub struct Recent {
    memory: Mutex<Memory>,
    limit: AtomicUsize,
    disk: Option<Disk>,
    meter: Arc<Meter>,
}

/// What came since a place in the order of calls.
#[derive(Debug)]
pub struct News {
    /// Calls that fit, oldest first.
    pub calls: Vec<Arc<Exchange>>,
    /// Where to go on.
    pub next: u64,
    /// Calls that left the store before they were asked for.
    pub missed: u64,
}

/// What is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Calls in memory.
    pub calls: u64,
    /// Bytes in memory.
    pub bytes: u64,
    /// Bytes allowed in memory.
    pub limit: u64,
    /// Start of the oldest call in memory, nanoseconds since the Unix epoch.
    pub oldest_unix_ns: Option<u64>,
    /// The disk store.
    pub disk: Option<DiskStats>,
}

impl Recent {
    /// A store of at most `limit` bytes in memory, and a disk store. Calls kept and evicted are counted in `meter`.
    #[must_use]
    pub fn new(limit: usize, disk: Option<Disk>, meter: Arc<Meter>) -> Self {
        Self { memory: Mutex::default(), limit: AtomicUsize::new(limit), disk, meter }
    }

    /// Keeps a call; the oldest leave. Never waits for the disk.
    pub fn insert(&self, exchange: Arc<Exchange>) {
        self.keep(&[exchange]);
    }

    /// Keeps calls in their order; the oldest leave. Never waits for the disk.
    pub fn keep(&self, calls: &[Arc<Exchange>]) {
        let (count, limit) = (calls.len() as u64, self.limit.load(Ordering::Relaxed));
        let (first, evicted) = {
            let mut memory = self.memory();
            (memory.next(), calls.iter().map(|call| memory.push(call, limit)).sum())
        };
        self.meter.add(Count::Kept, count);
        self.meter.add(Count::Evicted, evicted);
        if let Some(disk) = &self.disk {
            for (number, call) in (first..).zip(calls) {
                disk.keep(number, Arc::clone(call));
            }
        }
    }

    /// Changes the bytes allowed in memory; at once.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        let evicted = self.memory().shrink(limit);
        self.meter.add(Count::Evicted, evicted);
    }

    /// Up to `last` calls that fit, newest first, from memory and then from disk. Reads files: not for a thread that
    /// others wait for.
    #[must_use]
    pub fn newest(&self, filter: &Filter, last: usize) -> Vec<Arc<Exchange>> {
        self.before(u64::MAX, filter, last)
    }

    /// The same of the calls that came before a place.
    #[must_use]
    pub fn before(&self, place: u64, filter: &Filter, last: usize) -> Vec<Arc<Exchange>> {
        let mut found = Vec::new();
        let mut before = place;
        while found.len() < last {
            let batch: Vec<_> = {
                let memory = self.memory();
                memory.below(before, BATCH).collect()
            };
            let Some((number, _)) = batch.last() else { break };
            before = *number;
            let fitting = batch.into_iter().map(|(_, exchange)| exchange).filter(|exchange| filter.takes(exchange));
            found.extend(fitting.map(Arc::new));
        }
        found.truncate(last);
        if let Some(disk) = self.disk.as_ref().filter(|_| found.len() < last) {
            disk.below(before, filter, last, &mut found);
        }
        found
    }

    /// Where the order of calls ends now: the place for the first [`Recent::since`].
    #[must_use]
    pub fn end(&self) -> u64 {
        self.memory().next()
    }

    /// Calls that came since a place, at most a few hundred of them at once; ask again with `next`.
    #[must_use]
    pub fn since(&self, place: u64, filter: &Filter) -> News {
        let (missed, batch) = {
            let memory = self.memory();
            let batch: Vec<_> = memory.from(place, BATCH).collect();
            (memory.first().saturating_sub(place), batch)
        };
        let next = batch.last().map_or(place + missed, |(number, _)| number + 1);
        let fitting = batch.into_iter().map(|(_, exchange)| exchange).filter(|exchange| filter.takes(exchange));
        News { calls: fitting.map(Arc::new).collect(), next, missed }
    }

    /// What is in the store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let disk = self.disk.as_ref().map(Disk::stats);
        let memory = self.memory();
        Stats {
            calls: memory.len() as u64,
            bytes: memory.bytes() as u64,
            limit: self.limit.load(Ordering::Relaxed) as u64,
            oldest_unix_ns: memory.oldest_unix_ns(),
            disk,
        }
    }

    /// Waits until everything kept so far is on disk (or counted as lost).
    pub fn flush(&self) {
        if let Some(disk) = &self.disk {
            disk.flush();
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic elsewhere leaves at worst a call half counted; the store goes on.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
