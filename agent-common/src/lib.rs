//! The border: plain data that the kernel half and the agent agree on.
//!
//! Everything here is `repr(C)` arithmetic without padding. Open sets (kinds, roles, reasons) cross as numbers and are
//! decoded with checks, never transmuted into Rust enums.
#![no_std]

pub mod conn;
pub mod errand;
pub mod goroutine;
pub mod judge;
pub mod knob;
#[cfg(feature = "user")]
mod pod;
pub mod record;
pub mod verdict;

/// Changes whenever a layout of this crate changes; the loader refuses an object with another number.
pub const ABI: u32 = 3;
