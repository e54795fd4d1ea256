//! Many elements of an array map in one call (`BPF_MAP_UPDATE_BATCH`, since 5.6), which aya 0.14 has not: a change of rules
//! writes some hundred.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::Pod;

use super::link::bpf;

/// Command of `bpf(2)`.
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// `struct { ... } batch` of `union bpf_attr`.
#[repr(C)]
struct Batch {
    /// `in_batch` and `out_batch`: where looking goes on; not of writing.
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes the elements from `first` on. `map` is an array of values of `T`'s size. Where it fails, some of them are written.
pub(super) fn write<T: Pod>(map: BorrowedFd<'_>, first: u32, values: &[T]) -> io::Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let count = u32::try_from(values.len()).map_err(io::Error::other)?;
    let keys: Vec<u32> = (first..first.saturating_add(count)).collect();
    let batch = Batch {
        from: 0,
        next: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map: map.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // The kernel writes back how many it took: into `count`, which nobody reads.
    let batch = std::cell::UnsafeCell::new(batch);
    bpf(BPF_MAP_UPDATE_BATCH, &batch).map(drop)
}
