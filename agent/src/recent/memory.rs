//! The newest calls in memory, bounded by bytes.
//!
//! They are written into blocks, one behind the other, and leave with their block: what is old is not touched again,
//! and a call's own memory is free as soon as it was written here.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use super::rows::Rows;
use crate::model::Exchange;

/// Calls in a block, and bytes of it, before it is full.
const CALLS: usize = 256;
const BYTES: usize = 256 << 10;
/// Of the bytes allowed, the part that a block may have.
const PART: usize = 32;

/// Of the table of places, for each entry that it has room for.
const PLACE: usize = size_of::<(usize, u32)>() + 1;

/// Where in the newest block something is that its calls share, by address.
pub(super) type Places = HashMap<usize, u32, BuildHasherDefault<AddressHasher>>;

/// Calls numbered in the order in which they came, oldest first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    blocks: VecDeque<Rows>,
    /// Of the newest block.
    places: Places,
    /// Number of the next call.
    next: u64,
    calls: usize,
    bytes: usize,
}

impl Memory {
    /// Number of the next call.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Number of the oldest call that is here.
    pub(super) fn first(&self) -> u64 {
        self.next - self.calls as u64
    }

    /// Bytes in use, with what the allocator and the tables add.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.places.capacity() * PLACE
    }

    /// Calls here.
    pub(super) fn len(&self) -> usize {
        self.calls
    }

    /// Start of the oldest call that is here, nanoseconds since the Unix epoch.
    pub(super) fn oldest_unix_ns(&self) -> Option<u64> {
        self.blocks.front()?.oldest_unix_ns()
    }

    /// Keeps a call; then the oldest blocks leave until at most `limit` bytes are in use. Returns how many calls left.
    pub(super) fn push(&mut self, exchange: &Exchange, limit: usize) -> u64 {
        let most = BYTES.min(limit / PART);
        let full = |block: &Rows| block.len() >= CALLS || block.bytes() >= most;
        if self.blocks.back().is_none_or(full) {
            self.places.clear();
            if let Some(last) = self.blocks.back_mut() {
                self.bytes -= last.bytes();
                last.close();
                self.bytes += last.bytes();
            }
            let block = Rows::new(self.next, self.blocks.back());
            self.bytes += block.bytes();
            self.blocks.push_back(block);
        }
        if let Some(block) = self.blocks.back_mut() {
            let before = block.bytes();
            block.push(exchange, &mut self.places);
            self.bytes += block.bytes() - before;
            self.next += 1;
            self.calls += 1;
        }
        self.shrink(limit)
    }

    /// The oldest blocks leave until at most `limit` bytes are in use. Returns how many calls left.
    pub(super) fn shrink(&mut self, limit: usize) -> u64 {
        let before = self.calls;
        while self.bytes() > limit {
            let Some(block) = self.blocks.pop_front() else {
                self.places = Places::default();
                break;
            };
            self.calls -= block.len();
            self.bytes -= block.bytes();
        }
        (before - self.calls) as u64
    }

    /// Up to `most` calls numbered below `before`, newest first, each with its number.
    pub(super) fn below(&self, before: u64, most: usize) -> impl Iterator<Item = (u64, Exchange)> {
        self.blocks.iter().rev().flat_map(move |block| block.below(before)).take(most)
    }

    /// Up to `most` calls numbered from `from`, oldest first, each with its number.
    pub(super) fn from(&self, from: u64, most: usize) -> impl Iterator<Item = (u64, Exchange)> {
        let passed = self.blocks.partition_point(|block| block.end() <= from);
        self.blocks.iter().skip(passed).flat_map(move |block| block.from(from)).take(most)
    }
}

/// Addresses are well spread but for their lowest bits; nobody outside chooses them.
#[derive(Debug, Default)]
pub(super) struct AddressHasher(u64);

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
