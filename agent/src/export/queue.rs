//! Calls that wait to be exported: bounded, never blocking the one who offers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::model::{Connection, Exchange, Operation};

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Bytes.
    limit: u64,
    batch: usize,
    /// A batch is there.
    full: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Exchange>>,
    bytes: u64,
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
    pub(super) fn new(limit: u64, batch: usize) -> Self {
        Self { state: Mutex::default(), limit, batch: batch.max(1), full: Notify::new() }
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
                let bytes = weight(call);
                if state.bytes + bytes <= self.limit {
                    state.bytes += bytes;
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
        let batch: Vec<_> = state.waiting.drain(..n).collect();
        state.bytes -= batch.iter().map(|call| weight(call)).sum::<u64>();
        batch
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that a waiting call takes. Its connection is counted as if no other call shared it, its service as if it were
/// known to all.
pub(super) fn weight(call: &Exchange) -> u64 {
    const FIXED: usize = size_of::<Exchange>() + size_of::<Connection>() + 5 * size_of::<usize>();
    let Operation::Http(http) = &call.call.operation;
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    (FIXED + http.target.len() + text(&http.host) + text(&http.user_agent)) as u64
}
