//! Every map: key, bound, why this kind.

use aya_ebpf::bindings::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_SK_STORAGE,
};
use aya_ebpf::macros::btf_map;
use weir_common::knob::Slot;

use crate::conn::{Conn, Stage};
use crate::early::{Early, SLOTS};

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
    /// Payload that came before its socket, by a hash of the connection's ends.
    EARLY: Earlies, BPF_MAP_TYPE_ARRAY, u32, Early, SLOTS, 0
}

map! {
    /// Connections of which the agent knows that nothing it reads is spoken there, by cookie; from there the connection's
    /// own state takes it. An entry that nobody takes is the oldest one day, and leaves.
    FOREIGN: Foreigns, BPF_MAP_TYPE_LRU_HASH, u64, u8, 4096, 0
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
