//! The images that one process id has run, one after the other: by exec, and by being given to another process.

use std::sync::Arc;

use weir_common::conn::Owner;
use weir_common::record::{ARGS, Exec};

use super::environ::clean;
use super::name::Facts;
use super::procfs::Snapshot;
use super::script::script;
use crate::model::Service;

/// Most images remembered of one process id.
const IMAGES: usize = 4;
/// Longest command line that is kept, bytes.
const COMMAND_LINE: usize = 2048;
/// Longest `task_comm` without its NUL.
const COMM: usize = 15;

/// `task_comm` without padding; `None` if empty.
pub(super) fn comm(padded: &[u8; 16]) -> Option<Arc<str>> {
    let bytes = padded.split(|&byte| byte == 0).next()?;
    clean(&String::from_utf8_lossy(bytes))
}

/// What an exec record told.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    /// Command line, NUL between arguments, cut at [`ARGS`].
    pub(super) args: Box<[u8]>,
    pub(super) comm: Option<Arc<str>>,
    pub(super) uid: Option<u32>,
    pub(super) cgroup: u64,
    pub(super) ppid: u32,
}

impl Announced {
    pub(super) fn new(exec: &Exec, args: &[u8]) -> Self {
        Self {
            args: Box::from(args.get(..ARGS).unwrap_or(args)),
            comm: comm(&exec.owner.comm),
            uid: (exec.owner.uid != u32::MAX).then_some(exec.owner.uid),
            cgroup: exec.owner.cgroup,
            ppid: exec.ppid,
        }
    }

    /// Whether `/proc` still shows the image that was announced: it did not exec again since. One of the marks that a
    /// process leaves alone when it renames itself is enough; if none is left, the answer is no.
    pub(super) fn is(&self, now: &Snapshot) -> bool {
        let started = |args: &[u8]| !self.args.is_empty() && args.starts_with(&self.args);
        let file = now.executable.as_deref().map(file_name);
        started(&now.args) || (self.comm.is_some() && (self.comm == now.comm || self.comm.as_deref() == file.map(cut)))
    }

    /// The executable's file name, as far as the record proves it: `task_comm` is the start of the executed file's name.
    fn executable(&self) -> Option<&str> {
        let comm = self.comm.as_deref()?;
        let mut args = self.args.split(|&byte| byte == 0);
        let mut next = || args.next().and_then(|arg| std::str::from_utf8(arg).ok()).map(file_name);
        let (first, second) = (next(), next());
        let first = first.map(|first| first.strip_prefix('-').unwrap_or(first));
        match (first, second) {
            (Some(first), _) if cut(first) == comm => Some(first),
            // `#!`: the kernel put the interpreter before the script that was executed.
            (Some(first), Some(second)) if cut(second) == comm => Some(first),
            // Executed by descriptor: a number is no name.
            _ if comm.bytes().all(|byte| byte.is_ascii_digit()) => None,
            _ => (comm.len() < COMM).then_some(comm),
        }
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, file)| file)
}

/// As `task_comm` would hold it.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(COMM);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

/// Facts of an image from what was announced and what `/proc` showed.
pub(super) fn facts(pid: u32, announced: Option<&Announced>, seen: Option<Snapshot>) -> Facts {
    let seen = seen.unwrap_or_else(|| Snapshot {
        ppid: 0,
        started: 0,
        layout: (0, 0),
        comm: None,
        executable: None,
        args: Vec::new(),
        environ: None,
        uid: None,
        place: super::cgroup::Place::default(),
        cgroup: None,
    });
    let args = match announced {
        // The record's is the one at exec; only if that was cut, or is not known, what `/proc` shows is better.
        Some(announced) if announced.args.len() < ARGS && !announced.args.is_empty() => &announced.args,
        Some(announced) if !seen.args.starts_with(&announced.args) => &announced.args,
        _ => seen.args.as_slice(),
    };
    let file = match seen.executable.as_deref().map(file_name) {
        // One file for many programs: it goes by the name that it was called by.
        Some("busybox" | "toybox" | "coreutils") => {
            let first = args.split(|&byte| byte == 0).next().and_then(|arg| std::str::from_utf8(arg).ok());
            first.map(|first| file_name(first).trim_start_matches('-')).filter(|first| !first.is_empty())
        }
        Some(file) => Some(file),
        None => announced.and_then(Announced::executable),
    };
    Facts {
        pid,
        ppid: if seen.ppid == 0 { announced.map_or(0, |announced| announced.ppid) } else { seen.ppid },
        uid: seen.uid.or_else(|| announced?.uid),
        comm: announced.and_then(|announced| announced.comm.clone()).or(seen.comm),
        script: file.and_then(|file| script(file, args)),
        executable_name: file.and_then(clean),
        executable_path: seen.executable,
        command_line: command_line(args),
        environ: seen.environ,
        place: seen.place,
        cgroup: seen.cgroup,
    }
}

/// Arguments with blanks between them, cut at [`COMMAND_LINE`] bytes.
fn command_line(args: &[u8]) -> Option<Arc<str>> {
    let args = args.get(..COMMAND_LINE).unwrap_or(args);
    let end = args.iter().rposition(|&byte| byte != 0)? + 1;
    let text = String::from_utf8_lossy(args.get(..end)?);
    let text: String = text
        .chars()
        .map(|c| {
            if c == '\0' {
                ' '
            } else if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    Some(Arc::from(text))
}

/// A process between two execs.
#[derive(Debug)]
pub(super) struct Image {
    /// Since when, `CLOCK_MONOTONIC` nanoseconds; 0: since before anything of it was seen.
    pub(super) from: u64,
    /// Until when; absent while it runs.
    pub(super) until: Option<u64>,
    /// First image of a process of this number that ends one before: what came earlier is another process.
    pub(super) born: bool,
    pub(super) announced: Option<Announced>,
    /// Start of code and stack, where it was read.
    pub(super) layout: (u64, u64),
    /// When `/proc` was read.
    pub(super) read_at: Option<u64>,
    pub(super) facts: Option<Arc<Facts>>,
    pub(super) service: Option<Arc<Service>>,
    /// The services of ports that rules name.
    pub(super) ports: Vec<(u16, Arc<Service>)>,
    /// Names its main thread was seen under (`Owner::comm`) and that were found to be its own.
    pub(super) aliases: Vec<[u8; 16]>,
    /// Its lines in the list of services: several where rules name its ports.
    pub(super) lines: Vec<usize>,
}

impl Image {
    pub(super) fn new(from: u64, announced: Option<Announced>) -> Self {
        Self {
            from,
            until: None,
            born: false,
            announced,
            layout: (0, 0),
            read_at: None,
            facts: None,
            service: None,
            ports: Vec::new(),
            aliases: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// What was read belongs to the image after this one.
    pub(super) fn forget_proc(&mut self) {
        *self = Self { until: self.until, born: self.born, ..Self::new(self.from, self.announced.take()) };
    }

    fn holds(&self, at: u64) -> bool {
        self.from <= at && self.until.is_none_or(|until| at <= until)
    }

    /// Whether this image is known by the name that the kernel noted of a socket's holder. The name of another than
    /// the main thread says nothing.
    pub(super) fn goes_by(&self, owner: &Owner) -> bool {
        if owner.tid != owner.tgid || self.aliases.contains(&owner.comm) {
            return true;
        }
        let facts = self.facts.as_ref();
        let known = [
            self.announced.as_ref().and_then(|announced| announced.comm.as_deref()),
            facts.and_then(|facts| facts.comm.as_deref()),
            facts.and_then(|facts| facts.executable_name.as_deref()).map(cut),
        ];
        // As it stands, which is nearly always so, before it is made a text of.
        let noted = owner.comm.split(|&byte| byte == 0).next();
        if known.iter().any(|name| name.is_some_and(|name| Some(name.as_bytes()) == noted)) {
            return true;
        }
        comm(&owner.comm).is_none_or(|name| known.contains(&Some(&*name)))
    }

    /// The service that was made of it, for a port that rules name or any other.
    pub(super) fn made(&self, port: Option<u16>) -> Option<&Arc<Service>> {
        match port {
            None => self.service.as_ref(),
            Some(port) => self.ports.iter().find(|(known, _)| *known == port).map(|(_, service)| service),
        }
    }

    /// Whether this image was started in the cgroup that the kernel noted of a socket's holder, as far as both are
    /// known.
    pub(super) fn lives_in(&self, owner: &Owner) -> bool {
        let cgroup = self.announced.as_ref().map_or(0, |announced| announced.cgroup);
        cgroup == 0 || owner.cgroup == 0 || cgroup == owner.cgroup
    }
}

/// One process id.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Oldest first.
    pub(super) images: Vec<Image>,
    /// Last use, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) used: u64,
    /// A listening socket's holder that no image fits is not looked for again before this.
    pub(super) retry: u64,
}

impl Lineage {
    /// The image that ran at `at`.
    pub(super) fn at(&mut self, at: u64) -> Option<&mut Image> {
        self.images.iter_mut().rev().find(|image| image.holds(at))
    }

    /// Adds an image where its time belongs.
    pub(super) fn push(&mut self, image: Image) {
        if self.images.len() >= IMAGES {
            self.images.remove(0);
        }
        let at = self.images.iter().position(|other| other.from > image.from).unwrap_or(self.images.len());
        self.images.insert(at, image);
    }

    /// Whether the process that has the number is known to have ended.
    pub(super) fn ended(&self) -> Option<u64> {
        self.images.last()?.until
    }
}
