//! What `/proc` says of a process, and whether it is still the process that was meant.

use std::sync::Arc;

use weir_common::conn::Owner;

use super::super::cgroup::Place;
use super::super::lineage::{Image, Lineage, comm, facts};
use super::super::name::Facts;
use super::super::procfs::{self, Snapshot, Unread};
use super::{ALIASES, RETRY, Resolver, TICK};
use crate::clock;

impl Resolver {
    /// A process that no record announced.
    pub(super) fn first_sight(&mut self, owner: &Owner, at: u64) {
        let pid = owner.tgid;
        let next = self.processes.get(pid).and_then(|lineage| {
            let next = lineage.images.iter().find(|image| image.from > at)?;
            let parent = next.announced.as_ref().map_or(0, |announced| announced.ppid);
            Some((next.from, parent))
        });
        if let Some((from, parent)) = next {
            // Before its first exec that was seen: a forked child still runs its parent's image.
            let until = from.saturating_sub(1);
            let facts = self.parents(owner, parent, at).unwrap_or_else(|| self.noted(owner));
            self.processes.get_or(pid, Lineage::default).push(Image {
                until: Some(until),
                facts: Some(Arc::new(facts)),
                ..Image::new(0, None)
            });
            return;
        }
        let now = clock::monotonic_ns().max(at);
        let until = match self.read(pid) {
            Ok(seen) if seen.started <= at + TICK => return self.adopt(pid, seen),
            Ok(seen) => {
                self.counts.changed += 1;
                seen.started.saturating_sub(1).max(at)
            }
            Err(Unread::Gone) => now,
            Err(Unread::Denied | Unread::Restless) => now + RETRY,
        };
        let facts = Arc::new(self.noted(owner));
        let lineage = self.processes.get_or(pid, Lineage::default);
        lineage.used = lineage.used.max(at);
        let from = lineage.ended().map_or(0, |ended| ended + 1);
        lineage.push(Image { until: Some(until), born: from != 0, facts: Some(facts), ..Image::new(from, None) });
        if self.ended.len() < self.settings.processes {
            self.ended.push_back((pid, at));
        }
    }

    /// Adds the image that `/proc` shows of a process that no record announced.
    pub(super) fn adopt(&mut self, pid: u32, seen: Snapshot) {
        let now = clock::monotonic_ns();
        let (started, layout) = (seen.started, seen.layout);
        let ancestor = self.ancestor(&seen);
        let mut facts = facts(pid, None, Some(seen));
        if let Some(ancestor) = ancestor {
            // Forked without exec: the command line and environment are its parent's, which may have been read before
            // they were overwritten.
            facts.script = ancestor.script.clone().or(facts.script);
            facts.command_line = ancestor.command_line.clone().or(facts.command_line);
            facts.environ = ancestor.environ.clone().or(facts.environ);
        }
        let lineage = self.processes.get_or(pid, Lineage::default);
        let ended = lineage.ended();
        let image = Image {
            born: ended.is_some_and(|ended| started + TICK > ended),
            layout,
            read_at: Some(now),
            facts: Some(Arc::new(facts)),
            // It may have started within the tick in which the one before ended.
            ..Image::new(ended.map_or(0, |ended| started.max(ended + 1)), None)
        };
        lineage.push(image);
    }

    /// The facts of the parent whose image a forked child still runs, proven by its layout in memory.
    fn ancestor(&mut self, child: &Snapshot) -> Option<Arc<Facts>> {
        if child.layout.1 == 0 {
            return None;
        }
        let running = self.processes.get(child.ppid)?.images.last().filter(|image| image.until.is_none())?;
        if running.facts.is_none() {
            let from = running.from;
            self.learn(child.ppid, from);
        }
        let image = self.processes.get(child.ppid)?.images.last()?;
        let facts = image.facts.as_ref()?;
        (image.layout == child.layout && facts.executable_path == child.executable).then(|| facts.clone())
    }

    /// The facts of `parent`'s image at `at`, if everything that was noted of the child fits it.
    fn parents(&mut self, owner: &Owner, parent: u32, at: u64) -> Option<Facts> {
        let image = self.processes.get(parent)?.at(at)?;
        let from = image.from;
        let announced = image.announced.as_ref()?;
        let same = announced.cgroup == owner.cgroup && comm(&owner.comm) == announced.comm && owner.tid == owner.tgid;
        if !same || announced.comm.is_none() {
            return None;
        }
        self.learn(parent, from);
        let facts = self.processes.get(parent)?.at(at)?.facts.as_ref()?;
        Some(Facts { pid: owner.tgid, ppid: parent, ..Facts::clone(facts) })
    }

    /// What the kernel noted is all there is.
    fn noted(&mut self, owner: &Owner) -> Facts {
        let mut facts = Facts {
            pid: owner.tgid,
            uid: (owner.uid != u32::MAX).then_some(owner.uid),
            comm: comm(&owner.comm),
            ..Facts::default()
        };
        self.place(&mut facts, owner.cgroup);
        facts
    }

    /// The main thread goes by a name that its image does not have: it renamed itself, or a record was lost.
    pub(super) fn look_again(&mut self, owner: &Owner, at: u64) {
        let pid = owner.tgid;
        self.learn(pid, at);
        let Some(image) = self.processes.get(pid).and_then(|lineage| lineage.at(at)) else { return };
        if image.goes_by(owner) {
            return;
        }
        let (layout, from, until) = (image.layout, image.from, image.until);
        let seen = if until.is_none() { self.read(pid).ok().filter(|seen| seen.started <= at + TICK) } else { None };
        if let Some(seen) = &seen
            && seen.layout == layout
        {
            // The same image under another name.
            if let Some(image) = self.processes.get(pid).and_then(|lineage| lineage.at(at))
                && image.aliases.len() < ALIASES
            {
                image.aliases.push(owner.comm);
            }
            return;
        }
        if let Some(image) = self.processes.get(pid).and_then(|lineage| lineage.at(at)) {
            image.until = Some(at.saturating_sub(1).max(from));
        }
        if let Some(seen) = seen {
            self.adopt(pid, seen);
        } else {
            // What the kernel noted is all the proof there is.
            let facts = Some(Arc::new(self.noted(owner)));
            let until = Some(until.unwrap_or_else(clock::monotonic_ns).max(at));
            let image = Image { until, facts, ..Image::new(at.max(from + 1), None) };
            self.processes.get_or(pid, Lineage::default).push(image);
        }
    }

    /// Reads `/proc` for the image of `pid` at `at`, if it was not tried before and if it still runs.
    pub(super) fn learn(&mut self, pid: u32, at: u64) {
        let Some(image) = self.processes.get(pid).and_then(|lineage| lineage.at(at)) else { return };
        if image.facts.is_some() {
            return;
        }
        let (announced, from, running) = (image.announced.clone(), image.from, image.until.is_none());
        let seen = if running { self.read(pid).ok() } else { None };
        let seen = seen.filter(|seen| {
            let same = seen.started <= from + TICK && announced.as_ref().is_none_or(|announced| announced.is(seen));
            self.counts.changed += u64::from(!same);
            same
        });
        let (read_at, layout) = (clock::monotonic_ns(), seen.as_ref().map_or((0, 0), |seen| seen.layout));
        let mut facts = facts(pid, announced.as_ref(), seen);
        self.place(&mut facts, announced.map_or(0, |announced| announced.cgroup));
        if let Some(image) = self.processes.get(pid).and_then(|lineage| lineage.at(at)) {
            image.facts = Some(Arc::new(facts));
            image.layout = layout;
            image.read_at = Some(read_at);
        }
    }

    pub(super) fn read(&mut self, pid: u32) -> Result<Snapshot, Unread> {
        let read = procfs::read(&self.settings.proc, pid);
        match &read {
            Ok(_) => self.counts.read += 1,
            Err(Unread::Gone) => self.counts.gone += 1,
            Err(Unread::Denied | Unread::Restless) => self.counts.denied += 1,
        }
        read
    }

    /// Fills in the place that `/proc` did not tell, from the group that the kernel noted.
    pub(super) fn place(&mut self, facts: &mut Facts, cgroup: u64) {
        if facts.cgroup.is_none()
            && let Some(path) = self.cgroups.path(cgroup, clock::monotonic_ns())
        {
            if facts.place == Place::default() {
                facts.place = Place::of(&path);
            }
            facts.cgroup = Some(path);
        }
    }
}
