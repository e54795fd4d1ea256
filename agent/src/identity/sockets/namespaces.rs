//! The network namespaces of a node: those that processes are in, and those that are mounted (`ip netns`).

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most network namespaces that are looked into.
const NAMESPACES: usize = 4096;

/// A network namespace.
pub(super) struct Namespace {
    /// Inode number in nsfs.
    pub(super) inode: u64,
    path: PathBuf,
}

impl Namespace {
    /// Moves this thread into it.
    pub(super) fn enter(&self) -> io::Result<()> {
        let file = File::open(&self.path)?;
        if file.metadata()?.ino() != self.inode {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        // SAFETY: the descriptor is open for the length of the call; only the calling thread is moved.
        let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// This thread's own.
pub(super) fn own() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// All of them, each once.
pub(super) fn all(proc: &Path) -> io::Result<Vec<Namespace>> {
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    let mut add = |path: PathBuf| {
        if let Ok(data) = fs::metadata(&path)
            && list.len() < NAMESPACES
            && seen.insert(data.ino())
        {
            list.push(Namespace { inode: data.ino(), path });
        }
    };
    add(PathBuf::from("/proc/self/ns/net"));
    for pid in pids(proc)? {
        add(proc.join(format!("{pid}/ns/net")));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter(|line| line.contains(" - nsfs ")).filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        fields.next().filter(|root| root.starts_with("net:"))?;
        Some(PathBuf::from(fields.next()?.replace("\\040", " ")))
    });
    mounted.for_each(add);
    Ok(list)
}

/// The processes of a procfs.
pub(super) fn pids(proc: &Path) -> io::Result<impl Iterator<Item = u32>> {
    Ok(fs::read_dir(proc)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The ports that this thread's network namespace gives to clients; the kernel's default where it can't be read.
pub(super) fn ephemeral_ports() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_ascii_whitespace().map_while(|word| word.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32768..=60999,
    }
}
