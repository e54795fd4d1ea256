//! Which rule a request meets.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use weir_common::judge::state::NOT_HTTP;
use weir_common::judge::unclear::{TARGET, UNSEEN};
use weir_common::record::Way;
use weir_common::verdict::{
    Act, GateSlot, LimitKey, SLOT_PER_CLIENT, SLOT_PER_NETWORK, SLOT_STRICT, Slot, Standing, VERDICT_AMBIGUOUS,
    VERDICT_LIMITED,
};

use super::read::{around, done, matched, on, state_of, todo, turns};
use super::state::Gate;
use super::table::{self, Met};
use super::{DROP, PASS, early, state, tell};
use crate::conn::{stage, staged};
use crate::maps::{LIMITS, SLOTS_OF_RULES};
use crate::track;

/// Requests that one run decides about, and how far it reads for the next one: with the steps that the kernel allows, more
/// than any segment holds that a network carries.
const REQUESTS: u32 = 2;
/// See [`REQUESTS`].
const TURNS: u32 = 8;

const _: () = assert!(size_of::<LimitKey>() == 24 && core::mem::offset_of!(LimitKey, slot) == 16);

/// Whether some rule may meet the request that was just read.
#[inline(always)]
pub(super) fn may(gate: *mut Gate, half: u32) -> bool {
    let mut any = u64::from(staged!(gate, denies));
    // What is ambiguous meets strict rules whatever its path: which slots are strict, the decision looks up.
    let all = 0u64.wrapping_sub(u64::from(staged!(gate, judge.unclear) != 0));
    let mut word = 0;
    while word < 4 {
        let slots = staged!(gate, slots[word]);
        any |= slots & (matched(gate, half, word) | all);
        word += 1;
    }
    any != 0
}

/// Refuses what could not be read where a strict rule stands against the connection; false: it passes.
#[inline(always)]
pub(super) fn strict<const EARLY: bool>(skb: *mut __sk_buff, sk: *mut bpf_sock, gate: *mut Gate, way: Way) -> bool {
    let slot = staged!(gate, strict);
    if slot == 0 {
        return false;
    }
    stage!(gate, pick, slot);
    stage!(gate, flags, VERDICT_AMBIGUOUS);
    stage!(gate, judge.unclear, staged!(gate, judge.unclear) | UNSEEN);
    refuse::<EARLY>(skb, sk, gate, way);
    true
}

/// The request at hand is refused by the picked slot.
#[inline(always)]
fn refuse<const EARLY: bool>(skb: *mut __sk_buff, sk: *mut bpf_sock, gate: *mut Gate, way: Way) {
    let slot = staged!(gate, pick).wrapping_sub(1);
    if EARLY {
        early::refuse(slot);
        return;
    }
    stage!(gate, standing, Standing::DENIED.0);
    if state::again(gate, staged!(gate, request)) {
        table::met(slot, Met::Segment);
        return;
    }
    table::met(slot, Met::Request);
    tell::request(skb, sk, gate, way, slot);
}

/// The step that decides.
#[inline(always)]
pub(crate) fn decide<const EARLY: bool>(skb: *mut __sk_buff, way: Way) -> i32 {
    let sk = track::socket(skb);
    if sk.is_null() {
        return PASS;
    }
    let gate = state_of::<EARLY>(sk);
    if gate.is_null() {
        return PASS;
    }
    let half = staged!(gate, table) & 1;
    let mut n = 0;
    while n < if EARLY { 1 } else { REQUESTS } {
        stage!(gate, pick, staged!(gate, base));
        stage!(gate, pick_rank, staged!(gate, base_rank));
        stage!(gate, flags, 0);
        stage!(gate, denies_now, staged!(gate, denies));
        pick(gate, half, false);
        pick(gate, half, true);
        if staged!(gate, denies_now) != 0 {
            refuse::<EARLY>(skb, sk, gate, way);
            // Should the rules change, it is read again when it comes again.
            state::back(gate);
            state::unlock(gate);
            return DROP;
        }
        if staged!(gate, judge.unclear) != 0 {
            table::count(GateSlot::AMBIGUOUS);
        }
        if staged!(gate, judge.state) == NOT_HTTP {
            return done::<EARLY>(gate);
        }
        turns::<TURNS>(skb, gate);
        if staged!(gate, todo) != todo::DECIDE {
            break;
        }
        n += 1;
    }
    on::<EARLY>(skb, sk, gate, way)
}

/// Picks the slot of highest rank among those that met the request: of `allow` and `deny`, or, above the one that was
/// picked, of limits that are exceeded. Every limit that is met costs, in no order.
#[inline(always)]
fn pick(gate: *mut Gate, half: u32, limits: bool) {
    let mut word = 0;
    while word < 4 {
        let slots = staged!(gate, slots[word]);
        if slots != 0 {
            // What matched, and beside it what only strict rules meet.
            stage!(gate, met, slots & matched(gate, half, word));
            let seems = if staged!(gate, judge.unclear) & !TARGET == 0 { around(gate, half, word) } else { u64::MAX };
            stage!(gate, loose, slots & seems);
            let mut bit = 0u32;
            while bit < 64 {
                if staged!(gate, slots[word]) >> bit & 1 != 0 {
                    let plain = staged!(gate, met) >> bit & 1 != 0;
                    let loose = staged!(gate, loose) >> bit & 1 != 0;
                    one(gate, word as u32 * 64 + bit, plain, loose, limits);
                }
                bit += 1;
            }
        }
        word += 1;
    }
}

#[inline(always)]
fn one(gate: *mut Gate, index: u32, plain: bool, loose: bool, limits: bool) {
    let slot = table::at::<Slot>(SLOTS_OF_RULES.as_ptr(), index);
    // SAFETY: null, or a map value.
    let Some(slot) = (unsafe { slot.as_ref() }) else { return };
    let ambiguous = loose && slot.flags & SLOT_STRICT != 0 && staged!(gate, judge.unclear) != 0;
    if !plain && !ambiguous {
        return;
    }
    let (act, rank) = (slot.act, slot.rank);
    if rank <= staged!(gate, pick_rank) && staged!(gate, pick) != 0 {
        return;
    }
    if limits {
        if act != Act::LIMIT.0 || passes(gate, index, slot) {
            return;
        }
        stage!(gate, flags, VERDICT_LIMITED);
        stage!(gate, denies_now, 1);
    } else {
        if act != Act::ALLOW.0 && act != Act::DENY.0 {
            return;
        }
        stage!(gate, flags, if plain { 0 } else { VERDICT_AMBIGUOUS });
        stage!(gate, denies_now, u8::from(act == Act::DENY.0));
    }
    stage!(gate, pick, index + 1);
    stage!(gate, pick_rank, rank);
}

/// Generic cell rate algorithm (ITU-T I.371 §A.1), as the agent's `policy::gcra`. Two processors that let the same key
/// pass in the same moment may charge it once.
#[inline(always)]
fn passes(gate: *mut Gate, index: u32, slot: &Slot) -> bool {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let per_client = slot.flags & SLOT_PER_CLIENT != 0;
    let mut client = if per_client { [staged!(gate, client[0]), staged!(gate, client[1])] } else { [0, 0] };
    // An IPv4 address's own words are 0 and a second one that begins with its mark.
    if slot.flags & SLOT_PER_NETWORK != 0 && (client[0] != 0 || client[1] as u32 != track::MAPPED) {
        client[1] = 0;
    }
    // A `LimitKey`, word by word.
    let key = [client[0], client[1], u64::from(index)];
    let (cost, slack) = (slot.cost, slot.slack);
    let arrival = table::of::<[u64; 3], u64>(LIMITS.as_ptr(), &key);
    // SAFETY: null, or a map value.
    let Some(arrival) = (unsafe { arrival.as_mut() }) else {
        table::count(GateSlot::KEYS);
        table::put(LIMITS.as_ptr(), &key, &now.wrapping_add(cost));
        return true;
    };
    let due = if *arrival > now { *arrival } else { now };
    if due - now > slack {
        return false;
    }
    *arrival = due.wrapping_add(cost);
    true
}
