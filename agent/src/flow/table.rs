//! Every connection of a worker, by socket cookie, in the order in which they were last used.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::live::Live;

/// No slot.
const NONE: u32 = u32::MAX;
/// A use is only noted when the last note is older, so that a busy connection does not touch its neighbours each time:
/// the order is true to this many nanoseconds.
const COARSE_NS: u64 = 1_000_000_000;

#[derive(Debug)]
struct Slot {
    live: Option<Live>,
    used_at: u64,
    older: u32,
    newer: u32,
}

/// The table: a slab with an index, its slots linked from the longest idle to the last used.
#[derive(Debug)]
pub(super) struct Table {
    index: HashMap<u64, u32, RandomState>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
}

impl Table {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { index: HashMap::default(), slots: Vec::new(), free: Vec::new(), oldest: NONE, newest: NONE }
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// A connection, without using it.
    pub(super) fn get_mut(&mut self, cookie: u64) -> Option<&mut Live> {
        self.slots.get_mut(*self.index.get(&cookie)? as usize)?.live.as_mut()
    }

    /// A connection, used now.
    pub(super) fn using(&mut self, cookie: u64, now: u64) -> Option<&mut Live> {
        let at = *self.index.get(&cookie)?;
        if self.slots.get(at as usize)?.used_at.saturating_add(COARSE_NS) < now {
            self.unlink(at);
            self.link(at, now);
        }
        self.slots.get_mut(at as usize)?.live.as_mut()
    }

    /// Adds a connection. There must be none with this cookie.
    pub(super) fn insert(&mut self, cookie: u64, live: Live, now: u64) {
        let slot = Slot { live: Some(live), used_at: now, older: NONE, newer: NONE };
        let at = if let Some(at) = self.free.pop() {
            if let Some(place) = self.slots.get_mut(at as usize) {
                *place = slot;
            }
            at
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
        self.index.insert(cookie, at);
        self.link(at, now);
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, cookie: u64) -> Option<Live> {
        let at = self.index.remove(&cookie)?;
        self.unlink(at);
        self.free.push(at);
        self.slots.get_mut(at as usize)?.live.take()
    }

    /// Cookie of the connection that was idle longest.
    pub(super) fn longest_idle(&self) -> Option<u64> {
        Some(self.slots.get(self.oldest as usize)?.live.as_ref()?.connection.cookie)
    }

    /// All connections, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Live> {
        self.slots.iter().filter_map(|slot| slot.live.as_ref())
    }

    /// All cookies, in no order.
    pub(super) fn cookies(&self) -> Vec<u64> {
        self.index.keys().copied().collect()
    }

    fn link(&mut self, at: u32, now: u64) {
        let newest = self.newest;
        if let Some(slot) = self.slots.get_mut(at as usize) {
            slot.used_at = now;
            slot.older = newest;
            slot.newer = NONE;
        }
        match self.slots.get_mut(newest as usize) {
            Some(slot) => slot.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let Some(slot) = self.slots.get(at as usize) else { return };
        let (older, newer) = (slot.older, slot.newer);
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
    }
}
