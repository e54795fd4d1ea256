//! Go processes: found when they start, and among those that run already; told to the kernel half. In a thread of its own,
//! because executables are read.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::golang::{self, Executable, Inode, Unknown};
use crate::kernel::goroutines::Goroutines;
use crate::kernel::load::Half;

use super::doctor::{Row, Standing};

/// What may wait for the thread; with more, it looks at all processes.
const NEWS: usize = 1024;
/// How long it takes until it sees that something did not fit.
const PAUSE: Duration = Duration::from_secs(1);
/// Executables that are remembered at a time, Go or not.
const REMEMBERED: usize = 4096;

/// What happened.
#[derive(Clone, Copy, Debug)]
enum News {
    /// A process has a new image.
    Exec(u32),
    /// A process ended.
    Exit(u32),
    /// They are to be told apart, or not any more.
    Set(bool),
    Stop,
}

/// What is known of an executable.
#[derive(Clone, Debug)]
enum Known {
    /// No Go program.
    Other,
    Go(Arc<Executable>),
    Unknown(Unknown),
    /// The kernel refused the probe.
    Refused(String),
}

/// Who tells the thread what happened.
#[derive(Debug)]
pub(super) struct Watch {
    news: SyncSender<News>,
    missed: Arc<AtomicBool>,
    found: Arc<Mutex<Found>>,
}

/// What it found.
#[derive(Debug, Default)]
struct Found {
    on: bool,
    processes: usize,
    /// Executables that can't be followed, by reason.
    unknown: BTreeMap<String, u64>,
}

/// The thread's own state.
pub(super) struct Finder {
    half: Arc<Mutex<Half>>,
    news: Receiver<News>,
    missed: Arc<AtomicBool>,
    found: Arc<Mutex<Found>>,
    on: bool,
    known: HashMap<Inode, Known>,
    goroutines: Goroutines<Inode>,
}

/// A watch, and the thread's work.
pub(super) fn watch(half: &Arc<Mutex<Half>>, on: bool) -> (Arc<Watch>, Finder) {
    let (to, news) = sync_channel(NEWS);
    let missed = Arc::new(AtomicBool::new(true));
    let found = Arc::new(Mutex::new(Found::default()));
    let finder = Finder {
        half: Arc::clone(half),
        news,
        missed: Arc::clone(&missed),
        found: Arc::clone(&found),
        on,
        known: HashMap::new(),
        goroutines: Goroutines::default(),
    };
    (Arc::new(Watch { news: to, missed, found }), finder)
}

impl Watch {
    fn tell(&self, news: News) {
        if self.news.try_send(news).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    /// A process has a new image.
    pub(super) fn exec(&self, pid: u32) {
        self.tell(News::Exec(pid));
    }

    /// A process ended.
    pub(super) fn exit(&self, pid: u32) {
        self.tell(News::Exit(pid));
    }

    /// Goroutines are to be told apart, or not any more. Waits for room.
    pub(super) fn set(&self, on: bool) {
        // The thread ends with the agent only.
        let _ = self.news.send(News::Set(on));
    }

    /// The agent ends. Waits for room.
    pub(super) fn stop(&self) {
        let _ = self.news.send(News::Stop);
    }

    /// What was found, for `weir doctor`.
    pub(super) fn row(&self) -> Option<Row> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.on {
            return None;
        }
        let told = format!("{} processes are told apart by goroutine", found.processes);
        let others = found.unknown.iter().map(|(why, count)| format!("{count} executables are not: {why}"));
        let detail = std::iter::once(told).chain(others).collect::<Vec<_>>().join("; ");
        Some(Row {
            section: "fact",
            subject: "Go programs".to_owned(),
            standing: if found.unknown.is_empty() { Standing::Ok } else { Standing::Blind },
            detail,
            remedy: String::new(),
        })
    }
}

impl Finder {
    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        loop {
            if self.missed.swap(false, Ordering::Relaxed) && self.on {
                self.look_at_all();
            }
            match self.news.recv_timeout(PAUSE) {
                Ok(News::Exec(pid)) if self.on => self.look(pid),
                Ok(News::Exit(pid)) => self.end(pid),
                Ok(News::Set(on)) => self.set(on),
                Ok(News::Exec(_)) | Err(RecvTimeoutError::Timeout) => continue,
                Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            self.show();
        }
    }

    fn set(&mut self, on: bool) {
        self.on = on;
        if on {
            self.look_at_all();
        } else {
            let mut half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
            self.goroutines.clear(&mut half);
        }
    }

    fn look_at_all(&mut self) {
        let pids = golang::pids();
        for pid in self.goroutines.pids() {
            if !pids.contains(&pid) {
                self.end(pid);
            }
        }
        for pid in pids {
            self.look(pid);
        }
        self.show();
    }

    fn end(&mut self, pid: u32) {
        let mut half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
        self.goroutines.ends(&mut half, pid);
    }

    /// What can't be read is a thread of the kernel, or a process that is gone.
    fn look(&mut self, pid: u32) {
        let Ok(inode) = Inode::of(pid) else { return self.end(pid) };
        let Known::Go(executable) = self.known(pid, inode) else { return self.end(pid) };
        let Some(row) = executable.process(pid) else { return self.end(pid) };
        let path = PathBuf::from(format!("/proc/{pid}/exe"));
        let mut half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = self.goroutines.begins(&mut half, (pid, &row), inode, (&path, executable.call));
        // It may run something else by now.
        if Inode::of(pid).ok() != Some(inode) {
            self.goroutines.ends(&mut half, pid);
        } else if let Err(why) = begun {
            tracing::warn!(pid, why, "a Go program's goroutines are not told apart");
            self.known.insert(inode, Known::Refused(why));
        }
    }

    fn known(&mut self, pid: u32, inode: Inode) -> Known {
        if let Some(known) = self.known.get(&inode) {
            return known.clone();
        }
        let known = match Executable::of(pid) {
            Ok(None) => Known::Other,
            Ok(Some(executable)) => Known::Go(Arc::new(executable)),
            Err(why) => Known::Unknown(why),
        };
        if Inode::of(pid).ok() != Some(inode) {
            // It was another one's, or is gone.
            return Known::Other;
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(inode, known.clone());
        known
    }

    fn show(&self) {
        let mut unknown = BTreeMap::<_, u64>::new();
        for known in self.known.values() {
            match known {
                // A program that serves nothing has no chains.
                Known::Other | Known::Go(_) | Known::Unknown(Unknown::Serves) => {}
                Known::Unknown(why) => *unknown.entry(why.to_string()).or_default() += 1,
                Known::Refused(why) => *unknown.entry(why.clone()).or_default() += 1,
            }
        }
        let found = Found { on: self.on, processes: self.goroutines.len(), unknown };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}
