//! Process → service.
//!
//! Exec and exit records keep the lineage of process ids; `/proc` is read once per image. What can't be proven falls to
//! the next rule, or is unknown.

mod ends;
mod learn;
mod outside;
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;
use weir_common::conn::{Known, Owner};
use weir_common::record::{Exec, Exit};

use super::cache::Cache;
use super::cgroup::Place;
use super::cgroupfs::Cgroups;
use super::kube::{Book, Change};
use super::lineage::{Announced, Image, Lineage};
use super::name::Facts;
use super::names::Names;
use super::registry::{Registry, Seen};
use super::rules::{Settings, SettingsError};
use crate::clock;
use crate::model::{Service, Thread};
use ends::End;

/// Start times of processes are exact to this, nanoseconds.
const TICK: u64 = 10_000_000;
/// What could not be read is not tried again before this, nanoseconds.
const RETRY: u64 = 1_000_000_000;
/// Most other names of one image's main thread.
const ALIASES: usize = 8;
/// Most services that are known by cgroup alone.
const GROUPS: usize = 4096;
/// Most services outside that are kept at once.
const EXTERNALS: usize = 4096;
/// Most ports with a service of their own in one process.
const PORTS: usize = 16;
/// Programs that open listening sockets for others: that they hold one says nothing about who answers.
const ACTIVATORS: &[&str] = &["systemd", "systemd-socket-activate", "inetd", "xinetd", "launchd"];

/// What the resolver did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes read from `/proc`.
    pub read: u64,
    /// Processes that were gone before they could be read.
    pub gone: u64,
    /// Processes that may not be read.
    pub denied: u64,
    /// Processes that had another image, or whose number another process had, by the time `/proc` was read.
    pub changed: u64,
    /// Listening sockets whose holder could not be proven.
    pub unproven: u64,
    /// Process ids forgotten because the table is bounded.
    pub evicted: u64,
    /// Process ids in the table.
    pub processes: u64,
    /// Services left out of the list because it is bounded.
    pub unlisted: u64,
}

/// Tells services by process. Not shared: one task owns it.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    processes: Cache<u32, Lineage>,
    ended: VecDeque<(u32, u64)>,
    cgroups: Cgroups,
    groups: HashMap<u64, Arc<Service>>,
    externals: HashMap<Arc<str>, Arc<Service>>,
    registry: Registry,
    book: Book,
    names: Names,
    ends: Cache<u64, End>,
    /// Listening sockets that a look found, by network namespace and port: where bound, and who held them.
    listeners: HashMap<(u64, u16), Vec<(IpAddr, Owner)>>,
    unknown: Arc<Service>,
    counts: Counts,
    eager: Eager,
}

/// Reads at exec that are left in the running second.
#[derive(Debug)]
struct Eager {
    second: u64,
    left: u32,
}

impl Resolver {
    /// A resolver that knows nobody yet.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self {
            processes: Cache::new(settings.processes),
            ended: VecDeque::new(),
            cgroups: Cgroups::new(),
            groups: HashMap::new(),
            externals: HashMap::new(),
            registry: Registry::default(),
            book: Book::default(),
            names: Names::default(),
            ends: Cache::new(settings.connections),
            listeners: HashMap::new(),
            unknown: Arc::new(Service::unknown()),
            counts: Counts::default(),
            eager: Eager { second: u64::MAX, left: 0 },
            settings,
        })
    }

    /// Takes new rules; everything is named anew at its next use.
    pub fn set(&mut self, settings: Settings) -> Result<(), SettingsError> {
        settings.check()?;
        self.settings = settings;
        self.groups.clear();
        let Self { processes, registry, .. } = self;
        for image in processes.values_mut().flat_map(|lineage| &mut lineage.images) {
            let Some(facts) = &image.facts else { continue };
            image.lines.drain(..).for_each(|line| registry.leave(line, facts.pid));
            image.service = None;
            image.ports.clear();
        }
        Ok(())
    }

    /// Takes what is told of pods and addresses from `news`, whenever [`Self::hear`] is called.
    pub fn watch(&mut self, news: Receiver<Change>) {
        self.book = Book::of(news);
    }

    /// Takes what has come of pods and addresses since; never waits. Processes of pods that are told for the first
    /// time, or otherwise than before, are named anew at their next use; true: there are some.
    pub fn hear(&mut self) -> bool {
        let renamed = self.book.hear(clock::monotonic_ns());
        if renamed.is_empty() {
            return false;
        }
        self.groups.clear();
        let Self { processes, registry, .. } = self;
        for image in processes.values_mut().flat_map(|lineage| &mut lineage.images) {
            let Some(facts) = &image.facts else { continue };
            if facts.place.pod.as_ref().is_some_and(|pod| renamed.contains(pod)) {
                image.lines.drain(..).for_each(|line| registry.leave(line, facts.pid));
                image.service = None;
                image.ports.clear();
            }
        }
        true
    }

    /// A process replaced its image; `args` is its command line, NUL between arguments.
    pub fn exec(&mut self, exec: &Exec, args: &[u8]) {
        let (pid, at) = (exec.owner.tgid, exec.head.at);
        if pid == 0 {
            return;
        }
        let lineage = self.processes.get_or(pid, Lineage::default);
        lineage.used = lineage.used.max(at);
        let mut image = Image::new(at, Some(Announced::new(exec, args)));
        match lineage.images.last_mut() {
            Some(last) if last.until.is_none() => {
                last.until = Some(at.saturating_sub(1));
                // Read after this exec had happened: what was read is the new image's.
                if last.read_at.is_some_and(|read| read >= at) {
                    last.forget_proc();
                }
            }
            Some(_) => image.born = true,
            None => {}
        }
        lineage.push(image);
        if self.eager.take(at, self.settings.eager) {
            self.learn(pid, at);
        }
        self.sweep(at);
    }

    /// A process ended.
    pub fn exit(&mut self, exit: &Exit) {
        let at = exit.head.at;
        self.names.gone(exit.tgid);
        if let Some(lineage) = self.processes.get(exit.tgid) {
            lineage.used = lineage.used.max(at);
            if let Some(last) = lineage.images.last_mut()
                && last.until.is_none()
            {
                last.until = Some(at);
                if self.ended.len() < self.settings.processes {
                    self.ended.push_back((exit.tgid, at));
                }
            }
        }
        self.sweep(at);
    }

    /// The service of a connection's process at `at` (`CLOCK_MONOTONIC` nanoseconds).
    ///
    /// `owner` is what the kernel noted of the socket; `by`, where it is known, the thread that used it, which counts
    /// for more; one without `tid` is no more than the owner's process, and is left aside. `port` is the local port where the connection was accepted, for rules that ask for it. A process that
    /// is known costs a look-up; one that is not is read from `/proc`, once.
    pub fn resolve(&mut self, owner: &Owner, by: Thread, at: u64, port: Option<u16>) -> Arc<Service> {
        let exact = by.tgid != 0 && by.tid != 0;
        let listener = owner.known == Known::LISTENER.0 && !exact;
        let mut owner = *owner;
        if exact {
            if by.tgid != owner.tgid || by.tid != owner.tid {
                // The name and group that were noted are another thread's.
                owner = Owner { tgid: by.tgid, tid: by.tid, uid: u32::MAX, ..Owner::default() };
            }
            owner.known = Known::SENDER.0;
        }
        if owner.tgid == 0 || owner.known == Known::NO.0 {
            return self.by_group(owner.cgroup);
        }
        let service = if listener { self.holder(&owner, at, port) } else { self.user(&owner, at, port) };
        service.unwrap_or_else(|| self.by_group(owner.cgroup))
    }

    /// The services that were seen, in the order in which they were first seen.
    pub fn services(&self) -> impl Iterator<Item = &Seen> {
        self.registry.lines()
    }

    /// The service of a process at `at`, where it is known.
    pub fn process(&mut self, pid: u32, at: u64) -> Option<Arc<Service>> {
        self.named(pid, at, None)
    }

    /// Every process that is known, with its service at `at`.
    pub fn processes(&mut self, at: u64) -> Vec<(u32, Arc<Service>)> {
        let pids: Vec<u32> = self.processes.keys().collect();
        pids.into_iter().filter_map(|pid| Some((pid, self.named(pid, at, None)?))).collect()
    }

    /// Listening sockets older than the agent whose holder is certain: network namespace and port, with the holder's
    /// service at `at`.
    pub fn listening(&mut self, at: u64) -> Vec<((u64, u16), Arc<Service>)> {
        let held: Vec<_> = self
            .listeners
            .iter()
            .filter_map(|(place, all)| {
                let (_, first) = all.first()?;
                let certain = first.known != Known::NO.0 && all.iter().all(|(_, other)| other.tgid == first.tgid);
                certain.then_some((*place, *first))
            })
            .collect();
        held.into_iter().map(|(place, owner)| (place, self.resolve(&owner, Thread::default(), at, None))).collect()
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            evicted: self.processes.evicted,
            processes: self.processes.len() as u64,
            unlisted: self.registry.refused,
            ..self.counts
        }
    }

    /// The process that used the socket itself: it ran at `at` under this number.
    fn user(&mut self, owner: &Owner, at: u64, port: Option<u16>) -> Option<Arc<Service>> {
        let (pid, ruled) = (owner.tgid, self.ruled(port));
        let Self { processes, registry, .. } = self;
        let image = processes.get(pid).and_then(|lineage| {
            lineage.used = lineage.used.max(at);
            lineage.at(at)
        });
        let known = image.as_ref().map(|image| image.goes_by(owner));
        if known == Some(true)
            && let Some(image) = image
            && let Some(service) = image.made(ruled)
        {
            image.lines.iter().for_each(|line| registry.touch(*line, at));
            return Some(Arc::clone(service));
        }
        match known {
            Some(true) => {}
            // Another name than the image's: it renamed itself, or a record was lost.
            Some(false) => self.look_again(owner, at),
            None => self.first_sight(owner, at),
        }
        self.named(pid, at, port)
    }

    /// The process that opened the listening socket, some time before `at`. It may have ended, and its number may be
    /// another's by now: only an image that fits what was noted is taken.
    fn holder(&mut self, owner: &Owner, at: u64, port: Option<u16>) -> Option<Arc<Service>> {
        let pid = owner.tgid;
        if self.held_since(owner, at).is_none() {
            let now = clock::monotonic_ns();
            let lineage = self.processes.get_or(pid, Lineage::default);
            lineage.used = lineage.used.max(at);
            if now >= lineage.retry {
                lineage.retry = now + RETRY;
                if lineage.at(at).is_none()
                    && let Ok(seen) = self.read(pid)
                    && seen.started <= at + TICK
                {
                    self.adopt(pid, seen);
                }
            }
        }
        let since = self.held_since(owner, at).filter(|&since| !self.activates(pid, since));
        let service = since.and_then(|since| self.named(pid, since, port));
        if service.is_none() {
            self.counts.unproven += 1;
        }
        service
    }

    /// Whether `pid` runs a program at `at` that opens sockets for others.
    fn activates(&mut self, pid: u32, at: u64) -> bool {
        self.learn(pid, at);
        let facts = self.processes.get(pid).and_then(|lineage| lineage.at(at)?.facts.as_ref());
        let name = facts.and_then(|facts| facts.executable_name.as_deref().or(facts.comm.as_deref()));
        name.is_some_and(|name| ACTIVATORS.contains(&name))
    }

    /// A time at which the process that fits `owner` runs the image that answers at `at`: an image that fits, or what
    /// the same process became by exec.
    fn held_since(&mut self, owner: &Owner, at: u64) -> Option<u64> {
        let lineage = self.processes.get(owner.tgid)?;
        let mut newest = None;
        for image in lineage.images.iter().rev().filter(|image| image.from <= at) {
            let last = image.until.map_or(at, |until| until.min(at));
            let answering = *newest.get_or_insert(last);
            if image.goes_by(owner) && image.lives_in(owner) {
                return Some(answering);
            }
            if image.born {
                newest = None;
            }
        }
        None
    }

    /// A port that rules ask for.
    fn ruled(&self, port: Option<u16>) -> Option<u16> {
        port.filter(|&port| self.settings.rules.iter().any(|rule| rule.when.port == Some(port)))
    }

    /// The service of the image of `pid` at `at`.
    fn named(&mut self, pid: u32, at: u64, port: Option<u16>) -> Option<Arc<Service>> {
        let port = self.ruled(port);
        let image = self.processes.get(pid)?.at(at)?;
        if let Some(service) = image.made(port) {
            image.lines.iter().for_each(|line| self.registry.touch(*line, at));
            return Some(service.clone());
        }
        self.learn(pid, at);
        let image = self.processes.get(pid)?.at(at)?;
        let facts = image.facts.as_ref()?;
        let pod = facts.place.pod.as_deref().and_then(|place| self.book.pod(place));
        let service = Arc::new(facts.service(&self.settings.rules, port, pod.map(|pod| &**pod)));
        self.registry.enter(&service, at, &mut image.lines);
        match port {
            None => image.service = Some(service.clone()),
            Some(port) if image.ports.len() < PORTS => image.ports.push((port, service.clone())),
            Some(_) => {}
        }
        Some(service)
    }

    /// The service that a cgroup alone tells: its unit or container.
    fn by_group(&mut self, cgroup: u64) -> Arc<Service> {
        if let Some(service) = self.groups.get(&cgroup) {
            return service.clone();
        }
        let mut facts = Facts::default();
        self.place(&mut facts, cgroup);
        if facts.place == Place::default() {
            return self.unknown.clone();
        }
        let pod = facts.place.pod.as_deref().and_then(|place| self.book.pod(place));
        let service = Arc::new(facts.service(&self.settings.rules, None, pod.map(|pod| &**pod)));
        if self.groups.len() >= GROUPS {
            self.groups.clear();
        }
        self.groups.insert(cgroup, service.clone());
        service
    }

    /// Forgets processes that ended, and were not used, for the grace period.
    fn sweep(&mut self, now: u64) {
        let grace = u64::try_from(self.settings.grace.as_nanos()).unwrap_or(u64::MAX);
        while let Some(&(pid, at)) = self.ended.front()
            && at.saturating_add(grace) < now
        {
            self.ended.pop_front();
            let Some(lineage) = self.processes.peek(pid) else { continue };
            if lineage.ended().is_none() {
                continue;
            }
            if lineage.used.saturating_add(grace) < now {
                self.processes.remove(pid);
            } else {
                self.ended.push_back((pid, lineage.used));
            }
        }
    }
}

impl Eager {
    fn take(&mut self, at: u64, each: u32) -> bool {
        let second = at / 1_000_000_000;
        if second != self.second {
            *self = Self { second, left: each };
        }
        let had = self.left > 0;
        self.left = self.left.saturating_sub(1);
        had
    }
}
