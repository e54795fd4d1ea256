//! Rules as the kernel half reads them, and what it says when one is met.
//!
//! A *slot* is one shape of rule: everything but the client's address. Address rows name the slots that their prefix
//! selects, so 100 000 prefixes under the same conditions are 100 000 rows and one slot.

use crate::conn::{Ends, Owner};
use crate::record::Head;

/// How many slots there are.
pub const SLOTS: usize = 256;
/// A set of slots, one bit each.
pub type Mask = [u64; SLOTS / 64];
/// States of one compiled table.
pub const STATES: u32 = 4096;
/// Masks of one compiled table: what a path or host accepts is an index into them.
pub const MASKS: u32 = 1024;
/// Prefixes in the address table.
pub const PREFIXES: u32 = 262_144;
/// Entries of the allow-list.
pub const ALLOWED: u32 = 1024;
/// Keys of rate limits that are remembered; the least recently used one goes first.
pub const LIMITS: u32 = 65_536;
/// Rows of the identity table.
pub const IDENTITIES: u32 = 16_384;
/// Clients of this node that their servers may ask for.
pub const PEERS: u32 = 8192;
/// Address prefixes around one address that are looked at, longest first.
pub const NESTED: u32 = 8;

/// What a rule asks for.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act(pub u8);

impl Act {
    /// Let it pass, whatever rules of lower rank say.
    pub const ALLOW: Self = Self(1);
    /// Refuse it.
    pub const DENY: Self = Self(2);
    /// Refuse what exceeds a rate.
    pub const LIMIT: Self = Self(3);
    /// Count it and say so.
    pub const WATCH: Self = Self(4);
}

/// The slot holds a rule.
pub const SLOT_USED: u32 = 1;
/// It may drop; without it, it only counts.
pub const SLOT_ENFORCE: u32 = 1 << 1;
/// Ambiguous heads are met by it too.
pub const SLOT_STRICT: u32 = 1 << 2;
/// A connection that it denies is ended with a reset, not left to time out.
pub const SLOT_RESET: u32 = 1 << 3;
/// Its clients are not chosen by address.
pub const SLOT_ANY_CLIENT: u32 = 1 << 4;
/// It has a condition on the path.
pub const SLOT_PATH: u32 = 1 << 5;
/// It has a condition on the host.
pub const SLOT_HOST: u32 = 1 << 6;
/// It holds where the server is on this node.
pub const SLOT_AT_SERVER: u32 = 1 << 7;
/// It holds where the client is on this node.
pub const SLOT_AT_CLIENT: u32 = 1 << 8;
/// It overrules the soft part of the allow-list.
pub const SLOT_FORCE: u32 = 1 << 9;
/// It has a condition on the request (method, path, host) or limits requests: heads are read for it.
pub const SLOT_REQUEST: u32 = 1 << 10;
/// Its limit counts per client address; without it, per slot.
pub const SLOT_PER_CLIENT: u32 = 1 << 11;
/// With [`SLOT_PER_CLIENT`]: of IPv6 addresses the first 64 bits count.
pub const SLOT_PER_NETWORK: u32 = 1 << 13;
/// It outlives the agent: its deadline, not the agent's heartbeat, ends it.
pub const SLOT_OUTLIVES: u32 = 1 << 12;

/// One slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// `CLOCK_MONOTONIC` nanoseconds after which it holds no more; 0: never.
    pub until: u64,
    /// Identity groups that the client must be in one of; 0: any.
    pub client_groups: u64,
    /// Identity groups that the server must be in one of; 0: any.
    pub server_groups: u64,
    /// Server's prefix, IPv4 as IPv4-mapped IPv6, network byte order, bits behind `server_len` zero.
    pub server: [u8; 16],
    /// Nanoseconds that one request costs ([`Act::LIMIT`]).
    pub cost: u64,
    /// Nanoseconds of cost that may be used at once, without the request's own: `(burst - 1) * cost`.
    pub slack: u64,
    /// The matching slot of highest rank wins.
    pub rank: u32,
    /// `SLOT_*`.
    pub flags: u32,
    /// Server's port, host byte order; 0: any.
    pub port: u16,
    /// Bits of `server`; 0: any.
    pub server_len: u8,
    /// An [`Act`].
    pub act: u8,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Slot>() == 72);

/// What a prefix of client addresses selects.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressRow {
    /// The slots.
    pub slots: Mask,
    /// [`Active`] from which on the row counts: a change that was cut short never does.
    pub from: u64,
    /// `CLOCK_MONOTONIC` nanoseconds after which the row holds no more; 0: never.
    pub until: u64,
    /// Connections and requests that it met; counted by the kernel half.
    pub hits: u64,
    /// When it was last told to the agent, `CLOCK_MONOTONIC` nanoseconds; written by the kernel half.
    pub told: u64,
    /// Prefix length, 0..=128: where the look-up goes on for the next shorter prefix.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<AddressRow>() == 72);

/// One entry of the allow-list.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AllowRow {
    /// Connections that rules select and that passed for this; counted by the kernel half, where nothing overrules it.
    pub hits: u64,
    /// 1: a forced rule overrules it; 0: nothing does.
    pub soft: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<AllowRow>() == 16);

/// What an identity row is about.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity(pub u64);

impl Identity {
    /// `name` holds a cgroup v2 id, native byte order, then zeros.
    pub const CGROUP: Self = Self(1);
    /// `name` holds a process id, native byte order, then zeros.
    pub const PROCESS: Self = Self(2);
    /// `name` is a `task_comm`, zero-padded.
    pub const COMM: Self = Self(3);
    /// `name` holds a network namespace's cookie and the port of a listening socket older than the kernel half, both in
    /// native byte order, then zeros.
    pub const LISTENER: Self = Self(4);
}

/// Key of the identity table; the value is the set of identity groups (`u64`, a bit each).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct IdentityKey {
    /// An [`Identity`].
    pub kind: u64,
    /// What its kind says.
    pub name: [u8; 16],
}
const _: () = assert!(size_of::<IdentityKey>() == 24);

/// Key of a rate limit; the value is the theoretical arrival time of GCRA (`u64`, `CLOCK_MONOTONIC` nanoseconds).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LimitKey {
    /// Client's address, with zeros behind its network where that is what counts; or zeros.
    pub client: [u8; 16],
    /// The slot.
    pub slot: u64,
}
const _: () = assert!(size_of::<LimitKey>() == 24);

/// What all rules together ask for. Two of these take turns; [`Active`] says which one counts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bank {
    /// Slots that hold without an address row ([`SLOT_ANY_CLIENT`]).
    pub any: Mask,
    /// Slots that read heads ([`SLOT_REQUEST`]).
    pub request: Mask,
    /// Number of the compiled table that these slots belong to; its rows are in the half `table & 1`.
    pub table: u32,
    /// 1: rules in enforce mode drop; 0: the node is in monitor mode.
    pub enforce: u32,
    /// 1: some slot asks for identity groups.
    pub identity: u32,
    /// 1: some slot asks for groups of both ends.
    pub pairs: u32,
}
const _: () = assert!(size_of::<Bank>() == 80);

/// Which [`Bank`] counts: the rule set's generation times two, plus the bank. One aligned word, so that a change takes
/// effect at once; 0: no rules.
pub type Active = u64;

/// Index in the switch of the [`Active`] word.
pub const SWITCH_ACTIVE: u32 = 0;
/// Index in the switch of the agent's heartbeat, `CLOCK_MONOTONIC` nanoseconds.
pub const SWITCH_HEARTBEAT: u32 = 1;
/// Without a heartbeat for so many nanoseconds the agent is taken for dead: then only slots with [`SLOT_OUTLIVES`] hold.
pub const GRACE_NS: u64 = 3_000_000_000;

/// Key of a table of prefixes (`BPF_MAP_TYPE_LPM_TRIE`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixKey {
    /// Bits that count.
    pub len: u32,
    /// Network byte order; IPv4 as IPv4-mapped IPv6.
    pub address: [u8; 16],
}
const _: () = assert!(size_of::<PrefixKey>() == 20);

/// What a connection's rules come to.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing(pub u8);

impl Standing {
    /// Not judged under this generation.
    pub const UNKNOWN: Self = Self(0);
    /// No rule can meet it.
    pub const CLEAR: Self = Self(1);
    /// Its requests are read.
    pub const READ: Self = Self(2);
    /// Refused: every payload byte that comes in is dropped.
    pub const DENIED: Self = Self(3);
}

/// The verdict was carried out: the segment was dropped.
pub const VERDICT_DROPPED: u8 = 1;
/// The head was ambiguous and the rule strict.
pub const VERDICT_AMBIGUOUS: u8 = 2;
/// A rate was exceeded.
pub const VERDICT_LIMITED: u8 = 4;
/// It met a connection, not a request.
pub const VERDICT_CONNECTION: u8 = 8;
/// It met a connection before it was established.
pub const VERDICT_NEW: u8 = 16;
/// The agent is asked to end the connection with a reset.
pub const VERDICT_RESET: u8 = 32;

/// A rule met a connection or a request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Common start; `conn` is 0 for a connection that has no socket of its own yet.
    pub head: Head,
    /// Both ends.
    pub ends: Ends,
    /// Who holds the socket.
    pub owner: Owner,
    /// [`Active`] under which it was said.
    pub active: u64,
    /// TCP sequence number of the request's first byte; 0 with [`VERDICT_CONNECTION`].
    pub request: u32,
    /// Slot that won.
    pub slot: u16,
    /// `unclear::*` of the head.
    pub unclear: u16,
    /// `VERDICT_*`.
    pub flags: u8,
    /// A [`crate::conn::Role`].
    pub role: u8,
    /// Client's address row: prefix length + 1; 0: none.
    pub row: u8,
    /// An [`Act`].
    pub act: u8,
    /// Interface that its socket is bound to (`sk_bound_dev_if`; that of a link-local address, of `SO_BINDTODEVICE`),
    /// by which alone it is found; 0: none.
    pub bound: u32,
}
const _: () = assert!(size_of::<Verdict>() == 24 + 40 + 40 + 24);

/// Exact counts of one slot, per CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotCount {
    /// Connections that were refused.
    pub connections: u64,
    /// Requests that were refused.
    pub requests: u64,
    /// Packets that asked for a connection and were refused unanswered.
    pub attempts: u64,
    /// Segments of refused connections that were dropped.
    pub segments: u64,
}
const _: () = assert!(size_of::<SlotCount>() == 32);

/// Per-CPU counters of the gate. Each has one place where it is incremented.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GateSlot(pub u32);

impl GateSlot {
    /// Connections that rules select and that the allow-list's hard part let pass.
    pub const ALLOWED: Self = Self(0);
    /// Requests whose head was ambiguous, and which passed.
    pub const AMBIGUOUS: Self = Self(1);
    /// Segments dropped because they came before their predecessors; their sender sends them again.
    pub const EARLY: Self = Self(2);
    /// Segments dropped because another CPU was reading the same connection; their sender sends them again.
    pub const BUSY: Self = Self(3);
    /// Connections that passed unjudged because no storage could be had for them.
    pub const NO_STORAGE: Self = Self(4);
    /// Connections whose role is not known, passed.
    pub const NO_ROLE: Self = Self(5);
    /// Verdict records that the ring refused.
    pub const LOST: Self = Self(6);
    /// Segments that passed because a table could not be read.
    pub const DAMAGED: Self = Self(7);
    /// New connections that were refused before they were established.
    pub const REFUSED: Self = Self(8);
    /// Segments of which not all could be read; they passed, unless a strict rule stood against their connection.
    pub const UNREAD: Self = Self(9);
    /// Keys of rate limits that were begun. Beyond [`LIMITS`] the one that was used least recently is forgotten, and begins
    /// anew with its burst.
    pub const KEYS: Self = Self(10);
    /// How many there are.
    pub const COUNT: u32 = 12;
}
