//! Processes and their executables, as `/proc` shows them.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Of `getauxval(3)`: where the program headers lie.
const AT_PHDR: u64 = 3;

/// A file as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    device: u64,
    number: u64,
    size: u64,
    changed: (i64, i64),
}

impl From<&Metadata> for Inode {
    fn from(of: &Metadata) -> Self {
        Self { device: of.dev(), number: of.ino(), size: of.size(), changed: (of.mtime(), of.mtime_nsec()) }
    }
}

/// What stands for the executable of a process, also in another mount namespace, and when its file is gone.
pub(super) fn path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

impl Inode {
    /// Of the executable of a process.
    pub fn of(pid: u32) -> io::Result<Self> {
        fs::metadata(path(pid)).map(|of| Self::from(&of))
    }
}

/// How far behind its addresses the executable of a process lies in memory; `headers`: the address of its program headers.
#[must_use]
pub fn bias(pid: u32, headers: u64) -> Option<u64> {
    let words = fs::read(format!("/proc/{pid}/auxv")).ok()?;
    phdr(&words)?.checked_sub(headers)
}

fn phdr(words: &[u8]) -> Option<u64> {
    let (pairs, _) = words.as_chunks::<16>();
    pairs.iter().find_map(|pair| {
        let word = |at: usize| Some(u64::from_ne_bytes(pair.get(at..at + 8)?.try_into().ok()?));
        if word(0)? == AT_PHDR { word(8) } else { None }
    })
}

/// Every process that there is.
#[must_use]
pub fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there() {
        let own = std::process::id();
        assert!(pids().contains(&own));
        assert_eq!(Inode::of(own).unwrap(), Inode::from(&fs::metadata("/proc/self/exe").unwrap()));
        assert!(bias(own, 0).unwrap() > 0);
    }

    #[test]
    fn headers_of_a_short_list() {
        assert_eq!(phdr(&[]), None);
        let words: Vec<u8> = [6u64, 4096, AT_PHDR, 0x40_0040, 0, 0].into_iter().flat_map(u64::to_ne_bytes).collect();
        assert_eq!(phdr(&words), Some(0x40_0040));
        assert_eq!(phdr(&words[..30]), None);
    }
}
