//! Packets whose socket is a listener: what asks for a connection, and data that comes before its connection has a socket
//! (`TCP_DEFER_ACCEPT`, a lost ACK, TCP Fast Open).
//!
//! Where requests are read, such data is read at once, on this CPU's own state: a server that defers accepting gets no
//! other. What passes makes the connection's socket before anything else runs here, and that goes on from this state.
//! What is refused stays unanswered: there is no socket yet to reset.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use weir_common::record::Way;
use weir_common::verdict::{Bank, GateSlot, SLOT_RESET, SWITCH_ACTIVE, Slot, Standing};

use super::read::{Step, go};
use super::state::{self, Gate};
use super::table::{self, Met};
use super::{DROP, PASS, hidden, ready};
use crate::conn::{Conn, stage, staged};
use crate::maps::{BANKS, GATE_SCRATCH, SLOTS_OF_RULES};
use crate::packet::{self, Other, SYN};
use crate::{checksum, track};

/// `begun`: a segment was read whose socket comes next.
pub(super) const READ: u8 = 3;

/// The state of a packet whose socket is a listener.
#[inline(always)]
pub(super) fn scratch() -> *mut Gate {
    table::at::<Gate>(GATE_SCRATCH.as_ptr(), 0)
}

/// A new connection, or the last step of its handshake.
#[inline(always)]
pub(super) fn arriving(skb: *mut __sk_buff) -> i32 {
    let (mut payload, mut start) = (false, [0; 2]);
    match packet::parse(skb) {
        // It completes the handshake, so both streams begin here.
        Ok(Some(packet)) if packet.len != 0 => (payload, start) = (true, [packet.seq, packet.ack]),
        Err(Other::Unreadable) => return hidden(),
        _ => {}
    }
    let gate = scratch();
    if gate.is_null() {
        return PASS;
    }
    // Nobody takes over what was read of another packet.
    stage!(gate, begun, 0);
    if !payload && packet::flags(skb) & SYN == 0 {
        return PASS;
    }
    stage!(gate, start[0], start[0]);
    stage!(gate, start[1], start[1]);
    stage!(gate, peer[0], 0);
    stage!(gate, signal, u8::from(payload));
    go(skb, Way::IN, Step::Stand);
    table::count(GateSlot::DAMAGED);
    PASS
}

/// As [`arriving`], after its connection was judged.
#[inline(always)]
pub(super) fn arrived(skb: *mut __sk_buff, gate: *mut Gate) -> i32 {
    let payload = staged!(gate, signal) != 0;
    let standing = staged!(gate, standing);
    if standing == Standing::DENIED.0 {
        let index = staged!(gate, base).wrapping_sub(1);
        let slot = table::at::<Slot>(SLOTS_OF_RULES.as_ptr(), index);
        // SAFETY: null, or a map value.
        let resets = unsafe { slot.as_ref() }.is_some_and(|slot| slot.flags & SLOT_RESET != 0);
        if resets && !payload {
            // Established first, so that it can be reset: in silence its client would wait.
            return PASS;
        }
        return refuse(index);
    }
    if !payload || standing != Standing::READ.0 || checksum::wrong(skb) {
        return PASS;
    }
    let packet = match packet::parse(skb) {
        Ok(Some(packet)) if packet.len != 0 => packet,
        _ => return PASS,
    };
    let bank = table::at::<Bank>(BANKS.as_ptr(), (staged!(gate, active) & 1) as u32);
    // SAFETY: null, or a map value.
    stage!(gate, table, unsafe { bank.as_ref() }.map_or(0, |bank| bank.table));
    stage!(gate, readers, 1);
    stage!(gate, urges, 0);
    state::start(gate);
    ready(gate, &packet, packet.seq);
    go(skb, Way::IN, Step::ReadEarly);
    table::count(GateSlot::DAMAGED);
    PASS
}

/// A packet is refused unanswered. Its sender sends it again, until it is accepted without data and can be reset.
#[inline(always)]
pub(super) fn refuse(slot: u32) -> i32 {
    table::met(slot, Met::Attempt);
    table::count(GateSlot::REFUSED);
    DROP
}

/// A connection that was accepted has its socket: it goes on from what was read of the packet that made it.
#[inline(always)]
pub(crate) fn adopt(sk: *mut bpf_sock, conn: &Conn) {
    if table::switch(SWITCH_ACTIVE) == 0 {
        return;
    }
    let from = scratch();
    if from.is_null() || staged!(from, begun) != READ {
        return;
    }
    stage!(from, begun, 0);
    if staged!(from, start[0]) != conn.start[0] {
        return;
    }
    let gate = table::gate(sk.cast(), track::CREATE);
    if gate.is_null() {
        table::count(GateSlot::NO_STORAGE);
        return;
    }
    state::adopt(from, gate);
}
