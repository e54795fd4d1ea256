//! Calls of which both ends are told: the first half waits for the second one.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::edge::Facts;
use super::node::{Node, NodeRef};

/// The client's span id: both halves know it.
pub(super) type Span = [u8; 8];

/// What one end told.
#[derive(Clone, Debug)]
pub(super) struct Half {
    /// The service of the end that told it.
    pub own: Node,
    /// The other end, as far as this one knows.
    pub other: Node,
    /// By what the server was called, where that is another's name.
    pub via: Option<Node>,
    pub protocol: &'static str,
    pub port: u16,
    pub facts: Facts,
}

/// A [`Half`], borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfRef<'a> {
    pub own: NodeRef<'a>,
    pub other: NodeRef<'a>,
    pub via: Option<NodeRef<'a>>,
    pub protocol: &'static str,
    pub port: u16,
    pub facts: Facts,
}

impl Half {
    pub(super) fn borrow(&self) -> HalfRef<'_> {
        let Self { own, other, via, protocol, port, facts } = self;
        let via = via.as_ref().map(Node::borrow);
        HalfRef { own: own.borrow(), other: other.borrow(), via, protocol, port: *port, facts: *facts }
    }
}

impl HalfRef<'_> {
    fn owned(self) -> Half {
        let Self { own, other, via, protocol, port, facts } = self;
        Half { own: own.owned(), other: other.owned(), via: via.map(NodeRef::owned), protocol, port, facts }
    }
}

#[derive(Debug)]
struct Waiting {
    half: Half,
    /// It waited too long and was counted alone: what comes still must not be counted again.
    counted: bool,
}

/// What is there of a call whose second half has come.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing: the half waits now.
    Nothing,
    /// Its other half; both are to be counted as one.
    Waiting(Half),
    /// Its other half, which was counted already.
    Counted(Half),
}

/// First halves, in the order of their coming.
#[derive(Debug)]
pub(super) struct Halves {
    waiting: HashMap<Span, Waiting, RandomState>,
    order: VecDeque<(u64, Span)>,
    limit: usize,
    wait_ns: u64,
    remember_ns: u64,
}

impl Halves {
    pub(super) fn new(limit: usize, wait_ns: u64, remember_ns: u64) -> Self {
        Self { waiting: HashMap::default(), order: VecDeque::new(), limit: limit.max(1), wait_ns, remember_ns }
    }

    /// Looks for the other half; if it is not there, this one waits.
    pub(super) fn take(&mut self, span: Span, half: HalfRef<'_>) -> Found {
        if let Some(found) = self.waiting.remove(&span) {
            return if found.counted { Found::Counted(found.half) } else { Found::Waiting(found.half) };
        }
        if self.order.len() > 2 * self.limit {
            self.order.retain(|(_, span)| self.waiting.contains_key(span));
        }
        self.order.push_back((half.facts.ended_at, span));
        self.waiting.insert(span, Waiting { half: half.owned(), counted: false });
        Found::Nothing
    }

    /// The next half that waited too long, or that must make room: to be counted alone.
    pub(super) fn overdue(&mut self, now: u64) -> Option<Half> {
        loop {
            let (at, span) = *self.order.front()?;
            let crowded = self.waiting.len() > self.limit;
            let Some(waiting) = self.waiting.get_mut(&span) else {
                self.order.pop_front();
                continue;
            };
            let patience = if waiting.counted { self.remember_ns } else { self.wait_ns };
            if !crowded && now.saturating_sub(at) < patience {
                return None;
            }
            self.order.pop_front();
            if waiting.counted || crowded {
                let gone = self.waiting.remove(&span)?;
                if !gone.counted {
                    return Some(gone.half);
                }
            } else {
                waiting.counted = true;
                self.order.push_back((now, span));
                return Some(waiting.half.clone());
            }
        }
    }
}
