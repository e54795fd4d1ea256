//! The first calls of a connection that is joined in the middle. In front of the first request that is seen there may be
//! others that wait for their answers, and then each answer would be given to the request behind its own. So they wait
//! for the turn: as many answers as requests, and they are right.

use crate::model::{Call, End, Operation};

use super::machine::Http1;
use crate::proto::MIDWAY;

/// Calls that wait at most.
const MOST: usize = 256;

/// Calls that wait, as long as none is certain.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Nothing but the first turn was seen.
    open: bool,
    /// More was answered than was asked.
    refuted: bool,
    calls: Vec<Call>,
}

impl Doubt {
    pub(super) fn new(open: bool) -> Self {
        Self { open, refuted: false, calls: Vec::new() }
    }

    /// Calls wait.
    pub(super) fn waits(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Bytes of memory.
    pub(super) fn held(&self) -> usize {
        self.calls.capacity() * size_of::<Call>()
    }

    /// Takes back what was told from `from` on.
    pub(super) fn take(&mut self, out: &mut Vec<Call>, from: usize) {
        if self.open {
            if self.refuted {
                out.iter_mut().skip(from).for_each(unanswer);
            }
            self.calls.extend(out.drain(from..));
            if self.calls.len() > MOST {
                self.settle(out);
            }
        }
    }

    /// Nobody else was answered: they are right, and so is what follows.
    pub(super) fn settle(&mut self, out: &mut Vec<Call>) {
        (self.open, self.refuted) = (false, false);
        out.append(&mut self.calls);
        self.calls = Vec::new();
    }

    /// More came than answers to what is known: they may be those to requests before theirs.
    pub(super) fn refute(&mut self) {
        self.refuted = self.open;
        self.calls.iter_mut().for_each(unanswer);
    }
}

/// Which answer was this call's is not known.
fn unanswer(call: &mut Call) {
    let Operation::Http(http) = &mut call.operation;
    http.status = None;
    call.response = None;
    call.error = None;
    call.end = End::Lost(MIDWAY);
}

impl Http1 {
    /// The client speaks after its server, or nobody does: the turn has ended, if nothing waits for its answer.
    pub(super) fn turned(&mut self, out: &mut Vec<Call>) {
        if self.queue.is_empty() {
            self.doubt.settle(out);
        }
    }
}
