//! One process as `/proc` shows it, read once.
//!
//! All files are read through one open handle of `/proc/PID`, which stays with its process: when the process ends and
//! its number is given to another one, the handle fails instead of showing the other.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::cgroup::Place;
use super::environ::{self, Environ, clean};
use crate::clock;

/// Most bytes of a command line that are looked at.
const COMMAND_LINE: u64 = 32 * 1024;
/// What is waited for an exec to end, at most [`TRIES`] times.
const EXEC: Duration = Duration::from_micros(500);
/// How often a process is read that changes while it is read.
const TRIES: usize = 6;
/// Most bytes of any other file.
const SMALL: u64 = 16 * 1024;

/// Why a process could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// There is no such process (any more), or it ended while it was read.
    Gone,
    /// It may not be looked at (`hidepid`, missing capability).
    Denied,
    /// It was replacing its image, again and again, while it was read; or it is a kernel thread.
    Restless,
}

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Parent's process id.
    pub(super) ppid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds, exact to a clock tick (10 ms).
    pub(super) started: u64,
    /// Start of code and stack: equal in parent and child only if the child did not exec (address space
    /// randomisation); 0 where it may not be seen.
    pub(super) layout: (u64, u64),
    /// `task_comm`.
    pub(super) comm: Option<Arc<str>>,
    /// Executable, without ` (deleted)`; absent for kernel threads and where it may not be read.
    pub(super) executable: Option<Arc<str>>,
    /// Command line, NUL between arguments.
    pub(super) args: Vec<u8>,
    /// Environment; absent where it may not be read.
    pub(super) environ: Option<Environ>,
    /// Effective user id.
    pub(super) uid: Option<u32>,
    /// Container, pod and unit.
    pub(super) place: Place,
    /// cgroup v2 path.
    pub(super) cgroup: Option<Arc<str>>,
}

/// Reads process `pid` of the procfs at `proc`.
pub(super) fn read(proc: &Path, pid: u32) -> Result<Snapshot, Unread> {
    let handle = File::open(proc.join(pid.to_string())).map_err(|error| unread(&error))?;
    let folder = format!("/proc/self/fd/{}", handle.as_raw_fd());
    for _ in 0..TRIES {
        let before = stat(&folder)?;
        if before.layout.0 == 0 && !before.zombie {
            // In the middle of an exec: the new image has no command line and no environment yet.
            thread::sleep(EXEC);
            continue;
        }
        let snapshot = fill(&folder, &before)?;
        if stat(&folder)?.layout == before.layout {
            return Ok(snapshot);
        }
    }
    Err(Unread::Restless)
}

struct Stat {
    comm: Option<Arc<str>>,
    ppid: u32,
    started: u64,
    layout: (u64, u64),
    zombie: bool,
}

fn stat(folder: &str) -> Result<Stat, Unread> {
    let bytes = file(&format!("{folder}/stat"), SMALL)?;
    parse_stat(&String::from_utf8_lossy(&bytes)).ok_or(Unread::Gone)
}

/// `proc_pid_stat(5)`: comm in the outermost parentheses, then fields from the 3rd on.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, rest) = text.rsplit_once(')')?;
    let comm = clean(head.split_once('(')?.1);
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        zombie: rest.trim_start().starts_with('Z'),
        comm,
        ppid: u32::try_from(field(4)?).ok()?,
        started: since_boot(field(22)?),
        layout: (field(26)?, field(28)?),
    })
}

/// Clock ticks since boot as `CLOCK_MONOTONIC` nanoseconds. (A sleep of the machine after the process's start makes
/// the result early by the length of the sleep, never late.)
fn since_boot(ticks: u64) -> u64 {
    // SAFETY: sysconf takes no pointer.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    let asleep = clock::boottime_ns().saturating_sub(clock::monotonic_ns());
    (ticks * (1_000_000_000 / per_second)).saturating_sub(asleep)
}

fn fill(folder: &str, stat: &Stat) -> Result<Snapshot, Unread> {
    let executable = match fs::read_link(format!("{folder}/exe")) {
        Ok(path) => {
            let path = path.to_string_lossy();
            Some(Arc::from(path.strip_suffix(" (deleted)").unwrap_or(&path)))
        }
        Err(error) if gone(&error) && !Path::new(folder).join("stat").exists() => return Err(Unread::Gone),
        Err(_) => None,
    };
    let args = file(&format!("{folder}/cmdline"), COMMAND_LINE)?;
    let environ = match File::open(format!("{folder}/environ")) {
        Ok(environ) => Some(environ::scan(environ)),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(Unread::Gone),
        Err(_) => None,
    };
    let uid = file(&format!("{folder}/status"), SMALL).ok().and_then(|status| effective_uid(&status));
    let (place, cgroup) = file(&format!("{folder}/cgroup"), SMALL)
        .map(|text| Place::of_proc(&String::from_utf8_lossy(&text)))
        .unwrap_or_default();
    Ok(Snapshot {
        ppid: stat.ppid,
        started: stat.started,
        layout: stat.layout,
        comm: stat.comm.clone(),
        executable,
        args,
        environ,
        uid,
        place,
        cgroup,
    })
}

/// `Uid: real effective saved filesystem`
pub(super) fn effective_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn file(path: &str, limit: u64) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| unread(&error))
}

fn gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

fn unread(error: &std::io::Error) -> Unread {
    if gone(error) { Unread::Gone } else { Unread::Denied }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let me = read(Path::new("/proc"), std::process::id()).unwrap();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(me.executable.as_deref(), Some(exe.to_str().unwrap()));
        assert_eq!(me.ppid, std::os::unix::process::parent_id());
        assert!(me.started < clock::monotonic_ns());
        assert_ne!(me.layout.1, 0);
        assert!(me.environ.is_some());
    }

    #[test]
    fn a_process_that_is_not_there_is_gone() {
        assert_eq!(read(Path::new("/proc"), 1 << 30).unwrap_err(), Unread::Gone);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) R (b) S 3 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 100 0 0 0 11 12 13 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.comm.as_deref(), stat.ppid, stat.layout), (Some("a) R (b"), 3, (11, 13)));
        assert!(parse_stat("7 (x) S 3").is_none());
        assert!(parse_stat("").is_none());
    }
}
