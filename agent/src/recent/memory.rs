//! The newest calls in memory, bounded by bytes.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use crate::model::{Connection, Exchange, Method, Operation, Process, Service};

/// What the allocator adds to a block, and what a reference-counted block begins with: two words each.
const BLOCK: usize = 16;
/// Of the ring, which doubles when it grows, for each call.
const SLOT: usize = 2 * size_of::<Entry>();
/// Of the table of shared blocks, which doubles when it grows, for each block.
const SHARED_SLOT: usize = 2 * (size_of::<(usize, Shared)>() + 1);

/// Calls numbered in the order in which they came, oldest first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: VecDeque<Entry>,
    /// Number of the oldest entry.
    first: u64,
    bytes: usize,
    /// Blocks that several entries share, by address: they count once, until the last entry that has them leaves.
    shared: HashMap<usize, Shared, BuildHasherDefault<AddressHasher>>,
}

#[derive(Debug)]
struct Entry {
    exchange: Arc<Exchange>,
    /// Bytes that leave with it.
    own: usize,
}

#[derive(Debug)]
struct Shared {
    /// Newest entry that has it; entries leave in order, so it is the last one to leave.
    newest: u64,
    bytes: usize,
}

impl Memory {
    /// Number of the next call.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Number of the oldest call that is here.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Bytes in use, with what the allocator and the tables add.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Calls here.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The oldest call that is here.
    pub(super) fn oldest(&self) -> Option<&Arc<Exchange>> {
        self.entries.front().map(|entry| &entry.exchange)
    }

    /// Keeps a call; then the oldest leave until at most `limit` bytes are in use. Returns how many left.
    pub(super) fn push(&mut self, exchange: Arc<Exchange>, limit: usize) -> u64 {
        let number = self.next();
        let own = own_bytes(&exchange);
        self.bytes += own;
        self.share(Arc::as_ptr(&exchange.connection).addr(), number, || BLOCK + size_of::<Connection>());
        self.share(Arc::as_ptr(&exchange.service).addr(), number, || service_bytes(&exchange.service));
        for peer in exchange.peer.iter().chain(&exchange.via) {
            self.share(Arc::as_ptr(peer).addr(), number, || service_bytes(peer));
        }
        self.entries.push_back(Entry { exchange, own });
        self.shrink(limit)
    }

    /// The oldest leave until at most `limit` bytes are in use. Returns how many left.
    pub(super) fn shrink(&mut self, limit: usize) -> u64 {
        let before = self.first;
        while self.bytes > limit {
            let Some(entry) = self.entries.pop_front() else { break };
            let number = self.first;
            self.first += 1;
            self.bytes -= entry.own;
            self.release(Arc::as_ptr(&entry.exchange.connection).addr(), number);
            self.release(Arc::as_ptr(&entry.exchange.service).addr(), number);
            for peer in entry.exchange.peer.iter().chain(&entry.exchange.via) {
                self.release(Arc::as_ptr(peer).addr(), number);
            }
        }
        self.first - before
    }

    fn share(&mut self, address: usize, number: u64, bytes: impl FnOnce() -> usize) {
        let added = &mut self.bytes;
        let shared = self.shared.entry(address).or_insert_with(|| {
            let bytes = bytes() + SHARED_SLOT;
            *added += bytes;
            Shared { newest: number, bytes }
        });
        shared.newest = number;
    }

    fn release(&mut self, address: usize, number: u64) {
        if self.shared.get(&address).is_some_and(|shared| shared.newest == number)
            && let Some(shared) = self.shared.remove(&address)
        {
            self.bytes -= shared.bytes;
        }
    }

    /// Up to `most` calls numbered below `before`, newest first, each with its number.
    pub(super) fn below(&self, before: u64, most: usize) -> impl Iterator<Item = (u64, &Arc<Exchange>)> {
        let end = before.clamp(self.first, self.next());
        let skipped = (self.next() - end) as usize;
        let entries = self.entries.iter().rev().skip(skipped).take(most);
        (self.first..end).rev().zip(entries.map(|entry| &entry.exchange))
    }

    /// Up to `most` calls numbered from `from`, oldest first, each with its number.
    pub(super) fn from(&self, from: u64, most: usize) -> impl Iterator<Item = (u64, &Arc<Exchange>)> {
        let start = from.clamp(self.first, self.next());
        let entries = self.entries.iter().skip((start - self.first) as usize).take(most);
        (start..).zip(entries.map(|entry| &entry.exchange))
    }
}

/// Bytes of a heap block that holds `len` bytes; none for an empty one.
fn heap(len: usize) -> usize {
    if len == 0 { 0 } else { BLOCK + len }
}

/// Bytes of a reference-counted text.
fn arc(text: Option<&Arc<str>>) -> usize {
    text.map_or(0, |text| 2 * BLOCK + text.len())
}

fn own_bytes(exchange: &Exchange) -> usize {
    let Operation::Http(http) = &exchange.call.operation;
    let method = match &http.method {
        Method::Known(_) => 0,
        Method::Other(name) => heap(name.len()),
    };
    SLOT + 2 * BLOCK
        + size_of::<Exchange>()
        + method
        + heap(http.target.len())
        + heap(http.host.as_deref().map_or(0, str::len))
        + heap(http.user_agent.as_deref().map_or(0, str::len))
        + arc(http.route.as_ref())
}

fn service_bytes(service: &Service) -> usize {
    let process = |process: &Process| {
        arc(process.executable_name.as_ref())
            + arc(process.executable_path.as_ref())
            + arc(process.command_line.as_ref())
            + arc(process.cgroup.as_ref())
    };
    2 * BLOCK
        + size_of::<Service>()
        + arc(Some(&service.name))
        + arc(service.namespace.as_ref())
        + arc(service.container_id.as_ref())
        + arc(service.unit.as_ref())
        + service.process.as_ref().map_or(0, process)
        + service.attributes.capacity() * size_of::<(Arc<str>, Arc<str>)>()
        + service.attributes.iter().map(|(key, value)| arc(Some(key)) + arc(Some(value))).sum::<usize>()
}

/// Addresses are well spread but for their lowest bits; nobody outside chooses them.
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
