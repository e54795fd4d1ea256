//! What is remembered of calls by their spans, for a while.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

/// Most that is remembered.
const MOST: usize = 16_384;

/// By span, in the order in which it was noticed.
#[derive(Debug)]
pub(super) struct Memory<V> {
    values: HashMap<[u8; 8], V, RandomState>,
    order: VecDeque<(u64, [u8; 8])>,
}

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self { values: HashMap::default(), order: VecDeque::new() }
    }
}

impl<V> Memory<V> {
    /// Remembers; forgets the oldest where there is no room.
    pub(super) fn insert(&mut self, span: [u8; 8], value: V, at: u64) {
        while self.order.len() >= MOST
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
        self.put(span, value, at);
    }

    /// Remembers where there is room.
    pub(super) fn insert_if_room(&mut self, span: [u8; 8], value: V, at: u64) {
        if self.order.len() < MOST {
            self.put(span, value, at);
        }
    }

    fn put(&mut self, span: [u8; 8], value: V, at: u64) {
        if self.values.insert(span, value).is_none() {
            self.order.push_back((at, span));
        }
    }

    pub(super) fn get(&self, span: &[u8; 8]) -> Option<&V> {
        if self.values.is_empty() { None } else { self.values.get(span) }
    }

    pub(super) fn remove(&mut self, span: &[u8; 8]) -> Option<V> {
        if self.values.is_empty() {
            return None;
        }
        let value = self.values.remove(span);
        // What was taken out leaves the order when it comes to its front.
        while self.order.front().is_some_and(|(_, first)| !self.values.contains_key(first)) {
            self.order.pop_front();
        }
        value
    }

    /// Forgets what is older.
    pub(super) fn forget(&mut self, before: u64) {
        while let Some((at, span)) = self.order.front() {
            if *at >= before && self.values.contains_key(span) {
                break;
            }
            self.values.remove(span);
            self.order.pop_front();
        }
    }
}
