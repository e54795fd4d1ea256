//! A few hundred calls as one compressed value: what is written to disk at once.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

use super::code;
use crate::model::Exchange;

/// Bytes of calls in a block before it is full.
const FULL: usize = 120 << 10;
/// Bytes that a block may unpack to: the last call added may be large (targets end at 8 KiB).
const MOST: u64 = 1 << 20;
/// Run, newest start and number of calls: little-endian.
const HEADER: usize = 8 + 8 + 4;

/// A block that is being filled.
#[derive(Debug, Default)]
pub(super) struct Filling {
    bytes: Vec<u8>,
    calls: u32,
    newest_unix_ns: u64,
}

impl Filling {
    /// Adds a call with its number in this run.
    pub(super) fn add(&mut self, number: u64, exchange: &Exchange) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
        code::encode(exchange, &mut self.bytes);
        self.calls += 1;
        self.newest_unix_ns = self.newest_unix_ns.max(exchange.start_unix_ns);
    }

    pub(super) fn calls(&self) -> u32 {
        self.calls
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// The block's bytes; it is empty again afterwards.
    pub(super) fn pack(&mut self, run: u64) -> Vec<u8> {
        let mut packed = Vec::with_capacity(self.bytes.len() / 4 + HEADER);
        packed.extend_from_slice(&run.to_le_bytes());
        packed.extend_from_slice(&self.newest_unix_ns.to_le_bytes());
        packed.extend_from_slice(&self.calls.to_le_bytes());
        let mut encoder = DeflateEncoder::new(packed, Compression::fast());
        // Writing to memory does not fail.
        let packed = encoder.write_all(&self.bytes).and_then(|()| encoder.finish()).unwrap_or_default();
        self.bytes.clear();
        self.calls = 0;
        self.newest_unix_ns = 0;
        packed
    }
}

/// What can be told of a block without unpacking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Which run of the agent wrote it; numbers of calls are a run's own.
    pub(super) run: u64,
    /// Newest start of a call in it.
    pub(super) newest_unix_ns: u64,
    pub(super) calls: u32,
}

pub(super) fn header(block: &[u8]) -> Option<Header> {
    let (run, rest) = block.split_first_chunk()?;
    let (newest, rest) = rest.split_first_chunk()?;
    let (calls, _) = rest.split_first_chunk()?;
    Some(Header {
        run: u64::from_le_bytes(*run),
        newest_unix_ns: u64::from_le_bytes(*newest),
        calls: u32::from_le_bytes(*calls),
    })
}

/// The calls of a block, oldest first, each with its number; those that can be read.
pub(super) fn unpack(block: &[u8]) -> Vec<(u64, Arc<Exchange>)> {
    let mut bytes = Vec::new();
    let packed = block.get(HEADER..).unwrap_or_default();
    if DeflateDecoder::new(packed).take(MOST).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let mut rest = bytes.as_slice();
    let mut calls = Vec::new();
    while let Some((number, mut call)) = rest.split_first_chunk() {
        let Some(exchange) = code::decode(&mut call) else { break };
        calls.push((u64::from_le_bytes(*number), Arc::new(exchange)));
        rest = call;
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, sample::exchange};

    #[test]
    fn a_block_holds_its_calls() {
        let mut filling = Filling::default();
        while !filling.is_full() {
            let mut call = exchange(Kind::Server);
            call.start_unix_ns += u64::from(filling.calls());
            filling.add(u64::from(filling.calls()) + 7, &call);
        }
        let calls = filling.calls();
        let newest_unix_ns = exchange(Kind::Server).start_unix_ns + u64::from(calls) - 1;
        let block = filling.pack(42);
        assert_eq!(header(&block), Some(Header { run: 42, newest_unix_ns, calls }));
        let unpacked = unpack(&block);
        assert_eq!(unpacked.len(), calls as usize);
        assert_eq!(unpacked.last().unwrap().0, u64::from(calls) + 6);
        assert_eq!(unpacked.last().unwrap().1.start_unix_ns, newest_unix_ns);
        assert_eq!((filling.calls(), unpack(&filling.pack(1)).len()), (0, 0));
        assert!(block.len() < FULL / 4, "{} bytes", block.len());
    }

    #[test]
    fn damaged_blocks_are_left_out() {
        let mut filling = Filling::default();
        filling.add(1, &exchange(Kind::Client));
        let block = filling.pack(1);
        for len in 0..block.len() {
            let cut = block.get(..len).unwrap();
            let _ = header(cut);
            assert!(unpack(cut).len() <= 1);
        }
        assert_eq!(unpack(&[]).len(), 0);
        assert_eq!(header(&[0; HEADER - 1]), None);
    }
}
