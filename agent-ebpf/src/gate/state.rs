//! What the gate keeps for a connection: the value of its socket's storage.

use weir_common::judge::{Judge, NO_HOST, NO_METHOD, NO_PATH, state};
use weir_common::verdict::{Mask, PrefixKey};

use crate::conn::{stage, staged};

/// Bytes of a head that are read in one piece.
pub(super) const WINDOW: usize = 64;

/// State of one connection. Everything that outlives a byte lies here and is read back from here (`conn::staged`): the
/// verifier follows values that it knows, so that ways which differ only in numbers would all be walked to their ends.
#[repr(C)]
pub(crate) struct Gate {
    /// `Active` under which `standing`, `slots` and `base` hold.
    pub active: u64,
    /// When they are judged anew, `CLOCK_MONOTONIC` nanoseconds; 0: when `active` changes.
    pub until: u64,
    /// Slots that may meet its requests.
    pub slots: Mask,
    /// Slots that are still to be looked at.
    pub left: Mask,
    /// Slots of the word at hand that the request's method, host and path leave.
    pub met: u64,
    /// Slots of the word at hand that it would meet if it is ambiguous and they are strict.
    pub loose: u64,
    /// Client's address.
    pub client: [u64; 2],
    /// Server's address, two words as numbers.
    pub server: [u64; 2],
    /// Identity groups of the socket's owner.
    pub groups: u64,
    /// Identity groups of the client at the other end, where it is on this node.
    pub peer_groups: u64,
    /// That client, as in `maps::PEERS`: it stays the same for the connection's life.
    pub peer: [u64; 4],
    /// Key of a look-up.
    pub key: [u64; 3],
    /// Key of a look-up by address.
    pub prefix: PrefixKey,
    /// Sequence numbers with which the two streams begin, as the client has them: sent, received.
    pub start: [u32; 2],
    /// Programs that read this connection's requests right now; more than one is refused.
    pub readers: u64,
    /// The machine.
    pub judge: Judge,
    /// The machine as it was at `before_seq`, for a segment that comes again before TCP took it.
    pub before: Judge,
    /// Bytes that are being read.
    pub window: [u8; WINDOW],
    /// Bytes of it that are there.
    pub filled: u32,
    /// Bytes of it that were read.
    pub place: u32,
    /// TCP sequence number of the next request byte to read.
    pub next: u32,
    /// TCP sequence number at which `before` was taken.
    pub before_seq: u32,
    /// `request` as it was then.
    pub before_request: u32,
    /// TCP sequence number of the current request's first byte.
    pub request: u32,
    /// TCP sequence number of the packet's first byte.
    pub origin: u32,
    /// Where in the packet the window starts.
    pub at: u32,
    /// Payload's end in the packet.
    pub end: u32,
    /// TCP sequence number of the urgent byte, which servers leave out of the stream; only while `urges` says so.
    pub urgent: u32,
    /// Compiled table that `judge` ran on.
    pub table: u32,
    /// Rank of `base`.
    pub base_rank: u32,
    /// Highest rank of the slots in `slots`.
    pub rank: u32,
    /// Rank of `pick`.
    pub pick_rank: u32,
    /// Slot of highest rank that asks nothing of requests, plus one; 0: none.
    pub base: u32,
    /// Slot that decides about a request, plus one; 0: none.
    pub pick: u32,
    /// Prefix length of the address row that chose its client, plus one; 0: none.
    pub row: u32,
    /// A strict slot that denies, plus one; 0: none.
    pub strict: u32,
    /// `SLOT_*` that a slot must have to hold here.
    pub wanted: u32,
    /// Word of `left` at hand.
    pub word: u32,
    /// TCP sequence number that the other side waited for when it sent payload last.
    pub turn: u32,
    /// TCP sequence number with which the refusal began that was told last.
    pub told: u32,
    /// Server's port.
    pub port: u16,
    /// A `Standing`.
    pub standing: u8,
    /// 1: `next` is known and `judge` stands at it.
    pub synced: u8,
    /// 1: the other side sent payload since the last request byte; `turn` says where.
    pub turned: u8,
    /// `base` denies.
    pub denies: u8,
    /// `pick` denies.
    pub denies_now: u8,
    /// What a byte brought about: a `Signal` as a number.
    pub signal: u8,
    /// What the reader does next: a `todo` of `read`.
    pub todo: u8,
    /// 1: the client is on this node.
    pub at_client: u8,
    /// 1: its judgement has begun; 2: that of a packet whose socket is a listener; `early::READ`.
    pub begun: u8,
    /// `VERDICT_*` of what is being decided.
    pub flags: u8,
    /// 1: the allow-list saved it, and that is counted.
    pub saved: u8,
    /// Not 0: the packet has an urgent pointer that is still to be read.
    pub points: u8,
    /// 1: `urgent` is still to come.
    pub urges: u8,
    /// 1: `told` is known.
    pub tells: u8,
}

/// Whoever reads heads for this connection keeps others out; false: somebody does already.
#[inline(always)]
pub(super) fn lock(gate: *mut Gate) -> bool {
    add(gate, 1);
    if staged!(gate, readers) == 1 {
        return true;
    }
    unlock(gate);
    false
}

/// Lets others in.
#[inline(always)]
pub(super) fn unlock(gate: *mut Gate) {
    add(gate, u64::MAX);
}

#[inline(always)]
fn add(gate: *mut Gate, n: u64) {
    // SAFETY: a field of a live map value, 8-byte aligned; an atomic add without fetch, which 5.10 has.
    unsafe {
        let readers = &raw mut (*gate).readers;
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(readers, n);
    }
}

/// Whether the refusal of what begins at `seq` was told before: its client sends it again, as long as nobody resets it, and
/// it is judged anew from time to time.
#[inline(always)]
pub(super) fn again(gate: *mut Gate, seq: u32) -> bool {
    if staged!(gate, tells) != 0 && staged!(gate, told) == seq {
        return true;
    }
    stage!(gate, told, seq);
    stage!(gate, tells, 1);
    false
}

/// Puts the machine between messages.
#[inline(always)]
pub(super) fn start(gate: *mut Gate) {
    stage!(gate, judge.state, state::START);
    stage!(gate, judge.skip, 0);
    stage!(gate, judge.length, 0);
    stage!(gate, judge.path, NO_PATH);
    stage!(gate, judge.host, NO_HOST);
    stage!(gate, judge.method, NO_METHOD);
    stage!(gate, judge.unclear, 0);
    stage!(gate, judge.escape, 0);
    stage!(gate, judge.depth, 0);
    stage!(gate, judge.seen, 0);
}

/// Keeps the machine as it is at `seq`.
#[inline(always)]
pub(super) fn keep(gate: *mut Gate, seq: u32) {
    // SAFETY: fields of a live map value.
    unsafe { copy(&raw const (*gate).judge, &raw mut (*gate).before) };
    stage!(gate, before_seq, seq);
    stage!(gate, before_request, staged!(gate, request));
}

/// Puts the machine back to where it was kept.
#[inline(always)]
pub(super) fn back(gate: *mut Gate) {
    // SAFETY: fields of a live map value.
    unsafe { copy(&raw const (*gate).before, &raw mut (*gate).judge) };
    stage!(gate, request, staged!(gate, before_request));
    stage!(gate, next, staged!(gate, before_seq));
}

/// Goes on from where another state stands.
#[inline(always)]
pub(super) fn adopt(from: *mut Gate, to: *mut Gate) {
    // SAFETY: fields of live map values.
    unsafe {
        copy(&raw const (*from).judge, &raw mut (*to).judge);
        copy(&raw const (*from).before, &raw mut (*to).before);
    }
    stage!(to, next, staged!(from, next));
    stage!(to, before_seq, staged!(from, before_seq));
    stage!(to, request, staged!(from, request));
    stage!(to, before_request, staged!(from, before_request));
    stage!(to, table, staged!(from, table));
    stage!(to, urgent, staged!(from, urgent));
    stage!(to, urges, staged!(from, urges));
    stage!(to, synced, 1);
}

/// Word by word: a copy as a whole would be a call of a bytewise `memcpy`.
#[inline(always)]
unsafe fn copy(from: *const Judge, to: *mut Judge) {
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    let mut i = 0;
    while i < size_of::<Judge>() / 8 {
        // SAFETY: both are `Judge`s, 8-byte aligned.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        i += 1;
    }
}
