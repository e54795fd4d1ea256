//! Which rules may meet a connection: judged once, and again when the rules change or a time ends.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use weir_common::conn::Ends;
use weir_common::verdict::{
    Act, AddressRow, AllowRow, Bank, GRACE_NS, GateSlot, Identity, NESTED, PrefixKey, SLOT_AT_CLIENT, SLOT_AT_SERVER,
    SLOT_ENFORCE, SLOT_FORCE, SLOT_OUTLIVES, SLOT_REQUEST, SLOT_STRICT, SLOT_USED, SWITCH_HEARTBEAT, Slot, Standing,
};

use super::state::Gate;
use super::table;
use crate::conn::{Conn, stage, staged};
use crate::maps::{ADDRESSES, ALLOWED, BANKS, IDENTITIES, PEERS, SLOTS_OF_RULES};

/// Words of a mask.
const WORDS: usize = 4;
/// Slots that one step looks at; a connection that more may meet takes another step.
const SLOTS_A_STEP: u32 = 48;

/// Whether what the gate knows of a connection holds no more.
#[inline(always)]
pub(super) fn is_over(gate: *mut Gate, active: u64) -> bool {
    if staged!(gate, active) != active {
        return true;
    }
    let until = staged!(gate, until);
    // SAFETY: no arguments.
    until != 0 && unsafe { bpf_ktime_get_ns() } >= until
}

/// Begins to judge a connection whose ends and owner are these: gathers the slots that its addresses leave.
#[inline(always)]
pub(super) fn begin(gate: *mut Gate, ends: &Ends, conn: *const Conn, at_client: bool, active: u64) {
    stage!(gate, active, active);
    stage!(gate, until, 0);
    stage!(gate, standing, Standing::CLEAR.0);
    stage!(gate, base, 0);
    stage!(gate, pick, 0);
    stage!(gate, base_rank, 0);
    stage!(gate, denies, 0);
    stage!(gate, rank, 0);
    stage!(gate, row, 0);
    stage!(gate, groups, 0);
    stage!(gate, peer_groups, 0);
    stage!(gate, strict, 0);
    stage!(gate, word, WORDS as u32);
    stage!(gate, slots, [0; WORDS]);
    stage!(gate, at_client, u8::from(at_client));
    let bank = table::at::<Bank>(BANKS.as_ptr(), (active & 1) as u32);
    if bank.is_null() {
        table::count(GateSlot::DAMAGED);
        return;
    }
    // SAFETY: checked for null.
    let bank = unsafe { &*bank };
    if bank.enforce == 0 {
        return;
    }
    if bank.pairs != 0 && at_client {
        tell_peer(gate, conn);
    }
    let mut i = 0;
    while i < WORDS {
        stage!(gate, slots[i], bank.any[i]);
        i += 1;
    }
    let (client, server) = if at_client { (&ends.local, &ends.remote) } else { (&ends.remote, &ends.local) };
    stage!(gate, client, words(client));
    let server = words(server);
    stage!(gate, server, [u64::from_be(server[0]), u64::from_be(server[1])]);
    stage!(gate, port, if at_client { ends.remote_port } else { ends.local_port });
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    addresses(gate, client, active, now);
    let mut any = 0;
    let mut i = 0;
    while i < WORDS {
        any |= staged!(gate, slots[i]);
        i += 1;
    }
    if any == 0 {
        return;
    }
    let mut wanted = SLOT_USED | SLOT_ENFORCE | if at_client { SLOT_AT_CLIENT } else { SLOT_AT_SERVER };
    let other = if at_client { &raw const ends.remote } else { client };
    let entry = around::<AllowRow>(gate, ALLOWED.as_ptr(), other, 128);
    // SAFETY: null, or a map value.
    if let Some(entry) = unsafe { entry.as_mut() } {
        // Counted where it is a slot that is saved from.
        wanted |= SLOT_FORCE;
        if entry.soft == 0 {
            // A connection is judged more than once; what its listener sees is not the connection yet.
            if staged!(gate, saved) == 0 && staged!(gate, begun) != 2 {
                stage!(gate, saved, 1);
                saved(entry);
            }
            stage!(gate, slots, [0; WORDS]);
            return;
        }
    }
    if bank.identity != 0 && !conn.is_null() {
        groups(gate, conn);
    }
    if bank.pairs != 0 && !at_client {
        peer(gate);
    }
    let beat = table::switch(SWITCH_HEARTBEAT).wrapping_add(GRACE_NS);
    if now >= beat {
        wanted |= SLOT_OUTLIVES;
    } else {
        sooner(gate, beat);
    }
    stage!(gate, wanted, wanted);
    stage!(gate, left, staged!(gate, slots));
    stage!(gate, word, 0);
}

/// The allow-list saved a connection.
#[inline(always)]
fn saved(entry: &mut AllowRow) {
    let hits = &raw mut entry.hits;
    // SAFETY: a field of a live map value.
    unsafe { core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(hits, 1) };
    table::count(GateSlot::ALLOWED);
}

/// What is left comes to this.
#[inline(always)]
pub(super) fn end(gate: *mut Gate) {
    let mut left = 0;
    let mut i = 0;
    while i < WORDS {
        left |= staged!(gate, slots[i]);
        i += 1;
    }
    let denies = staged!(gate, denies) != 0;
    let above = left != 0 && staged!(gate, rank) > staged!(gate, base_rank);
    if above {
        stage!(gate, standing, Standing::READ.0);
    } else if denies {
        stage!(gate, standing, Standing::DENIED.0);
    }
}

/// Sixteen bytes as they lie in memory.
#[inline(always)]
#[expect(clippy::cast_ptr_alignment, reason = "addresses and names lie at multiples of 8 in their structures")]
fn words(bytes: *const [u8; 16]) -> [u64; 2] {
    let from = bytes.cast::<u64>();
    // SAFETY: two words, in a live structure.
    unsafe { [from.read_volatile(), from.add(1).read_volatile()] }
}

/// It is judged anew at `then` at the latest.
#[inline(always)]
fn sooner(gate: *mut Gate, then: u64) {
    let until = staged!(gate, until);
    if until == 0 || then < until {
        stage!(gate, until, then);
    }
}

/// Adds the slots of every prefix around the client's address, longest first.
#[inline(always)]
fn addresses(gate: *mut Gate, client: &[u8; 16], active: u64, now: u64) {
    let (mut len, mut n) = (128, 0);
    while n < NESTED {
        let row = around::<AddressRow>(gate, ADDRESSES.as_ptr(), client, len);
        if row.is_null() {
            return;
        }
        // SAFETY: checked for null.
        let row = unsafe { &*row };
        let until = row.until;
        if row.from <= active && (until == 0 || now < until) {
            let mut i = 0;
            while i < WORDS {
                stage!(gate, slots[i], staged!(gate, slots[i]) | row.slots[i]);
                i += 1;
            }
            if staged!(gate, row) == 0 {
                stage!(gate, row, row.len + 1);
            }
            if until != 0 {
                sooner(gate, until);
            }
        }
        if row.len == 0 || row.len > 128 {
            return;
        }
        len = row.len - 1;
        n += 1;
    }
}

/// The row of the longest prefix around an address, of at most `len` bits. The key lies in the map: the stack is short.
#[inline(always)]
#[expect(clippy::cast_ptr_alignment, reason = "addresses lie at multiples of 4 in their structures")]
fn around<T>(gate: *mut Gate, map: *mut core::ffi::c_void, address: *const [u8; 16], len: u32) -> *mut T {
    stage!(gate, prefix.len, len);
    // SAFETY: four words of a live structure, to as many of a live map value; volatile, because the compiler would make
    // this a call of a bytewise `memcpy`, which has a stack of its own.
    unsafe {
        let (from, to) = (address.cast::<u32>(), (&raw mut (*gate).prefix.address).cast::<u32>());
        let mut i = 0;
        while i < 4 {
            to.add(i).write_volatile(from.add(i).read_volatile());
            i += 1;
        }
    }
    // SAFETY: a field of a live map value.
    table::of::<PrefixKey, T>(map, unsafe { &(*gate).prefix })
}

/// Identity groups of a socket's owner. A server's socket that nobody is known of may have a listener that is.
#[inline(always)]
fn groups(gate: *mut Gate, conn: *const Conn) {
    // SAFETY: a field of a live map value.
    let comm = unsafe { &raw const (*conn).owner.comm };
    group(gate, Identity::COMM, words(comm));
    group(gate, Identity::PROCESS, [u64::from(staged!(conn, owner.tgid)), 0]);
    group(gate, Identity::CGROUP, [staged!(conn, owner.cgroup), 0]);
    if u64::from(staged!(conn, owner.tgid)) | u64::from(staged!(gate, at_client)) == 0 {
        group(gate, Identity::LISTENER, [staged!(conn, netns), u64::from(staged!(gate, port))]);
    }
}

#[inline(always)]
fn group(gate: *mut Gate, kind: Identity, name: [u64; 2]) {
    stage!(gate, groups, staged!(gate, groups) | groups_of(gate, kind, name));
}

/// The key lies in the map: the stack is short.
#[inline(always)]
fn groups_of(gate: *mut Gate, kind: Identity, name: [u64; 2]) -> u64 {
    stage!(gate, key[0], kind.0);
    stage!(gate, key[1], name[0]);
    stage!(gate, key[2], name[1]);
    // SAFETY: a field of a live map value.
    let found = table::of::<[u64; 3], u64>(IDENTITIES.as_ptr(), unsafe { &(*gate).key });
    // SAFETY: null, or a map value.
    unsafe { found.as_ref() }.map_or(0, |found| *found)
}

/// Bit of the first word of a peer that says that it is known.
const KNOWN: u64 = 1 << 63;

/// Tells the server's end, should it be on this node, who sends. What is sent passes here before it arrives there.
#[inline(always)]
fn tell_peer(gate: *mut Gate, conn: *const Conn) {
    if conn.is_null() {
        return;
    }
    stage!(gate, start[0], staged!(conn, start[1]));
    stage!(gate, start[1], staged!(conn, start[0]));
    if staged!(gate, start[0]) | staged!(gate, start[1]) == 0 {
        // Not established yet (TCP Fast Open), or older than the agent: again with the next segment.
        sooner(gate, 1);
        return;
    }
    // SAFETY: a field of a live map value.
    let comm = words(unsafe { &raw const (*conn).owner.comm });
    stage!(gate, peer[0], u64::from(staged!(conn, owner.tgid)) | KNOWN);
    stage!(gate, peer[1], staged!(conn, owner.cgroup));
    stage!(gate, peer[2], comm[0]);
    stage!(gate, peer[3], comm[1]);
    // SAFETY: fields of a live map value.
    unsafe { table::put(PEERS.as_ptr(), &(*gate).start, &(*gate).peer) };
}

/// Identity groups of the client at the other end; none where it is not on this node.
#[inline(always)]
fn peer(gate: *mut Gate) {
    if staged!(gate, peer[0]) == 0 {
        // SAFETY: a field of a live map value.
        let found = table::of::<[u32; 2], [u64; 4]>(PEERS.as_ptr(), unsafe { &(*gate).start });
        // SAFETY: null, or a map value.
        let Some(found) = (unsafe { found.as_ref() }) else { return };
        let mut i = 0;
        while i < 4 {
            stage!(gate, peer[i], found[i]);
            i += 1;
        }
    }
    let groups = groups_of(gate, Identity::COMM, [staged!(gate, peer[2]), staged!(gate, peer[3])])
        | groups_of(gate, Identity::PROCESS, [staged!(gate, peer[0]) & !KNOWN, 0])
        | groups_of(gate, Identity::CGROUP, [staged!(gate, peer[1]), 0]);
    stage!(gate, peer_groups, groups);
}

/// Takes slots that do not hold out of the mask, and those that ask nothing of requests: the highest of these is the
/// base. False: there are more than one step looks at.
#[inline(always)]
pub(super) fn slots(gate: *mut Gate) -> bool {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut n = 0;
    while n < SLOTS_A_STEP {
        let at = staged!(gate, word);
        if at >= WORDS as u32 {
            return true;
        }
        let word = at as usize & 3;
        let left = staged!(gate, left[word]);
        if left == 0 {
            stage!(gate, word, at + 1);
        } else {
            let lowest = left & left.wrapping_neg();
            stage!(gate, left[word], left ^ lowest);
            if !one(gate, at * 64 + ones(lowest - 1), now) {
                stage!(gate, slots[word], staged!(gate, slots[word]) & !lowest);
            }
        }
        n += 1;
    }
    staged!(gate, word) >= WORDS as u32
}

/// Counts the ones of a word without branches.
#[inline(always)]
fn ones(word: u64) -> u32 {
    let pairs = word - (word >> 1 & 0x5555_5555_5555_5555);
    let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let eights = (fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (eights.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

/// Whether a slot stays in the mask.
#[inline(always)]
fn one(gate: *mut Gate, index: u32, now: u64) -> bool {
    let slot = table::at::<Slot>(SLOTS_OF_RULES.as_ptr(), index);
    if slot.is_null() {
        return false;
    }
    // SAFETY: checked for null.
    let slot = unsafe { &*slot };
    let flags = slot.flags;
    let wanted = staged!(gate, wanted);
    if flags & wanted != wanted || !ends_fit(gate, slot) {
        return false;
    }
    let until = slot.until;
    if until != 0 {
        if now >= until {
            return false;
        }
        sooner(gate, until);
    }
    let rank = slot.rank;
    if flags & SLOT_REQUEST != 0 {
        if rank > staged!(gate, rank) {
            stage!(gate, rank, rank);
        }
        if flags & SLOT_STRICT != 0 && slot.act == Act::DENY.0 {
            stage!(gate, strict, index + 1);
        }
        return true;
    }
    let act = slot.act;
    if (act == Act::ALLOW.0 || act == Act::DENY.0) && (rank > staged!(gate, base_rank) || staged!(gate, base) == 0) {
        stage!(gate, base_rank, rank);
        stage!(gate, base, index + 1);
        stage!(gate, denies, u8::from(act == Act::DENY.0));
    }
    false
}

/// Whether a slot's server, port and identities fit. Without branches that the verifier would follow one by one.
#[inline(always)]
fn ends_fit(gate: *mut Gate, slot: &Slot) -> bool {
    let port = slot.port;
    let mut differs = u64::from(port != 0 && port != staged!(gate, port));
    let len = u32::from(slot.server_len);
    let [high, low] = words(&raw const slot.server);
    differs |= (staged!(gate, server[0]) ^ u64::from_be(high)) & prefix(len);
    differs |= (staged!(gate, server[1]) ^ u64::from_be(low)) & prefix(len.saturating_sub(64));
    let groups = staged!(gate, groups);
    let (own, other) = if staged!(gate, at_client) != 0 {
        (slot.client_groups, slot.server_groups)
    } else {
        (slot.server_groups, slot.client_groups)
    };
    differs |= u64::from(own != 0 && own & groups == 0);
    // Who serves, a client's end can't tell.
    differs |= u64::from(other != 0 && other & staged!(gate, peer_groups) == 0);
    differs == 0
}

/// The first `len` bits of a word; all from 64 on.
#[inline(always)]
fn prefix(len: u32) -> u64 {
    if len == 0 {
        0
    } else if len >= 64 {
        u64::MAX
    } else {
        !(u64::MAX >> (len & 63))
    }
}
