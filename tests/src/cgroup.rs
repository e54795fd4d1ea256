//! Control groups with the names that runtimes and service managers give them, removed when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A group that a test made, with those above it that were not there.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// A group of cgroup v2 by its path below the root (`/docker/0123…`).
    pub fn v2(path: &str) -> Result<Self> {
        Self::make(&mounted(|line| line.contains(" - cgroup2 "))?, path)
    }

    /// A group of the cgroup v1 hierarchy of `controller`, on machines that have one.
    pub fn v1(controller: &str, path: &str) -> Result<Self> {
        let option = |line: &str| {
            line.split_once(" - cgroup ").is_some_and(|(_, tail)| tail.split([' ', ',']).any(|word| word == controller))
        };
        Self::make(&mounted(option)?, path)
    }

    /// A group of cgroup v2 with a name of its own: an agent that watches it sees this test's programs and nothing else of
    /// the machine.
    pub fn new(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::v2(&format!("/weir-{role}-{}-{serial}", process::id()))
    }

    fn make(root: &Path, path: &str) -> Result<Self> {
        let mut made = Self { path: root.to_owned(), made: Vec::new() };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            made.path.push(part);
            if !made.path.exists() {
                fs::create_dir(&made.path).with_context(|| format!("making {}", made.path.display()))?;
                made.made.push(made.path.clone());
            }
        }
        Ok(made)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `act` with this process inside, a group of cgroup v2; what it starts meanwhile is and stays inside, and so do
    /// sockets.
    pub fn inside<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let text = fs::read_to_string("/proc/self/cgroup")?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2 of this process")?;
        let own = mounted(|line| line.contains(" - cgroup2 "))?.join(own);
        enter(&self.path)?;
        let done = act();
        enter(&own)?;
        done
    }

    /// `command`, executed inside: a shell moves itself and becomes it.
    #[must_use]
    pub fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("/bin/sh");
        inside.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.path).arg(command.get_program());
        inside.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended leaves its group a moment later.
        for path in self.made.iter().rev() {
            for _ in 0..100 {
                if fs::remove_dir(path).is_ok() || !path.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

fn enter(group: &Path) -> Result<()> {
    let path = group.join("cgroup.procs");
    fs::write(&path, process::id().to_string()).with_context(|| format!("entering {}", path.display()))
}

/// Where the first mount that fits is (`proc_pid_mountinfo`: the fifth field).
fn mounted(fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let line = text.lines().find(|line| fits(line)).context("no such hierarchy of control groups is mounted")?;
    Ok(PathBuf::from(line.split(' ').nth(4).context("a mount without place")?))
}
