//! cgroup v2 id → path, also for groups of processes that are gone.
//!
//! The id is the inode number of the group's folder. Asking the kernel for the folder by its handle is exact and costs
//! one call (`open_by_handle_at`, kernfs handles since 5.5, needs `CAP_DAC_READ_SEARCH`); where that is refused, the tree
//! is walked, at most once a second.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most paths that are remembered.
const PATHS: usize = 16 * 1024;
/// Most folders that one walk looks at.
const WALK: usize = 64 * 1024;
/// Shortest time between two walks, nanoseconds.
const WALK_EVERY: u64 = 1_000_000_000;
/// `FILEID_KERNFS` of the kernel's exportfs.h.
const FILEID_KERNFS: i32 = 0xfe;

/// The paths of cgroup v2.
#[derive(Debug)]
pub(super) struct Cgroups {
    mount: Option<PathBuf>,
    root: Option<File>,
    paths: HashMap<u64, Option<Arc<str>>>,
    by_handle: bool,
    walked: Option<u64>,
}

impl Cgroups {
    /// Finds where cgroup v2 is mounted (`/sys/fs/cgroup`, on hybrid hosts `/sys/fs/cgroup/unified`).
    pub(super) fn new() -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::at(mount_point(&mountinfo))
    }

    fn at(mount: Option<PathBuf>) -> Self {
        let root = mount.as_deref().and_then(|mount| File::open(mount).ok());
        Self { mount, root, paths: HashMap::new(), by_handle: true, walked: None }
    }

    /// The path of group `id`, below the mount (`/system.slice/x.service`); `now` in `CLOCK_MONOTONIC` nanoseconds.
    /// `None` if it is gone, or 0.
    pub(super) fn path(&mut self, id: u64, now: u64) -> Option<Arc<str>> {
        if id == 0 {
            return None;
        }
        if let Some(known) = self.paths.get(&id) {
            return known.clone();
        }
        if self.paths.len() >= PATHS {
            self.paths.clear();
        }
        let found = if let Ok(path) = self.open(id) {
            path
        } else {
            if self.walked.is_some_and(|walked| now < walked + WALK_EVERY) {
                return None;
            }
            self.walked = Some(now);
            self.walk();
            self.paths.get(&id).cloned().flatten()
        };
        // Ids are not given twice: what is gone stays gone.
        self.paths.insert(id, found.clone());
        found
    }

    /// The id of the group at `path`, below the mount; `None` if it is gone.
    pub(super) fn id(&self, path: &str) -> Option<u64> {
        let folder = self.mount.as_deref()?.join(path.trim_start_matches('/'));
        Some(fs::metadata(folder).ok()?.ino())
    }

    fn open(&mut self, id: u64) -> Result<Option<Arc<str>>, Refused> {
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: i32,
            id: u64,
        }
        let (Some(root), Some(mount), true) = (&self.root, &self.mount, self.by_handle) else { return Err(Refused) };
        let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id };
        // SAFETY: `handle` has the layout of `struct file_handle` with `bytes` bytes behind it, and outlives the call.
        let fd = unsafe {
            libc::open_by_handle_at(root.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_CLOEXEC)
        };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ESTALE) {
                return Ok(None);
            }
            self.by_handle = false;
            return Err(Refused);
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        let folder = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok();
        Ok(path.and_then(|path| below(mount, &path)))
    }

    fn walk(&mut self) {
        let Some(mount) = self.mount.clone() else { return };
        let mut folders = vec![mount.clone()];
        let mut looked = 0;
        while let Some(folder) = folders.pop() {
            looked += 1;
            if looked > WALK || self.paths.len() >= PATHS {
                break;
            }
            if let (Ok(data), Some(path)) = (fs::metadata(&folder), below(&mount, &folder)) {
                self.paths.insert(data.ino(), Some(path));
            }
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            let entries = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(entries.map(|entry| entry.path()));
        }
    }
}

/// Groups can't be opened by handle here.
struct Refused;

fn below(mount: &Path, path: &Path) -> Option<Arc<str>> {
    let path = path.strip_prefix(mount).ok()?.to_string_lossy();
    Some(Arc::from(format!("/{path}")))
}

/// `proc_pid_mountinfo(5)`: `id parent device root mount options … - type source options`; the mount of the whole tree
/// wins over one of a part of it.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        right.starts_with("cgroup2 ").then_some((root, mount))
    });
    let mounts: Vec<_> = mounts.collect();
    let whole = mounts.iter().find(|(root, _)| *root == "/").or_else(|| mounts.first())?;
    Some(PathBuf::from(whole.1.replace("\\040", " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group of the test's own in the machine's cgroup v2.
    struct Group(PathBuf);

    impl Group {
        fn new(name: &str) -> Self {
            let mount = mount_point(&fs::read_to_string("/proc/self/mountinfo").unwrap()).unwrap();
            let path = mount.join(format!("weir-test-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
        fn id(&self) -> u64 {
            fs::metadata(&self.0).unwrap().ino()
        }
        fn name(&self) -> String {
            format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    /// Needs root, to make control groups.
    #[test]
    fn a_group_is_found_by_its_id() {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let group = Group::new("handle");
        let mut cgroups = Cgroups::new();
        assert_eq!(cgroups.path(group.id(), 0).as_deref(), Some(&*group.name()));
        assert!(cgroups.by_handle, "this machine opens groups by handle");
        assert_eq!(cgroups.id(&group.name()), Some(group.id()));
        assert_eq!(cgroups.path(0, 0), None);
        let gone = Group::new("gone");
        let id = gone.id();
        drop(gone);
        assert_eq!(cgroups.path(id, 0), None);
        // What was known stays known when the group is gone.
        let (id, name) = (group.id(), group.name());
        drop(group);
        assert_eq!(cgroups.path(id, 0).as_deref(), Some(&*name));
    }

    /// Needs root, to make control groups.
    #[test]
    fn without_handles_the_tree_is_walked_at_most_once_a_second() {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let mut cgroups = Cgroups::new();
        cgroups.by_handle = false;
        let first = Group::new("first");
        assert_eq!(cgroups.path(first.id(), 5).as_deref(), Some(&*first.name()));
        let second = Group::new("second");
        assert_eq!(cgroups.path(second.id(), 6), None);
        assert_eq!(cgroups.path(second.id(), 5 + WALK_EVERY).as_deref(), Some(&*second.name()));
    }

    #[test]
    fn the_mount_of_the_whole_tree_wins() {
        let info = "1 0 0:1 /kubelet /a rw - cgroup2 cgroup2 rw\n2 0 0:1 / /sys/fs/cgroup/unified\\040x rw shared:4 - cgroup2 none rw\n3 0 0:2 / /b rw - cgroup cgroup rw,pids\n";
        assert_eq!(mount_point(info), Some(PathBuf::from("/sys/fs/cgroup/unified x")));
        assert_eq!(mount_point("3 0 0:2 / /b rw - cgroup cgroup rw,pids\n"), None);
    }
}
