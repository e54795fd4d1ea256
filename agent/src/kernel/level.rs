//! How full the ring is, for somebody who does not read it.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The ring's two positions (`kernel/bpf/ringbuf.c`): the first page has the consumer's, the second the producers'. Both
/// only grow; their difference is what waits.
pub struct Level {
    pages: NonNull<AtomicUsize>,
    page: usize,
    bytes: usize,
}

// SAFETY: the pages are only read, and only atomically.
unsafe impl Send for Level {}
// SAFETY: as above.
unsafe impl Sync for Level {}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Level").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Level {
    /// Maps the positions of a ring of `bytes`.
    pub(super) fn new(ring: BorrowedFd<'_>, bytes: u32) -> io::Result<Self> {
        // SAFETY: sysconf(3) has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: a new mapping at a place of the kernel's choice; unmapped when dropped.
        let pages = unsafe {
            let flags: c_int = libc::MAP_SHARED;
            libc::mmap(std::ptr::null_mut(), 2 * page, libc::PROT_READ, flags, ring.as_raw_fd(), 0)
        };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = NonNull::new(pages.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { pages, page, bytes: bytes as usize })
    }

    /// Bytes that wait to be read, and how many there is room for.
    #[must_use]
    pub fn filled(&self) -> (usize, usize) {
        let taken = self.position(0);
        (self.position(self.page / size_of::<AtomicUsize>()).wrapping_sub(taken).min(self.bytes), self.bytes)
    }

    fn position(&self, word: usize) -> usize {
        // SAFETY: the first word of one of the two mapped pages, where the kernel keeps an `unsigned long`.
        unsafe { self.pages.add(word).as_ref() }.load(Ordering::Acquire)
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody has a reference into it.
        unsafe { libc::munmap(self.pages.as_ptr().cast(), 2 * self.page) };
    }
}
