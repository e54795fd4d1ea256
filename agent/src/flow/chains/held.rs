//! Calls that wait for their parent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Span;
use crate::meter::Count;
use crate::model::Exchange;

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wait {
    /// The answer that ends an errand of this process.
    Errand(u32, u64),
    /// The trace id of the call with this span.
    Call(Span),
}

/// A call that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub call: Arc<Exchange>,
    /// What it counts as when it gets what it waits for; of a server's call nothing is counted.
    pub proof: Count,
    /// Then it goes on without.
    pub deadline: u64,
}

/// Deadline, and a number.
pub(super) type Id = (u64, u64);

/// All of them, by deadline.
#[derive(Debug, Default)]
pub(super) struct Held {
    calls: BTreeMap<Id, (Waiting, Wait)>,
    waits: HashMap<Wait, Vec<Id>, RandomState>,
    spans: HashMap<Span, Id, RandomState>,
    next: u64,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn insert(&mut self, waiting: Waiting, wait: Wait) {
        let id = (waiting.deadline, self.next);
        self.next += 1;
        self.spans.insert(waiting.call.ids.span, id);
        self.waits.entry(wait).or_default().push(id);
        self.calls.insert(id, (waiting, wait));
    }

    /// The call with this span waits.
    pub(super) fn has(&self, span: Span) -> bool {
        !self.spans.is_empty() && self.spans.contains_key(&span)
    }

    pub(super) fn id_of(&self, span: Span) -> Option<Id> {
        self.spans.get(&span).copied()
    }

    /// Takes out all that wait for this.
    pub(super) fn take(&mut self, wait: &Wait) -> Vec<Waiting> {
        if self.waits.is_empty() {
            return Vec::new();
        }
        let ids = self.waits.remove(wait).unwrap_or_default();
        let taken: Vec<Waiting> = ids.iter().filter_map(|id| Some(self.calls.remove(id)?.0)).collect();
        for waiting in &taken {
            self.spans.remove(&waiting.call.ids.span);
        }
        taken
    }

    /// Takes out one of them.
    pub(super) fn remove(&mut self, id: Id) -> Option<(Arc<Exchange>, Wait)> {
        let (waiting, wait) = self.calls.remove(&id)?;
        self.spans.remove(&waiting.call.ids.span);
        if let Some(ids) = self.waits.get_mut(&wait) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.waits.remove(&wait);
            }
        }
        Some((waiting.call, wait))
    }

    /// The one whose deadline comes first.
    pub(super) fn oldest(&self) -> Option<Id> {
        self.calls.keys().next().copied()
    }

    /// One whose time is over.
    pub(super) fn due(&self, now: u64) -> Option<Id> {
        self.oldest().filter(|(deadline, _)| *deadline <= now)
    }
}
