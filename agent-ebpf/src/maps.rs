//! Every map: key, bound, why this kind.

use aya_ebpf::bindings::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY,
    BPF_MAP_TYPE_PROG_ARRAY, BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_SK_STORAGE,
};
use aya_ebpf::macros::btf_map;
use weir_common::goroutine::GoProcess;
use weir_common::judge::{Classes, Row};
use weir_common::knob::Slot;
use weir_common::verdict::{
    ALLOWED as ALLOWED_MAX, AddressRow, AllowRow, Bank, GateSlot, IDENTITIES as IDENTITIES_MAX, IdentityKey,
    LIMITS as LIMITS_MAX, LimitKey, MASKS as MASKS_MAX, Mask, PEERS as PEERS_MAX, PREFIXES, PrefixKey,
    SLOTS as SLOTS_MAX, STATES as STATES_MAX, Slot as RuleSlot, SlotCount,
};

use crate::checksum::Sum;
use crate::conn::{Conn, Stage};
use crate::dns::{Asked, Budget, Question};
use crate::early::{Early, SLOTS};
use crate::errand::{Caller, Pledge, Walk, Walker};
use crate::gate::state::Gate;

/// Map definitions as libbpf reads them from BTF. Own structs, because aya-ebpf 0.2's `SkStorage` takes only a
/// `SockAddrContext` and no flags.
macro_rules! map {
    ($(#[$doc:meta])* $name:ident: $struct:ident, $kind:expr, $key:ty, $value:ty, $entries:expr, $flags:expr) => {
        #[repr(C)]
        pub(crate) struct $struct {
            r#type: *const [i32; $kind as usize],
            key: *const $key,
            value: *const $value,
            max_entries: *const [i32; $entries],
            map_flags: *const [i32; $flags],
        }
        // SAFETY: a placeholder that the loader fills; never read from here.
        unsafe impl Sync for $struct {}
        impl $struct {
            const fn new() -> Self {
                Self {
                    r#type: core::ptr::null(),
                    key: core::ptr::null(),
                    value: core::ptr::null(),
                    max_entries: core::ptr::null(),
                    map_flags: core::ptr::null(),
                }
            }
            #[inline(always)]
            pub(crate) fn as_ptr(&self) -> *mut core::ffi::c_void {
                core::ptr::from_ref(self).cast_mut().cast()
            }
        }
        $(#[$doc])*
        #[btf_map]
        pub(crate) static $name: $struct = $struct::new();
    };
}

/// `BPF_F_NO_PREALLOC | BPF_F_CLONE`.
const STORAGE: usize = 1 | 1 << 9;

map! {
    /// A connection's state, with the socket's own lifetime. Cloned from a listener to what it accepts.
    CONNS: Conns, BPF_MAP_TYPE_SK_STORAGE, i32, Conn, 0, STORAGE
}

map! {
    /// Counters, one row a [`Slot`]: per CPU, so that no hook writes what another one reads.
    COUNTS: Counts, BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, Slot::COUNT as usize, 0
}

map! {
    /// What is decided about the segment that is being received. Ingress runs with soft interrupts off, so that no other
    /// ingress run comes between on the same CPU; it runs before the socket's lock, so that another CPU's may.
    STAGE: Stages, BPF_MAP_TYPE_PERCPU_ARRAY, u32, Stage, 1, 0
}

map! {
    /// The checksum of the segment that is being received: as `STAGE`.
    SUMS: Sums, BPF_MAP_TYPE_PERCPU_ARRAY, u32, Sum, 1, 0
}

map! {
    /// Payload that came before its socket, by a hash of the connection's ends.
    EARLY: Earlies, BPF_MAP_TYPE_ARRAY, u32, Early, SLOTS, 0
}

/// `BPF_F_NO_PREALLOC`: what most nodes leave empty takes no memory.
const NO_PREALLOC: usize = 1;

map! {
    /// The gate's state of a connection. Not cloned: a listener has none.
    GATES: Gates, BPF_MAP_TYPE_SK_STORAGE, i32, Gate, 0, NO_PREALLOC
}

map! {
    /// For new connections, which have no socket of their own yet. Ingress runs with soft interrupts off.
    GATE_SCRATCH: Scratch, BPF_MAP_TYPE_PERCPU_ARRAY, u32, Gate, 1, 0
}

map! {
    /// The word that makes a bank count, and the agent's heartbeat (`verdict::SWITCH_*`).
    SWITCH: Switch, BPF_MAP_TYPE_ARRAY, u32, u64, 2, 0
}

map! {
    /// What all rules together ask for; two take turns.
    BANKS: Banks, BPF_MAP_TYPE_ARRAY, u32, Bank, 2, 0
}

map! {
    /// Rules without their clients' addresses.
    SLOTS_OF_RULES: RuleSlots, BPF_MAP_TYPE_ARRAY, u32, RuleSlot, SLOTS_MAX, 0
}

map! {
    /// Exact counts of each slot.
    SLOT_COUNTS: SlotCounts, BPF_MAP_TYPE_PERCPU_ARRAY, u32, SlotCount, SLOTS_MAX, 0
}

map! {
    /// The gate's own counters, one row a `GateSlot`.
    GATE_COUNTS: GateCounts, BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, GateSlot::COUNT as usize, 0
}

map! {
    /// Client prefixes of rules.
    ADDRESSES: Addresses, BPF_MAP_TYPE_LPM_TRIE, PrefixKey, AddressRow, PREFIXES as usize, NO_PREALLOC
}

map! {
    /// The allow-list.
    ALLOWED: Allowed, BPF_MAP_TYPE_LPM_TRIE, PrefixKey, AllowRow, ALLOWED_MAX as usize, NO_PREALLOC
}

map! {
    /// Identity groups of cgroups, processes and task names.
    IDENTITIES: Identities, BPF_MAP_TYPE_HASH, IdentityKey, u64, IDENTITIES_MAX as usize, NO_PREALLOC
}

map! {
    /// Who sends, by the sequence numbers with which both streams of the connection begin (`Conn::start`, as the client
    /// has them): so its server on this node knows it, whatever was done to addresses on the way. Written with the first
    /// segment of a generation of rules that names both ends, read when that segment arrives.
    PEERS: Peers, BPF_MAP_TYPE_LRU_HASH, [u32; 2], [u64; 4], PEERS_MAX as usize, 0
}

map! {
    /// Rate limits: theoretical arrival times. The least recently used key goes first.
    LIMITS: Limits, BPF_MAP_TYPE_LRU_HASH, LimitKey, u64, LIMITS_MAX as usize, 0
}

map! {
    /// States of the two compiled tables.
    STATES: States, BPF_MAP_TYPE_ARRAY, u32, Row, 2 * STATES_MAX as usize, 0
}

map! {
    /// Classes of symbols of the two compiled tables.
    CLASSES: SymbolClasses, BPF_MAP_TYPE_ARRAY, u32, Classes, 2, 0
}

map! {
    /// What paths, hosts and methods match, of the two compiled tables.
    MASKS: Masks, BPF_MAP_TYPE_ARRAY, u32, Mask, 2 * MASKS_MAX as usize, 0
}

map! {
    /// Steps of the gate for what is received. Not shared with the other way: since 6.17 the kernel keeps programs of
    /// different attach types apart.
    STEPS_IN: StepsIn, BPF_MAP_TYPE_PROG_ARRAY, u32, u32, 5, 0
}

map! {
    /// Steps of the gate for what is sent.
    STEPS_OUT: StepsOut, BPF_MAP_TYPE_PROG_ARRAY, u32, u32, 3, 0
}

map! {
    /// Connections of which the agent knows that nothing it reads is spoken there, by cookie; from there the connection's
    /// own state takes it. An entry that nobody takes is the oldest one day, and leaves.
    FOREIGN: Foreigns, BPF_MAP_TYPE_LRU_HASH, u64, u8, 4096, 0
}

map! {
    /// What threads and goroutines that take requests are about; until the thread ends, or the goroutine's request. Those
    /// beyond the bound are on no errand. Not an LRU: what would be forgotten is what speaks against an errand.
    WALKS: Walks, BPF_MAP_TYPE_HASH, Walker, Walk, 16384, 0
}

map! {
    /// Go processes whose goroutines can be told apart, by process id; until the process ends or has a new image.
    GO_PROCESSES: GoProcesses, BPF_MAP_TYPE_HASH, u32, GoProcess, 4096, NO_PREALLOC
}

map! {
    /// Goroutines whose next request another one sends for them, by the connection's cookie; until it is sent. What waits
    /// longest goes first, and its call has no parent then.
    PLEDGES: Pledges, BPF_MAP_TYPE_LRU_HASH, u64, Pledge, 8192, 0
}

map! {
    /// Processes that take requests, by process id; until the process ends. Those beyond the bound have no chains.
    CALLERS: Callers, BPF_MAP_TYPE_HASH, u32, Caller, 4096, 0
}

map! {
    /// Questions of DNS that wait for their answers. The one that waited longest goes first.
    ASKED: Questions, BPF_MAP_TYPE_LRU_HASH, Question, Asked, 4096, 0
}

map! {
    /// How many DNS messages may still be handed over in the running second.
    DNS_BUDGET: Budgets, BPF_MAP_TYPE_PERCPU_ARRAY, u32, Budget, 1, 0
}

/// Records for the agent. Its size is set by the loader (`kernel.ring`).
#[repr(C)]
pub(crate) struct Ring {
    r#type: *const [i32; BPF_MAP_TYPE_RINGBUF as usize],
    max_entries: *const [i32; 1 << 24],
}
// SAFETY: a placeholder that the loader fills; never read from here.
unsafe impl Sync for Ring {}
impl Ring {
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
#[btf_map]
pub(crate) static RING: Ring = Ring { r#type: core::ptr::null(), max_entries: core::ptr::null() };
