//! What the kernel keeps for a connection: the value of its socket's storage.

use weir_common::conn::{Framing, Known, Owner, Role};
use weir_common::record::{HOLD, Segment, Way};

/// What is decided about a segment before it is acted on. It lies in the map and not on the stack because the verifier
/// follows every value that it knows: what is read back from a map is unknown to it, so the ways that lead here become
/// one.
#[repr(C)]
pub(crate) struct Stage {
    /// The segment as it will be told.
    pub segment: Segment,
    /// Where its new payload starts in the packet.
    pub offset: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Thread that sends it.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// An errand of that thread.
    pub errand: u64,
    /// One of `framing::like`.
    pub request: u8,
    /// 1: a status line, or as much of it as there is.
    pub status: u8,
    /// 1: enough bytes for a certain answer about a status line.
    pub told: u8,
    /// What to do: an `act` of `hooks::cgroup_skb`.
    pub act: u8,
    /// FIN was set.
    pub fin: u8,
    /// 1: an answer that is longer than its window, to requests of which more may stand behind the first.
    pub several: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// How much of an answer is kept behind its first window: a `Conn::wide`.
pub(crate) mod wide {
    /// Nothing: the request was one head in one segment.
    pub(crate) const NO: u8 = 0;
    /// All of it, up to `WIDE`: there may be several heads in the request, or a part of one. The next request is looked
    /// at.
    pub(crate) const TURN: u8 = 1;
    /// So from now on, and so of requests: one did not begin where the direction turned.
    pub(crate) const ALWAYS: u8 = 2;
}

/// Reads a staged field.
macro_rules! staged {
    ($stage:expr, $($field:tt).+ $([$index:expr])?) => {
        // SAFETY: a field of a live map value; volatile so that it is read back.
        unsafe { (&raw const (*$stage).$($field).+ $([$index])?).read_volatile() }
    };
}

/// Writes a staged field.
macro_rules! stage {
    ($stage:expr, $($field:tt).+ $([$index:expr])?, $value:expr) => {{
        let value = $value;
        // SAFETY: a field of a live map value.
        unsafe { (&raw mut (*$stage).$($field).+ $([$index])?).write_volatile(value) }
    }};
}
pub(crate) use {stage, staged};

/// State of one socket. Zeroed when created; a listener's is copied to what it accepts.
///
/// Egress of a process and ingress of a soft interrupt may run at once for the same socket. So every field has one
/// writer: the way it belongs to; where both ways meet (`held`), the order of the writes keeps it whole (see `track`).
///
/// The order of the fields is that of cache lines, which the two ways' processors pass to each other: the value begins
/// 8 bytes into a line (`struct bpf_local_storage_data`), behind a pointer that every look-up compares, so what is
/// seldom written comes first, then one line of what every run writes, then what waits.
#[repr(C)]
pub(crate) struct Conn {
    /// Socket cookie; 0: this state is new or was inherited from a listener.
    pub cookie: u64,
    /// Who holds it.
    pub owner: Owner,
    /// Network namespace.
    pub netns: u64,

    /// Next expected sequence number, by way.
    pub next: [u32; 2],
    /// Where the first hole starts, by way; only while `holes` says so.
    pub hole: [u32; 2],
    /// Payload bytes kept since the message may have started, by way.
    pub kept: [u32; 2],
    /// Records refused by the ring since the last one that was accepted.
    pub lost: u32,
    /// A [`Role`].
    pub role: u8,
    /// A [`Framing`].
    pub framing: u8,
    /// Bit per way: `next` is valid.
    pub known: u8,
    /// Bit per way: there is a hole.
    pub holes: u8,
    /// Bit per way: FIN was seen.
    pub fins: u8,
    /// Way of the last payload plus one; 0: none yet.
    pub last: u8,
    /// The agent knows of this connection.
    pub announced: u8,
    /// Requests are pipelined: every byte of both ways is kept.
    pub deep: u8,
    /// The server's first bytes were a status line.
    pub confirmed: u8,
    /// 1: the peer reset it; 2: this side did.
    pub reset_by: u8,
    /// 1: older than the agent.
    pub midway: u8,
    /// A [`wide`].
    pub wide: u8,
    /// The held request's segment.
    pub held: Segment,

    /// Thread that sent the held request, for a client.
    pub held_tgid: u32,
    /// Its thread.
    pub held_tid: u32,
    /// Its errand.
    pub held_errand: u64,
    /// Id of the errand in which its request was read, for a server; sent, for a client. 0: none, or it is over.
    pub errand: u64,
    /// Goroutine that did so; 0: a thread.
    pub goroutine: u64,
    /// Thread that did so, or the goroutine's process; 0: no such request is under way.
    pub reader: u32,
    /// Process of which the agent knows that it reads here.
    pub told: u32,
    /// 1: a request has begun to arrive that nobody has read yet.
    pub fresh: u8,
    /// 1: `turn` is known.
    pub turned: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Sequence number at which the last request began that came after a payload of the server's.
    pub turn: u32,
    /// The held request's payload.
    pub hold: [u8; HOLD],

    /// What is decided about the segment that is being sent. Egress runs under the socket's lock; ingress runs before
    /// it, on several CPUs at once, and has its stage per CPU (`maps::STAGE`).
    pub stage: Stage,
    /// Address of the socket's kernel structure, written and read back to get a number the verifier lets us add to.
    pub sk: u64,
    /// cgroup of the socket.
    pub cgroup: u64,
    /// Sequence numbers with which the two ways' streams begin, by way; zeros where the handshake was not seen.
    pub start: [u32; 2],
    /// Sequence number at which the request began that made this `fresh`.
    pub began: u32,
    /// Zero.
    pub unused: u32,
}
const _: () = assert!(core::mem::offset_of!(Conn, next) == 56 && core::mem::offset_of!(Conn, held_tgid) == 120);

impl Conn {
    #[inline(always)]
    pub(crate) fn framing(&self) -> Framing {
        Framing(self.framing)
    }

    /// Whether bytes of this way belong to requests.
    #[inline(always)]
    pub(crate) fn is_request(&self, way: Way) -> bool {
        (self.role == Role::SERVER.0) == (way.0 == Way::IN.0)
    }

    /// A held request is there.
    #[inline(always)]
    pub(crate) fn holds(&self) -> bool {
        // SAFETY: a field of a live map value; volatile because the other way's run may change it.
        unsafe { core::ptr::addr_of!(self.held.kept).read_volatile() != 0 }
    }

    /// Ends the hold, after its bytes were copied.
    #[inline(always)]
    pub(crate) fn release(&mut self) {
        // SAFETY: as in `holds`; written last, so that nobody overwrites the bytes while they are copied.
        unsafe { core::ptr::addr_of_mut!(self.held.kept).write_volatile(0) }
    }

    /// Forgets what was inherited from a listener, but for the owner.
    #[inline(always)]
    pub(crate) fn begin(&mut self, cookie: u64, role: Role) {
        if self.role == Role::LISTENER.0 && self.owner.known != Known::NO.0 {
            self.owner.known = Known::LISTENER.0;
        }
        self.cookie = cookie;
        self.role = role.0;
    }

    /// The request may be more, or less, than one head.
    #[inline(always)]
    pub(crate) fn widen(&mut self) {
        if self.wide == wide::NO {
            self.wide = wide::TURN;
        }
    }

    /// Whether the segment that is held, or was the last to be, is one head and nothing behind it: no empty line before
    /// its end. Without branches on the bytes: the verifier would follow each way of each byte.
    #[inline(always)]
    pub(crate) fn is_single(&self) -> bool {
        let last = self.held.len.wrapping_sub(1);
        let (mut lines, mut ends) = (0u32, 0u32);
        let mut i = 0usize;
        while i < HOLD {
            if i as u32 >= last {
                break;
            }
            // 1 for a line feed, else 0.
            let feed = (u32::from(self.hold[i] ^ b'\n').wrapping_sub(1)) >> 31;
            lines = (lines << 1) | feed;
            // A line feed now, and one just before or with one byte between.
            ends |= feed & ((lines >> 1) | (lines >> 2));
            i += 1;
        }
        ends & 1 == 0
    }
}
