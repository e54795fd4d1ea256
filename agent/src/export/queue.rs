//! Calls that wait to be exported: bounded, never blocking the one who offers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::model::Exchange;

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    limit: usize,
    batch: usize,
    /// A batch is there.
    full: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Exchange>>,
    closed: bool,
}

/// What an offer left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// So many, for want of room.
    Full(u64),
    /// All of these: the queue takes nothing any more.
    Closed(u64),
}

impl Queue {
    pub(super) fn new(limit: usize, batch: usize) -> Self {
        Self { state: Mutex::default(), limit: limit.max(1), batch: batch.max(1), full: Notify::new() }
    }

    /// Takes what there is room for.
    pub(super) fn offer<'a>(&self, calls: impl Iterator<Item = &'a Arc<Exchange>>) -> LeftOut {
        let mut left_out = 0;
        let waiting = {
            let mut state = self.lock();
            if state.closed {
                return LeftOut::Closed(calls.count() as u64);
            }
            for call in calls {
                if state.waiting.len() < self.limit {
                    state.waiting.push_back(Arc::clone(call));
                } else {
                    left_out += 1;
                }
            }
            state.waiting.len()
        };
        if waiting >= self.batch {
            self.full.notify_one();
        }
        LeftOut::Full(left_out)
    }

    /// Takes nothing any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Returns when a batch may be waiting.
    pub(super) async fn ready(&self) {
        if self.lock().waiting.len() < self.batch {
            self.full.notified().await;
        }
    }

    /// Takes the oldest, a batch at most.
    pub(super) fn take(&self) -> Vec<Arc<Exchange>> {
        let mut state = self.lock();
        let n = state.waiting.len().min(self.batch);
        state.waiting.drain(..n).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
