//! Every `unsafe impl Pod`.

use crate::goroutine::GoProcess;
use crate::knob::{GoOffsets, Offsets};
use crate::verdict::{AddressRow, AllowRow, Bank, IdentityKey, LimitKey, Slot, SlotCount};

// SAFETY: `repr(C)`, only `u32` fields, no padding (asserted by tests/layout.rs).
unsafe impl aya::Pod for Offsets {}
// SAFETY: as above.
unsafe impl aya::Pod for GoOffsets {}
// SAFETY: `repr(C)`, only integers and arrays of them, no padding (asserted by tests/layout.rs).
unsafe impl aya::Pod for GoProcess {}

// SAFETY: `repr(C)`, only integers and arrays of them, no padding (asserted beside each type).
unsafe impl aya::Pod for AddressRow {}
// SAFETY: as above.
unsafe impl aya::Pod for AllowRow {}
// SAFETY: as above.
unsafe impl aya::Pod for Bank {}
// SAFETY: as above.
unsafe impl aya::Pod for IdentityKey {}
// SAFETY: as above.
unsafe impl aya::Pod for LimitKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Slot {}
// SAFETY: as above.
unsafe impl aya::Pod for SlotCount {}
