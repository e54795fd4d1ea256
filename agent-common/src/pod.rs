//! Every `unsafe impl Pod`.

use crate::knob::Offsets;

// SAFETY: `repr(C)`, only `u32` fields, no padding (asserted by tests/layout.rs).
unsafe impl aya::Pod for Offsets {}
