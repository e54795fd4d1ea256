//! Requests that wait for their responses, in order.

use std::collections::VecDeque;

use crate::model::{Call, End, Operation};

/// Most requests that wait.
const REQUESTS: usize = 1024;
/// Most bytes of text (targets, hosts, user agents, hops) that they hold together.
const TEXT: usize = 256 << 10;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) call: Call,
    /// All of the request passed.
    pub(super) request_whole: bool,
    /// All of the response passed.
    pub(super) response_whole: bool,
    /// It said `Expect: 100-continue` and nothing of its body passed yet.
    pub(super) holds_body: bool,
}

impl Pending {
    fn text(&self) -> usize {
        let Operation::Http(http) = &self.call.operation;
        http.target.len()
            + http.host.as_ref().map_or(0, |host| host.len())
            + http.user_agent.as_ref().map_or(0, |agent| agent.len())
            + http.way.as_ref().map_or(0, |told| told.held())
    }
}

/// First in, first out. Most connections never have more than one, which needs no allocation.
#[derive(Debug, Default)]
pub(super) struct Queue {
    front: Option<Pending>,
    rest: VecDeque<Pending>,
    text: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        usize::from(self.front.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    /// No more fit.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= REQUESTS || self.text >= TEXT
    }

    pub(super) fn push(&mut self, mut pending: Pending) {
        self.text += pending.text();
        if let Some(front) = &mut self.front {
            front.call.pipelined = true;
            pending.call.pipelined = true;
        }
        if self.front.is_none() {
            self.front = Some(pending);
        } else {
            self.rest.push_back(pending);
        }
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Pending> {
        self.front.as_mut()
    }

    pub(super) fn front(&self) -> Option<&Pending> {
        self.front.as_ref()
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut Pending> {
        self.rest.back_mut().or(self.front.as_mut())
    }

    pub(super) fn back(&self) -> Option<&Pending> {
        self.rest.back().or(self.front.as_ref())
    }

    /// Takes the first one out; its call ends so.
    pub(super) fn pop(&mut self, end: End, error: Option<&'static str>, out: &mut Vec<Call>) {
        let Some(mut pending) = self.front.take() else { return };
        self.text -= pending.text();
        self.front = self.rest.pop_front();
        if self.rest.is_empty() {
            self.rest = VecDeque::new();
        }
        pending.call.end = end;
        pending.call.error = pending.call.error.or(error);
        out.push(pending.call);
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.text + self.rest.capacity() * size_of::<Pending>()
    }
}
