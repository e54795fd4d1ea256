//! Kernel file systems: the mount table decides, never a usual path.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{Install, Piece};
use crate::shell;

/// One file system that Weir or its tests look into.
struct Mount {
    kind: &'static str,
    why: &'static str,
    install: fn() -> Result<()>,
}

const MOUNTS: &[Mount] = &[
    Mount { kind: "cgroup2", why: "the kernel half is attached at its root", install: mount_cgroup },
    Mount { kind: "tracefs", why: "tracepoints", install: || mount("tracefs", Path::new("/sys/kernel/tracing")) },
    Mount { kind: "bpf", why: "pinned maps", install: || mount("bpf", Path::new("/sys/fs/bpf")) },
];

pub(crate) fn pieces() -> Vec<Piece> {
    MOUNTS
        .iter()
        .map(|mount| Piece {
            name: format!("mount of {}", mount.kind),
            why: mount.why.to_owned(),
            check: Box::new(|| check(mount.kind)),
            install: Install::Optional(mount.install),
        })
        .collect()
}

fn check(kind: &str) -> Result<(), String> {
    let table = table().map_err(|error| error.to_string())?;
    if kinds(&table).any(|(found, _)| found == kind) { Ok(()) } else { Err("not mounted".to_owned()) }
}

fn table() -> Result<String> {
    fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")
}

/// File system type and mount point of each line. The type stands behind ` - `, because a line may have any
/// number of optional fields before it.
fn kinds(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        Some((after.split(' ').next()?, before.split(' ').nth(4)?))
    })
}

/// The usual place, or beside the v1 hierarchies of a hybrid host.
fn mount_cgroup() -> Result<()> {
    let usual = Path::new("/sys/fs/cgroup");
    let table = table()?;
    let taken = kinds(&table).any(|(_, point)| Path::new(point) == usual);
    if taken { mount("cgroup2", &usual.join("unified")) } else { mount("cgroup2", usual) }
}

fn mount(kind: &str, point: &Path) -> Result<()> {
    if !shell::is_root() {
        bail!("not root. Type as root: mount -t {kind} {kind} {}", point.display());
    }
    if !point.exists() {
        fs::create_dir_all(point).with_context(|| format!("creating {}", point.display()))?;
    }
    shell::run(Command::new("mount").args(["-t", kind, kind]).arg(point))
}

#[cfg(test)]
mod tests {
    use super::kinds;

    #[test]
    fn the_mount_table_is_read_with_and_without_optional_fields() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 master:2 - cgroup2 cgroup2 rw\n\
                     broken line\n";
        assert_eq!(
            kinds(table).collect::<Vec<_>>(),
            [("tmpfs", "/sys/fs/cgroup"), ("cgroup2", "/sys/fs/cgroup/unified")]
        );
    }
}
