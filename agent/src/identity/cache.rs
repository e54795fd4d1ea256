//! A bounded map that forgets what was not used for longest, in constant time.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

use foldhash::fast::RandomState;

/// Two maps: what is used moves to the young one; when that is full, the old one is dropped and the young one grows old.
/// Holds at most `limit` entries, and never drops one of the `limit / 2` used last.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    half: usize,
    /// Entries dropped because the map was full.
    pub(super) evicted: u64,
}

impl<K: Eq + Hash + Copy, V> Cache<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), half: (limit / 2).max(1), evicted: 0 }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// An entry, used now.
    pub(super) fn get(&mut self, key: K) -> Option<&mut V> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.make_room();
            self.young.insert(key, value);
        }
        self.young.get_mut(&key)
    }

    /// An entry, not counted as used.
    pub(super) fn peek(&self, key: K) -> Option<&V> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    /// An entry, made if there is none, used now.
    pub(super) fn get_or(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let kept = self.old.remove(&key);
        if !self.young.contains_key(&key) {
            self.make_room();
        }
        self.young.entry(key).or_insert_with(|| kept.unwrap_or_else(make))
    }

    fn make_room(&mut self) {
        if self.young.len() >= self.half {
            self.evicted += self.old.len() as u64;
            self.old = mem::take(&mut self.young);
        }
    }

    /// Drops an entry.
    pub(super) fn remove(&mut self, key: K) {
        if self.young.remove(&key).is_none() {
            self.old.remove(&key);
        }
    }

    /// All keys, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.young.keys().chain(self.old.keys()).copied()
    }

    /// All entries, in no order.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.young.values_mut().chain(self.old.values_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let mut cache = Cache::new(8);
        for key in 0..100 {
            cache.get_or(key, || key);
            assert_eq!(cache.get(0).copied(), Some(0));
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.get(1), None);
        assert_eq!(cache.get(99).copied(), Some(99));
        assert_eq!(cache.len() as u64 + cache.evicted, 100);
        cache.remove(99);
        assert_eq!(cache.get(99), None);
    }
}
