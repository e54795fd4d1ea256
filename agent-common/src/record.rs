//! What the kernel half writes into the ring buffer.
//!
//! Every record starts with a [`Head`]. Times are `CLOCK_MONOTONIC` nanoseconds (`bpf_ktime_get_ns`).

use crate::conn::{Ends, Owner};

/// What a record is. Numbers are never reused.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub u16);

impl Kind {
    /// [`Opened`]: a connection was established, or was seen for the first time.
    pub const OPENED: Self = Self(1);
    /// [`Bytes`]: a segment with what was kept of its payload.
    pub const BYTES: Self = Self(2);
    /// [`Pair`]: a request's segment held until its response's first segment passed.
    pub const PAIR: Self = Self(3);
    /// [`Closed`]: the socket reached `TCP_CLOSE`.
    pub const CLOSED: Self = Self(4);
    /// [`Exec`]: a process replaced its image.
    pub const EXEC: Self = Self(5);
    /// [`Exit`]: the last thread of a process ended.
    pub const EXIT: Self = Self(6);
    /// [`crate::verdict::Verdict`]: a rule met a connection or a request.
    pub const VERDICT: Self = Self(7);
    /// [`Read`]: a process took a request from a connection.
    pub const READ: Self = Self(8);
    /// [`Asked`]: a thread that is on an errand sent a request.
    pub const ASKED: Self = Self(9);
    /// [`Dns`]: a question to port 53, or an answer to one.
    pub const DNS: Self = Self(10);
}

/// First bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// A [`Kind`].
    pub kind: u16,
    /// Zero, or bits that the kind documents.
    pub flags: u16,
    /// Records of this connection that the ring refused since the one before (saturating).
    pub lost: u32,
    /// Socket cookie (`bpf_get_socket_cookie`); 0 for [`Exec`] and [`Exit`].
    pub conn: u64,
    /// When it happened.
    pub at: u64,
}
const _: () = assert!(size_of::<Head>() == 24);

/// The connection is older than what the agent saw of it: its first bytes were not seen.
pub const FLAG_MIDWAY: u16 = 1;

/// A connection, announced once, before any of its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// `flags`: [`FLAG_MIDWAY`].
    pub head: Head,
    /// Its two ends.
    pub ends: Ends,
    /// Who holds it.
    pub owner: Owner,
    /// `bpf_get_netns_cookie`; 0 where the kernel has none (before 5.15 for these hooks).
    pub netns: u64,
    /// cgroup v2 id that the socket was born in (`bpf_skb_cgroup_id`); 0 where unknown.
    pub cgroup: u64,
    /// A [`crate::conn::Role`].
    pub role: u8,
    /// A [`crate::conn::Framing`].
    pub framing: u8,
    /// Bit per [`Way`]: `next` is valid.
    pub known: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// TCP sequence number of the first payload byte of which records follow, by [`Way`]: without it nobody could tell
    /// what comes first when a connection begins with reordered segments.
    pub next: [u32; 2],
}
const _: () = assert!(size_of::<Opened>() == 136);

/// Direction of a segment, seen from the observed socket.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way(pub u8);

impl Way {
    /// Received by the observed socket.
    pub const IN: Self = Self(0);
    /// Sent by the observed socket.
    pub const OUT: Self = Self(1);
}

/// The segment starts beyond the next expected sequence number: an earlier one will still come.
pub const SEG_AHEAD: u8 = 1;
/// The segment starts before the next expected sequence number and may fill a hole.
pub const SEG_BEHIND: u8 = 2;
/// FIN was set.
pub const SEG_FIN: u8 = 4;
/// The kept bytes are the segment's last ones, not its first ones.
pub const SEG_TAIL: u8 = 8;
/// The direction changed with this segment: it may start a message.
pub const SEG_TURN: u8 = 16;

/// One TCP segment (GSO/GRO: one super-segment) with payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// When it passed.
    pub at: u64,
    /// TCP sequence number of its first new payload byte (host byte order).
    pub seq: u32,
    /// Payload bytes on the wire that are new.
    pub len: u32,
    /// Payload bytes that follow in the record: the first ones, or the last ones with [`SEG_TAIL`].
    pub kept: u32,
    /// A [`Way`].
    pub way: u8,
    /// `SEG_*`.
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<Segment>() == 24);

/// A segment; `segment.kept` payload bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// Common start.
    pub head: Head,
    /// The segment.
    pub segment: Segment,
    /// Process that held the socket's lock while it sent this; 0 where nobody did or for [`Way::IN`].
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// A [`crate::errand::Errand`] of that thread.
    pub errand: u64,
}
const _: () = assert!(size_of::<Bytes>() == 64);

/// A request's only segment and the first segment of its response. `request.kept` bytes follow at once, `response.kept`
/// bytes follow at [`HOLD`] behind the fixed part.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Common start.
    pub head: Head,
    /// The segment with the request's head.
    pub request: Segment,
    /// The segment with the response's head.
    pub response: Segment,
    /// Process that held the socket's lock while it sent its side; 0 where nobody did.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// A [`crate::errand::Errand`] of that thread.
    pub errand: u64,
}
const _: () = assert!(size_of::<Pair>() == 88);

/// A process took a request from a connection: told once for a connection and process, before what is held of the
/// request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Common start.
    pub head: Head,
    /// The process that reads.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
}
const _: () = assert!(size_of::<Read>() == 32);

/// A thread that is on an errand sent the start of a request: told before the other end can have received it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Common start.
    pub head: Head,
    /// Its [`crate::errand::Errand`].
    pub errand: u64,
    /// TCP sequence number of the request's first byte.
    pub seq: u32,
    /// The process that sends.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Asked>() == 48);

/// Longest request segment that waits in the kernel for its response.
pub const HOLD: usize = 512;
/// Window classes of what is kept of a segment.
pub const SMALL: usize = 512;
/// Kept of a response's first segment, and of any short segment.
pub const MEDIUM: usize = 4096;
/// Kept of a request's segments, and a step of a pipelined segment.
pub const LARGE: usize = 16384;
/// Kept of the end of a segment that is only counted: enough to see the last chunk (RFC 9112 §7.1) and a short trailer.
pub const TAIL: usize = 32;

/// How a connection ended.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended(pub u8);

impl Ended {
    /// Both sides said FIN, or the observed side timed out of `TCP_LAST_ACK`, `TCP_TIME_WAIT`.
    pub const CLOSED: Self = Self(0);
    /// A reset, sent or received.
    pub const RESET: Self = Self(1);
    /// Never established: refused, or no answer.
    pub const FAILED: Self = Self(2);
}

/// The end of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Common start.
    pub head: Head,
    /// Its two ends: a connection that was never established has no [`Opened`] record.
    pub ends: Ends,
    /// Who held it.
    pub owner: Owner,
    /// Payload bytes received, sent.
    pub bytes: [u64; 2],
    /// Smoothed round-trip time, µs; 0 where unknown.
    pub srtt_us: u32,
    /// TCP state that was left for `TCP_CLOSE` (`bpf_sock_ops.args[0]`).
    pub from_state: u8,
    /// An [`Ended`].
    pub ended: u8,
    /// A [`crate::conn::Role`].
    pub role: u8,
    /// 1: the reset came from the peer; 2: it was sent by this side; 0: there was none, or it was not seen.
    pub reset_by: u8,
    /// As in [`Opened`].
    pub netns: u64,
}
const _: () = assert!(size_of::<Closed>() == 136);

/// Longest command line that is kept, in bytes, NUL between arguments.
pub const ARGS: usize = 512;

/// A process replaced its image. `len` bytes of its command line are in `args`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exec {
    /// Common start; `conn` is 0.
    pub head: Head,
    /// The process.
    pub owner: Owner,
    /// Parent's process id; 0 where unknown.
    pub ppid: u32,
    /// Valid bytes of `args`.
    pub len: u32,
    /// Command line, NUL between arguments; cut at [`ARGS`].
    pub args: [u8; ARGS],
}
const _: () = assert!(size_of::<Exec>() == 24 + 40 + 8 + ARGS);

/// The last thread of a process ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// Common start; `conn` is 0.
    pub head: Head,
    /// Process id.
    pub tgid: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Exit>() == 32);

/// Longest DNS message of which all is kept, bytes. What is longer came in fragments: resolvers ask for 1232 or 4096
/// bytes at most (RFC 9715).
pub const MESSAGE: usize = MEDIUM;

/// A DNS message over UDP; `kept` bytes of it follow, its first ones.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Dns {
    /// Common start; `conn` is the cookie of the socket that asks.
    pub head: Head,
    /// Of a question: `bpf_get_netns_cookie` of the socket; 0 where unknown.
    pub netns: u64,
    /// Of a question: the process that asks; 0 where unknown.
    pub tgid: u32,
    /// Length of the message.
    pub len: u32,
    /// Bytes that follow in the record.
    pub kept: u32,
    /// [`Way::OUT`]: a question; [`Way::IN`]: an answer.
    pub way: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
const _: () = assert!(size_of::<Dns>() == 48);
