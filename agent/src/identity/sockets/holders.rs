//! Which process holds which socket: the links of `/proc/*/fd`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use weir_common::conn::{Known, Owner};

use super::super::cgroupfs::Cgroups;
use super::super::procfs;
use super::namespaces::pids;
use super::{Socket, Sockets};

/// Most holders of one socket that are told apart.
const HOLDERS: usize = 64;

/// Holders of sockets, by inode number in sockfs.
pub(super) struct Holders {
    owners: HashMap<u32, Owner>,
    pub(super) orphans: u64,
    pub(super) disputed: u64,
}

impl Holders {
    /// Finds the holders of `rows` in one pass over the descriptors of all processes.
    pub(super) fn find(proc: &Path, rows: &[(Socket, u32)], found: &mut Sockets) -> io::Result<Self> {
        let mut holders: HashMap<u32, Vec<u32>> =
            rows.iter().filter(|(_, inode)| *inode != 0).map(|(_, inode)| (*inode, Vec::new())).collect();
        for pid in pids(proc)? {
            match descriptors(&proc.join(format!("{pid}/fd")), |inode| {
                if let Some(pids) = holders.get_mut(&inode)
                    && pids.last() != Some(&pid)
                    && pids.len() < HOLDERS
                {
                    pids.push(pid);
                }
            }) {
                Ok(()) => found.processes += 1,
                // It ended meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
                Err(_) => found.processes_denied += 1,
            }
        }
        let mut judge = Judge { proc, cgroups: Cgroups::new(), processes: HashMap::new() };
        let mut result = Self { owners: HashMap::with_capacity(holders.len()), orphans: 0, disputed: 0 };
        result.orphans = rows.iter().filter(|(_, inode)| *inode == 0).count() as u64;
        for (inode, pids) in holders {
            match judge.decide(&pids) {
                Verdict::One(owner) => {
                    result.owners.insert(inode, owner);
                }
                Verdict::Nobody => result.orphans += 1,
                Verdict::Disputed => result.disputed += 1,
            }
        }
        Ok(result)
    }

    /// Who holds the socket with this inode number; nobody where that is not certain.
    pub(super) fn owner(&self, inode: u32) -> Owner {
        self.owners.get(&inode).copied().unwrap_or(Owner { uid: u32::MAX, ..Owner::default() })
    }
}

/// Calls `each` with the inode numbers of a process's sockets.
fn descriptors(folder: &Path, mut each: impl FnMut(u32)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let Ok(link) = fs::read_link(entry?.path()) else { continue };
        let inode = link.as_os_str().as_bytes().strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
        if let Some(inode) = inode.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
            each(inode);
        }
    }
    Ok(())
}

enum Verdict {
    One(Owner),
    Nobody,
    Disputed,
}

struct Judge<'a> {
    proc: &'a Path,
    cgroups: Cgroups,
    processes: HashMap<u32, Option<(Owner, PathBuf)>>,
}

impl Judge<'_> {
    /// The oldest holder, if all run the same executable.
    fn decide(&mut self, pids: &[u32]) -> Verdict {
        let mut first: Option<(Owner, PathBuf)> = None;
        for &pid in pids {
            let Some((owner, executable)) = self.process(pid) else { continue };
            match &mut first {
                None => first = Some((*owner, executable.clone())),
                Some((_, other)) if other != executable => return Verdict::Disputed,
                Some((kept, _)) if owner.tgid < kept.tgid => *kept = *owner,
                Some(_) => {}
            }
        }
        first.map_or(Verdict::Nobody, |(owner, _)| Verdict::One(owner))
    }

    fn process(&mut self, pid: u32) -> Option<&(Owner, PathBuf)> {
        if !self.processes.contains_key(&pid) {
            let process = self.read(pid);
            self.processes.insert(pid, process);
        }
        self.processes.get(&pid)?.as_ref()
    }

    fn read(&mut self, pid: u32) -> Option<(Owner, PathBuf)> {
        let folder = self.proc.join(pid.to_string());
        let executable = fs::read_link(folder.join("exe")).ok()?;
        let name = fs::read(folder.join("comm")).ok()?;
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().take(15).zip(name.strip_suffix(b"\n").unwrap_or(&name)) {
            *to = *from;
        }
        let status = fs::read(folder.join("status")).ok()?;
        let cgroup = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).and_then(|path| self.cgroups.id(path));
        let owner = Owner {
            tgid: pid,
            tid: pid,
            uid: procfs::effective_uid(&status).unwrap_or(u32::MAX),
            known: Known::CREATOR.0,
            reserved: [0; 3],
            cgroup: cgroup.unwrap_or(0),
            comm,
        };
        Some((owner, executable))
    }
}
