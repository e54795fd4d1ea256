//! Weir: the kernel half. Hooks see segments, `track` keeps each connection's state, `framing` decides what to keep of
//! a segment, `emit` hands it to the agent, `gate` refuses what rules name. Every hook fails open.
#![no_std]
#![no_main]
#![allow(clippy::inline_always, reason = "a call between programs' parts costs more than their code, and 5.10 has few")]
#![allow(clippy::needless_pass_by_value, reason = "the macros of hooks hand the context over by value")]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "an atomic add without a libcore type for it on this target")]

mod checksum;
mod conn;
mod copy;
mod dns;
mod early;
mod emit;
mod errand;
mod framing;
mod gate;
mod goroutine;
mod hooks;
mod knobs;
mod maps;
mod packet;
mod stats;
mod track;
mod who;

// Must be named so and be NUL-terminated: the kernel compares it with its list of licences (`license_is_gpl_compatible`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
