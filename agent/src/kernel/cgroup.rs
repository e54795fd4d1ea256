//! The cgroup that programs are attached to: found, or mounted for this process alone, and held by one agent at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Keeps the mount of [`mount_privately`] for as long as the process lives.
static PRIVATE: OnceLock<OwnedFd> = OnceLock::new();

/// First cgroup2 mount whose root is the hierarchy's own root: hybrid hosts have it beside the v1 controllers.
#[must_use]
pub fn mounted(mountinfo: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(mountinfo).ok()?;
    let mut found = None;
    for line in text.lines() {
        // proc(5): id parent major:minor root mount-point options [optional…] - type source options
        let (front, back) = line.split_once(" - ")?;
        if back.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?);
        let point = PathBuf::from(point.replace("\\040", " "));
        if root == "/" {
            return Some(point);
        }
        found.get_or_insert(point);
    }
    found
}

/// Mounts cgroup v2 where nobody else sees it: a mount without a place in any tree (`fsopen(2)`, 5.2), reached by its
/// file descriptor.
///
/// # Errors
/// What the kernel said: without `CAP_SYS_ADMIN`, `EPERM`.
pub fn mount_privately() -> io::Result<PathBuf> {
    if PRIVATE.get().is_none() {
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        // Of two that race, one stays; either will do.
        let _ = PRIVATE.set(mount);
    }
    let mount = PRIVATE.get().ok_or(io::ErrorKind::NotFound)?;
    Ok(PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())))
}

/// Another agent watches this cgroup.
#[derive(Debug)]
pub(super) struct Taken {
    /// Its process, where this process may know it.
    pub(super) pid: Option<u32>,
}

/// Takes the cgroup for this process: two agents at one place would count every call twice. The lock (`flock(2)`) is on
/// the folder itself, so that it holds across mount and network namespaces, and goes with the process. Who may read the
/// folder may lock it, too: a lock of another user's is none, or anybody could keep the agent from starting.
pub(super) fn hold(cgroup: &File) -> Result<(), Taken> {
    match cgroup.try_lock() {
        // A kernel that can't lock it can't tell of another agent either.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let holders = holders(cgroup, Path::new("/proc/locks"));
            match holders.iter().find(|pid| pid.is_none_or(may_be_agent)) {
                Some(pid) => Err(Taken { pid: *pid }),
                None if holders.is_empty() => Err(Taken { pid: None }),
                None => {
                    let pids: Vec<_> = holders.into_iter().flatten().collect();
                    // Beside a shared lock a second agent is noticed all the same.
                    let _ = cgroup.try_lock_shared();
                    tracing::warn!(
                        ?pids,
                        "the cgroup is locked by a process of another user that is no agent; end it: a second agent may go unnoticed while it lives"
                    );
                    Ok(())
                }
            }
        }
    }
}

/// Who holds the lock, by `proc_locks(5)`: `1: FLOCK ADVISORY WRITE 712 00:1b:1 0 EOF`. `None`: somebody without a number
/// in this pid namespace.
fn holders(file: &File, locks: &Path) -> Vec<Option<u32>> {
    let Ok(metadata) = file.metadata() else { return Vec::new() };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let id = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let text = fs::read_to_string(locks).unwrap_or_default();
    let of_line = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let (pid, at) = (words.nth(2)?, words.next()?);
        // Another pid namespace's process has a number that is none.
        (kind == "FLOCK" && at == id).then(|| pid.parse::<u32>().ok().filter(|pid| *pid > 0))
    };
    text.lines().filter_map(of_line).collect()
}

/// Whether a process runs for root or for this one's user, by its real user id (`proc_pid_status(5)`): the effective one
/// is root's in any program with a set-user-id bit, and `/proc/PID` is root's where a process is not dumpable. One that
/// is gone has left its lock to a child, as no agent does.
fn may_be_agent(pid: u32) -> bool {
    let text = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(text) => text,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    let real = text.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
    real.is_none_or(|uid: u32| uid == 0 || uid == rustix::process::getuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()))
    }

    #[test]
    fn finds_cgroup2_on_hybrid_hosts() {
        let file = temporary("mountinfo");
        let text = "30 1 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    31 30 0:27 /kubepods/x /elsewhere rw - cgroup2 cgroup2 rw\n\
                    32 30 0:27 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        fs::write(&file, text).unwrap();
        assert_eq!(mounted(file.to_str().unwrap()), Some(PathBuf::from("/sys/fs/cgroup/uni fied")));
        fs::remove_file(file).unwrap();
        assert_eq!(mounted("/nonexistent"), None);
    }

    /// Needs root, to become somebody else.
    #[test]
    fn a_lock_of_another_users_is_none() {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let folder = temporary("locked");
        fs::create_dir(&folder).unwrap();
        let file = File::open(&folder).unwrap();
        let lock = |user: &str| {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid", user, "--clear-groups", "flock", "--no-fork", "--shared"]).arg(&folder);
            let locker = command.args(["sleep", "60"]).spawn().unwrap();
            let locks = || holders(&file, Path::new("/proc/locks"));
            while !locks().contains(&Some(locker.id())) {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            locker
        };
        let mut nobody = lock("65534");
        hold(&file).unwrap();
        let other = File::open(&folder).unwrap();
        assert_eq!(hold(&other).unwrap_err().pid, Some(std::process::id()));
        file.unlock().unwrap();
        let mut root = lock("0");
        assert_eq!(hold(&other).unwrap_err().pid, Some(root.id()));
        for locker in [&mut nobody, &mut root] {
            locker.kill().unwrap();
            locker.wait().unwrap();
        }
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn a_folder_is_held_once_and_its_holder_is_known() {
        let folder = temporary("held");
        fs::create_dir(&folder).unwrap();
        let (one, other) = (File::open(&folder).unwrap(), File::open(&folder).unwrap());
        hold(&one).unwrap();
        assert_eq!(hold(&other).unwrap_err().pid, Some(std::process::id()));
        drop(one);
        // What another test starts has the file, too, until it runs its own program.
        let over = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while hold(&other).is_err() {
            assert!(std::time::Instant::now() < over, "still held");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        fs::remove_dir(folder).unwrap();
    }
}
