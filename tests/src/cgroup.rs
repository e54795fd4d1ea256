//! A cgroup of a test's own: an agent that watches it sees this test's programs and nothing else of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// A cgroup v2, removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below the root.
    pub fn new(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = mounted()?;
        let path = root.join(format!("weir-{role}-{}-{serial}", process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { root, path })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `act` with this process inside; what it starts meanwhile is and stays inside, and so do sockets.
    pub fn inside<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let text = fs::read_to_string("/proc/self/cgroup")?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2 of this process")?;
        let own = self.root.join(own);
        enter(&self.path)?;
        let done = act();
        enter(&own)?;
        done
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended is still counted for a moment.
        let gone = wait::until(Duration::from_secs(2), "an empty cgroup", || Ok(fs::remove_dir(&self.path).ok()));
        if let Err(error) = gone {
            eprintln!("{}: {error:#}", self.path.display());
        }
    }
}

fn enter(cgroup: &Path) -> Result<()> {
    let path = cgroup.join("cgroup.procs");
    fs::write(&path, process::id().to_string()).with_context(|| format!("entering {}", path.display()))
}

fn mounted() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of_version_2 = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next() == Some("cgroup2")).then(|| PathBuf::from(path))
    });
    of_version_2.context("cgroup v2 is not mounted: run `cargo xtask setup --for test`")
}
