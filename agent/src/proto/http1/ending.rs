//! What a connection's end, or silence, does to the calls that are open.

use crate::model::{Call, End, Message, Operation};
use crate::proto::{Close, STOPPED, Side};

use super::body::Body;
use super::machine::{Http1, State};
use super::withheld::Withheld;

impl Http1 {
    /// Silence: ends that look like ends are ends.
    pub(super) fn settle(&mut self, out: &mut Vec<Call>) {
        if matches!(&self.client.state, State::Withheld(withheld) if withheld.fills()) {
            self.withheld_is_body(self.last_at, out);
        }
        let answered = self.queue.back().is_some_and(|last| last.response_whole);
        let held = self.queue.back().is_some_and(|last| last.holds_body);
        let (request, next) = match &self.client.state {
            State::Body(Body::Windows(tail)) => (tail.ends_chunked(), State::Behind(false)),
            State::Body(Body::Unknown(_)) => (answered, State::Resync),
            State::Body(body) => (answered && held, State::Withheld(Box::new(Withheld::nothing(*body)))),
            _ => (false, State::Resync),
        };
        if self.client.attached && request {
            self.finish(Side::Client, out);
            self.client.state = next;
        }
        if self.response_looks_whole() {
            self.finish(Side::Server, out);
            self.server.state = State::Behind(false);
        }
    }

    /// The response's end was not certain, but it looks like one.
    fn response_looks_whole(&self) -> bool {
        self.server.attached && matches!(self.server.state, State::Body(Body::Windows(tail)) if tail.ends_chunked())
    }

    /// The connection ended, or one side of it.
    pub(super) fn ended(&mut self, close: Close, at: u64, out: &mut Vec<Call>) {
        self.withheld_is_body(self.last_at, out);
        match close {
            Close::Fin(Side::Client) => {
                self.client.closed = true;
                // The server may still answer. What the client sent is all that there is.
                if matches!(self.client.state, State::Body(Body::Unknown(_))) || self.request_looks_whole() {
                    self.finish(Side::Client, out);
                } else if self.queue.front().is_some_and(|front| front.response_whole) {
                    self.client.attached = false;
                    self.queue.pop(End::Complete, None, out);
                }
                return;
            }
            Close::Fin(Side::Server) => {
                self.server.closed = true;
                self.last_response_ends(out);
            }
            // What looks like an end is one: whoever has all of an answer may close with a reset.
            Close::Reset(_) if self.response_looks_whole() => self.finish(Side::Server, out),
            Close::Reset(_) | Close::Gone | Close::Forgotten(_) => {}
        }
        self.promote(out);
        self.begun_response();
        let (end, error) = match close {
            // It had finished and did not wait for the answer, which a reset of the peer then met.
            Close::Reset(_) | Close::Fin(_) | Close::Gone if self.client.closed => (End::ClientAborted, None),
            Close::Reset(_) => (End::Reset, Some("connection_reset")),
            Close::Forgotten(STOPPED) => (End::InFlight, None),
            Close::Forgotten(why) => (End::Lost(why), None),
            Close::Fin(_) => (End::ServerAborted, None),
            Close::Gone => (End::Lost("unseen_close"), None),
        };
        while let Some(front) = self.queue.front_mut() {
            if front.call.response.is_none() {
                // Until then it was waited for: the call lasted so long.
                front.call.request.last_at = front.call.request.last_at.max(at);
            }
            if front.response_whole {
                self.queue.pop(End::Complete, None, out);
            } else {
                self.queue.pop(end, error, out);
            }
        }
        self.over = true;
    }

    /// The server said FIN: a response that lasts until then is whole.
    fn last_response_ends(&mut self, out: &mut Vec<Call>) {
        let whole = match &self.server.state {
            State::Body(Body::Close | Body::Unknown(_)) => true,
            State::Body(Body::Windows(tail)) => tail.ends_chunked() || tail.ends_with_empty_line(),
            _ => false,
        };
        if whole && self.server.attached {
            self.finish(Side::Server, out);
        }
    }

    /// A response of which only the beginning of the head was seen.
    fn begun_response(&mut self) {
        let State::Head(Some(scanner)) = &self.server.state else { return };
        let interim = scanner.status().is_some_and(|status| status < 200 && status != 101);
        let Some((first, wire, last_at)) = scanner.seen().filter(|_| !interim) else { return };
        let status = scanner.status();
        if let Some(front) = self.queue.front_mut().filter(|front| front.call.response.is_none()) {
            front.call.response = Some(Message { first, last_at, wire, content: None });
            front.call.truncated = true;
            let Operation::Http(http) = &mut front.call.operation;
            http.status = status;
        }
    }
}
