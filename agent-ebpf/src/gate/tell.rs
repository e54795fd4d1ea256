//! Verdicts for the agent.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns};
use weir_common::conn::{Ends, Role};
use weir_common::record::{Head, Kind, Way};
use weir_common::verdict::{
    GateSlot, SLOT_RESET, Slot, VERDICT_CONNECTION, VERDICT_DROPPED, VERDICT_NEW, VERDICT_RESET, Verdict,
};

use super::state::Gate;
use super::table;
use crate::conn::{Conn, staged};
use crate::maps::SLOTS_OF_RULES;
use crate::{emit, track};

/// A request was refused.
#[inline(always)]
pub(super) fn request(skb: *mut __sk_buff, sk: *mut bpf_sock, gate: *mut Gate, way: Way, slot: u32) {
    verdict(skb, sk, gate, way, slot, staged!(gate, request), staged!(gate, flags));
}

/// A connection was refused with the segment that starts at `seq`.
#[inline(always)]
pub(super) fn connection(skb: *mut __sk_buff, sk: *mut bpf_sock, gate: *mut Gate, way: Way, slot: u32, seq: u32) {
    verdict(skb, sk, gate, way, slot, seq, VERDICT_CONNECTION);
}

/// A connection was refused before it was made.
#[inline(always)]
pub(super) fn before(ctx: *mut c_void, conn: *const Conn, gate: *mut Gate, slot: u32, ends: &Ends) {
    let record = begin(ctx, conn, gate, Way::OUT, slot, 0, VERDICT_CONNECTION | VERDICT_NEW, 0);
    if record.is_null() {
        return;
    }
    // SAFETY: not null, and room for a `Verdict`.
    unsafe {
        (&raw mut (*record).ends).write(*ends);
        (&raw mut (*record).bound).write(0);
    }
    emit::submit(record);
}

#[inline(always)]
fn verdict(skb: *mut __sk_buff, sk: *mut bpf_sock, gate: *mut Gate, way: Way, slot: u32, request: u32, flags: u8) {
    let rule = table::at::<Slot>(SLOTS_OF_RULES.as_ptr(), slot);
    // SAFETY: null, or a map value.
    let Some(rule) = (unsafe { rule.as_ref() }) else { return };
    let (act, reset) = (rule.act, if rule.flags & SLOT_RESET == 0 { 0 } else { VERDICT_RESET });
    let record = begin(skb.cast(), track::storage(sk.cast(), 0), gate, way, slot, request, flags | reset, act);
    if record.is_null() {
        return;
    }
    // Straight into the record: two more calls' frames leave no room for them on the stack.
    // SAFETY: not null, and room for a `Verdict`.
    unsafe {
        (&raw mut (*record).ends).write(track::ends(sk));
        (&raw mut (*record).bound).write(track::bound(sk));
    }
    emit::submit(record);
}

/// A record without its ends and what its socket is bound to, which the caller writes before it submits; null: counted
/// as lost.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined: what a record holds")]
fn begin(
    ctx: *mut c_void,
    conn: *const Conn,
    gate: *mut Gate,
    way: Way,
    slot: u32,
    request: u32,
    flags: u8,
    act: u8,
) -> *mut Verdict {
    let record = emit::reserve::<Verdict>();
    if record.is_null() {
        table::count(GateSlot::LOST);
        return record;
    }
    let (active, unclear, row) = (staged!(gate, active), staged!(gate, judge.unclear), staged!(gate, row) as u8);
    // SAFETY: the context of a cgroup_skb program; `record` is not null and has room for a `Verdict`.
    unsafe {
        let cookie = bpf_get_socket_cookie(ctx);
        let head = Head { kind: Kind::VERDICT.0, flags: 0, lost: 0, conn: cookie, at: bpf_ktime_get_ns() };
        (&raw mut (*record).head).write(head);
        (&raw mut (*record).owner).write(conn.as_ref().map_or_else(Default::default, |conn| conn.owner));
        (&raw mut (*record).active).write(active);
        (&raw mut (*record).request).write(request);
        (&raw mut (*record).slot).write(slot as u16);
        (&raw mut (*record).unclear).write(unclear);
        (&raw mut (*record).flags).write(flags | VERDICT_DROPPED);
        (&raw mut (*record).role).write(if way == Way::IN { Role::SERVER.0 } else { Role::CLIENT.0 });
        (&raw mut (*record).row).write(row);
        (&raw mut (*record).act).write(act);
    }
    record
}
