//! What the kernel half said, decoded and borrowed from the ring.

use weir_common::record::{Asked, Bytes, Closed, Dns, Exec, Exit, Opened, Pair, Read};
use weir_common::verdict::Verdict;

/// One record of the ring.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A connection was established, or was seen for the first time.
    Opened(&'a Opened),
    /// A segment; the slice is what was kept of its payload.
    Bytes(&'a Bytes, &'a [u8]),
    /// A request's only segment and its response's first: kept payload of each.
    Pair(&'a Pair, &'a [u8], &'a [u8]),
    /// A connection ended.
    Closed(&'a Closed),
    /// A process replaced its image; the slice is its command line, NUL between arguments.
    Exec(&'a Exec, &'a [u8]),
    /// A process ended.
    Exit(&'a Exit),
    /// A process took a request from a connection.
    Read(&'a Read),
    /// A thread that is on an errand sent a request.
    Asked(&'a Asked),
    /// A question to port 53, or an answer to one; the slice is what was kept of the message.
    Dns(&'a Dns, &'a [u8]),
    /// The gate refused a connection or a request.
    Refused(&'a Verdict),
}
