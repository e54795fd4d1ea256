//! Behind a request whose body was not awaited (`Expect: 100-continue`, answered at once): the body after all, or the
//! next request. Few bytes can't tell, so they wait here for a line.

use crate::model::{Call, Method, Stamp};
use crate::proto::{Chunk, Side};

use super::body::Body;
use super::line;
use super::machine::{Http1, State};

/// Most bytes that wait: a request line that is longer is taken for a body.
const MOST: usize = 8 << 10;

/// Bytes that are one or the other.
#[derive(Debug)]
pub(super) struct Withheld {
    body: Body,
    seen: Vec<u8>,
    first: Stamp,
}

impl Withheld {
    /// `None`: these bytes are decided.
    pub(super) fn begin(body: Body, bytes: &[u8], first: Stamp) -> Option<Self> {
        let open = matches!(body, Body::Length(_) | Body::Chunked(_)) && undecided(bytes);
        open.then(|| Self { body, seen: bytes.to_vec(), first })
    }

    /// The body of a call that was told without it.
    pub(super) fn nothing(body: Body) -> Self {
        Self { body, seen: Vec::new(), first: Stamp::default() }
    }

    pub(super) fn held(&self) -> usize {
        size_of::<Self>() + self.seen.capacity()
    }

    /// Silence after these bytes means that they are the body: they fill it.
    pub(super) fn fills(&self) -> bool {
        self.body == Body::Length(self.seen.len() as u64)
    }
}

fn undecided(bytes: &[u8]) -> bool {
    bytes.len() < MOST && !bytes.contains(&b'\n') && line::request_begun(bytes)
}

impl Http1 {
    /// Takes more of the undecided bytes; decides when there is a line, or can be none.
    pub(super) fn withheld(&mut self, chunk: Chunk<'_>, out: &mut Vec<Call>) {
        let State::Withheld(withheld) = &mut self.client.state else { return };
        if withheld.seen.is_empty() {
            withheld.first = Stamp { at: chunk.at, seq: chunk.seq, by: chunk.by };
        }
        withheld.seen.extend_from_slice(chunk.bytes);
        if undecided(&withheld.seen) {
            return;
        }
        // Of a body and a request behind it, the line may read as a request with a strange method.
        let known = line::request_line(&withheld.seen).is_some_and(|line| matches!(line.method, Method::Known(_)));
        self.decide(known, chunk.at, out);
    }

    /// What waits for a decision is the body.
    pub(super) fn withheld_is_body(&mut self, at: u64, out: &mut Vec<Call>) {
        self.decide(false, at, out);
    }

    fn decide(&mut self, request: bool, at: u64, out: &mut Vec<Call>) {
        let State::Withheld(withheld) = &mut self.client.state else { return };
        let Withheld { body, seen, first } = withheld.as_mut();
        let (body, seen, first) = (*body, std::mem::take(seen), *first);
        if request {
            self.finish(Side::Client, out);
            self.client.state = State::Head(None);
        } else {
            self.client.state = State::Body(body);
            if let Some(last) = self.queue.back_mut().filter(|_| self.client.attached) {
                last.holds_body = false;
            }
        }
        // The first byte at its own time.
        let (one, rest) = seen.split_at(seen.len().min(1));
        for (at, skip, bytes) in [(first.at, 0, one), (at, 1, rest)] {
            let seq = first.seq.wrapping_add(skip);
            // A client's bytes behind a request end nothing but their own message.
            self.read(Chunk { side: Side::Client, at, seq, bytes, by: first.by }, out);
        }
    }
}
