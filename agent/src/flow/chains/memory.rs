//! What is remembered for a while.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

/// By a key, in the order in which it was noticed; at most `MOST`.
#[derive(Debug)]
pub(super) struct Memory<K, V, const MOST: usize> {
    values: HashMap<K, V, RandomState>,
    order: VecDeque<(u64, K)>,
}

impl<K, V, const MOST: usize> Default for Memory<K, V, MOST> {
    fn default() -> Self {
        Self { values: HashMap::default(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash, V, const MOST: usize> Memory<K, V, MOST> {
    /// Remembers; forgets the oldest where there is no room.
    pub(super) fn insert(&mut self, key: K, value: V, at: u64) {
        while self.order.len() >= MOST
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
        self.put(key, value, at);
    }

    /// Remembers where there is room.
    pub(super) fn insert_if_room(&mut self, key: K, value: V, at: u64) {
        if self.order.len() < MOST {
            self.put(key, value, at);
        }
    }

    fn put(&mut self, key: K, value: V, at: u64) {
        if self.values.insert(key, value).is_none() {
            self.order.push_back((at, key));
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        if self.values.is_empty() { None } else { self.values.get(key) }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        if self.values.is_empty() {
            return None;
        }
        let value = self.values.remove(key);
        // What was taken out leaves the order when it comes to its front.
        while self.order.front().is_some_and(|(_, first)| !self.values.contains_key(first)) {
            self.order.pop_front();
        }
        value
    }

    /// Forgets what is older.
    pub(super) fn forget(&mut self, before: u64) {
        while let Some((at, key)) = self.order.front() {
            if *at >= before && self.values.contains_key(key) {
                break;
            }
            self.values.remove(key);
            self.order.pop_front();
        }
    }
}
