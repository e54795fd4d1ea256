//! Bounds of a [`Worker`](super::Worker).

use crate::proto::{PROTOCOLS, Protocol};

/// What a worker may use.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections in the table; the one that was idle longest leaves for a new one.
    pub connections: usize,
    /// Bytes kept of segments that wait for an earlier one, a direction.
    pub stream_bytes: usize,
    /// Segments that wait for an earlier one, a direction. A receive window of 6 MiB (`tcp_rmem`) holds some 1500 of 4 KiB
    /// each, and where a processor is late, all but the first wait.
    pub stream_segments: usize,
    /// Bytes of memory of waiting segments, all connections together.
    pub total_bytes: usize,
    /// A segment that starts further ahead of its stream than this many bytes is left out.
    pub reach: u32,
    /// How long a segment waits for an earlier one, nanoseconds. Longer than TCP's own retransmissions need as a rule
    /// (RFC 6298: 1, 2, 4, 8 s).
    pub patience_ns: u64,
    /// The same after the ring refused a record of the connection: the earlier segment may be the one refused.
    pub doubt_ns: u64,
    /// How long the ends of a closed connection are remembered for its mirror, nanoseconds.
    pub grace_ns: u64,
    /// Protocols that are read, in the order in which they are asked.
    pub protocols: &'static [Protocol],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 65_536,
            stream_bytes: 1 << 20,
            stream_segments: 2048,
            total_bytes: 16 << 20,
            reach: 16 << 20,
            patience_ns: 30_000_000_000,
            doubt_ns: 1_000_000_000,
            grace_ns: 5_000_000_000,
            protocols: PROTOCOLS,
        }
    }
}
