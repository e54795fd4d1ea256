//! Heads and ends of messages: how requests and responses meet.

use crate::model::{Call, End, Http, Message, Method, Operation, Stamp};
use crate::proto::{Begun, Side};

use super::body::Body;
use super::fields::{self, Framing};
use super::head::{self, Head, Scanned, Scanner, Start};
use super::line::RequestLine;
use super::machine::{BEYOND_WINDOW, HTTP2, Headed, Http1, NOT_HTTP, QUIET, State, UPGRADED};
use super::queue::Pending;

/// `error.type` of a call whose answer is no HTTP, or contradicts itself.
const MALFORMED_RESPONSE: &str = "malformed_response";

fn http(call: &mut Call) -> &mut Http {
    let Operation::Http(http) = &mut call.operation;
    http
}

fn message(head: &Head, content: Option<u64>) -> Message {
    Message { first: head.first, last_at: head.last_at, wire: head.wire, content }
}

impl Http1 {
    /// Reads a head, or more of one.
    pub(super) fn head(&mut self, side: Side, bytes: &[u8], here: Stamp, out: &mut Vec<Call>) -> Headed {
        let State::Head(scanner) = &mut self.lane(side).state else { return Headed::Took(0) };
        if scanner.is_none() {
            // RFC 9112 §2.2: empty lines before a message.
            let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let empty = bytes
                .get(..empty)
                .and_then(|lines| lines.iter().rposition(|&byte| byte == b'\n'))
                .map_or(0, |last| last + 1);
            if empty > 0 {
                return Headed::Took(empty);
            }
            if let Some(head) = head::at_once(side, bytes, here) {
                let wire = head.wire as usize;
                return self.headed(head, wire, out);
            }
        }
        let scanner = scanner.get_or_insert_with(|| Box::new(Scanner::new(side)));
        match scanner.push(bytes, here) {
            Scanned::More => Headed::Took(bytes.len()),
            Scanned::Whole(took) => {
                let State::Head(scanner) = std::mem::replace(&mut self.lane(side).state, State::Head(None)) else {
                    return Headed::Took(took);
                };
                match scanner.and_then(|scanner| scanner.into_head(false)) {
                    Some(head) => self.headed(head, took, out),
                    None => Headed::Took(took),
                }
            }
            Scanned::Invalid => self.not_a_head(side, bytes, out),
        }
    }

    fn headed(&mut self, head: Head, took: usize, out: &mut Vec<Call>) -> Headed {
        match self.take_head(head, out) {
            Some(why) => Headed::Stop(why),
            None => Headed::Took(took),
        }
    }

    fn take_head(&mut self, mut head: Head, out: &mut Vec<Call>) -> Option<&'static str> {
        self.lane(if matches!(head.start, Start::Request(_)) { Side::Client } else { Side::Server }).tried = false;
        match std::mem::replace(&mut head.start, Start::Response(0)) {
            Start::Request(line) => {
                self.request(line, head, out);
                None
            }
            Start::Response(status) => self.response(status, &head, out),
        }
    }

    /// Bytes where a start line should be.
    fn not_a_head(&mut self, side: Side, bytes: &[u8], out: &mut Vec<Call>) -> Headed {
        if side == Side::Server {
            self.doubt.refute();
        }
        if std::mem::take(&mut self.lane(side).tried) {
            self.lane(side).state = State::Behind(!bytes.ends_with(b"\n"));
            return Headed::Took(bytes.len());
        }
        if !self.proven && self.queue.is_empty() && !self.client_has_start() {
            let State::Head(Some(scanner)) = &self.lane(side).state else { return Headed::Stop(NOT_HTTP) };
            let http2 = side == Side::Client && scanner.http2();
            return Headed::Stop(if http2 { HTTP2 } else { NOT_HTTP });
        }
        match side {
            Side::Client => {
                self.barrier = true;
                self.blind = true;
            }
            Side::Server => {
                self.malformed_answer(out);
                self.server.state = State::Behind(!bytes.ends_with(b"\n"));
                return Headed::Took(bytes.len());
            }
        }
        self.lane(side).state = State::Resync;
        Headed::Took(bytes.len())
    }

    pub(super) fn client_has_start(&self) -> bool {
        matches!(&self.client.state, State::Head(Some(scanner)) if scanner.has_start())
    }

    /// A request can be told from those that were not seen.
    fn admits(&mut self, at: u64) -> bool {
        if self.barrier {
            let settled = !self.pipelined || at.saturating_sub(self.last_at) >= QUIET;
            self.barrier = !(settled && self.queue.is_empty());
            if !self.barrier {
                self.owed = 0;
            }
        }
        if self.queue.is_full() {
            self.barrier = true;
            self.blind = true;
            self.pipelined = true;
        }
        !self.barrier
    }

    fn request(&mut self, line: RequestLine, head: Head, out: &mut Vec<Call>) {
        self.proven = true;
        self.malformed_contexts += u64::from(head.fields.context_ignored());
        let framing = head.fields.request_framing();
        let connect = line.method == Method::Known("CONNECT");
        // RFC 9110 §9.3.6: CONNECT has no content.
        let body = match framing {
            _ if head.cut => Body::new(Framing::Invalid),
            _ if connect => None,
            framing => Body::new(framing),
        };
        self.answered_malformed(out);
        if std::mem::take(&mut self.unread) {
            self.answers_missed(Side::Server, self.queue.len(), BEYOND_WINDOW, out);
            if matches!(self.server.state, State::Resync | State::Behind(_)) {
                self.missed_response(BEYOND_WINDOW, false, out);
            }
        }
        // A further request says that a response which looked whole is whole.
        if self.server.attached && matches!(self.server.state, State::Body(Body::Windows(tail)) if tail.ends_chunked())
        {
            self.finish(Side::Server, out);
            self.server.state = State::Behind(false);
        }
        // Where the direction turns a message may start; also in a body that is none if it answers HEAD.
        let loose = !self.server.attached && matches!(self.server.state, State::Body(_));
        if loose || matches!(self.server.state, State::Resync | State::Behind(_)) {
            self.server.state = State::Behind(false);
        }
        self.asked_again = self.server.attached && matches!(self.server.state, State::Body(Body::Close));
        let admitted = self.admits(head.first.at);
        if admitted {
            let content = if head.cut || framing == Framing::Invalid { None } else { Some(0) };
            let request = message(&head, content);
            let malformed = framing == Framing::Invalid && !head.cut;
            let (context, request_id) = (head.fields.context(), head.fields.request_id());
            if context.is_some() || request_id.is_some() {
                self.begun.push(Begun { first: head.first, context, request_id });
            }
            let mut way = head.fields.way;
            if self.claimed.is_some() {
                way.get_or_insert_default().proxy = self.claimed;
            }
            let host =
                fields::authority(&line.target).or(head.fields.host).or_else(|| connect.then(|| line.target.clone()));
            let call = Call {
                operation: Operation::Http(Http {
                    context,
                    way,
                    method: line.method,
                    target: line.target,
                    route: None,
                    host,
                    version: line.version,
                    status: None,
                    forwarded: head.fields.forwarded,
                    user_agent: head.fields.agent,
                    request_id,
                    sent: head.sent,
                    unclear: 0,
                }),
                request,
                response: None,
                end: End::InFlight,
                error: malformed.then_some("malformed_request"),
                pipelined: false,
                truncated: head.cut || line.cut,
            };
            let holds_body = head.fields.expects && body.is_some();
            self.queue.push(Pending { call, request_whole: false, response_whole: false, holds_body });
            // Behind an answer whose end is not certain one that waits alone is not pipelined.
            let answered = self.ends_unseen() || self.asked_again;
            self.pipelined |= self.queue.len() - usize::from(answered) > 1;
        }
        self.client.attached = admitted;
        if let Some(body) = body {
            self.client.state = State::Body(body);
            return;
        }
        self.finish(Side::Client, out);
        if connect {
            self.client.state = State::Tunnel(false);
        }
    }

    /// `Some`: HTTP is over.
    fn response(&mut self, status: u16, head: &Head, out: &mut Vec<Call>) -> Option<&'static str> {
        if status < 200 && status != 101 {
            // An interim response (RFC 9110 §15.2) is no part of the final one.
            self.server.state = State::Head(None);
            return None;
        }
        if self.queue.is_empty() {
            // An answer to a request whose head has not ended yet: too long, too slow, or broken.
            self.promote(out);
        }
        let answers = self.queue.front_mut().filter(|front| !front.response_whole);
        self.server.attached = answers.is_some();
        let Some(front) = answers else {
            self.doubt.refute();
            if self.owed > 0 {
                self.owed -= 1;
            } else {
                self.skipped += u64::from(self.blind);
            }
            // Its method is not known. If it was HEAD there is no body, and then `restarts` finds the next head.
            self.server.state = match head.fields.response_framing() {
                _ if head.cut || status == 204 || status == 304 => State::Resync,
                Framing::Close | Framing::Invalid => State::Resync,
                framing => Body::new(framing).map_or(State::Head(None), State::Body),
            };
            return None;
        };
        let call = &mut front.call;
        call.truncated |= head.cut;
        let http = http(call);
        http.status = Some(status);
        let connected = http.method == Method::Known("CONNECT") && (200..300).contains(&status);
        let no_body = http.method == Method::Known("HEAD") || connected || matches!(status, 101 | 204 | 304);
        let framing = match head.fields.response_framing() {
            _ if no_body => Framing::Length(0),
            _ if head.cut => Framing::Invalid,
            Framing::Invalid => {
                call.error.get_or_insert(MALFORMED_RESPONSE);
                Framing::Close
            }
            framing => framing,
        };
        call.response = Some(message(head, (framing != Framing::Invalid).then_some(0)));
        if status == 101 || connected {
            self.queue.pop(End::Upgraded, None, out);
            while !self.queue.is_empty() {
                self.queue.pop(End::Lost(UPGRADED), None, out);
            }
            return Some(UPGRADED);
        }
        if let State::Tunnel(used) = self.client.state {
            self.client.state = if used { State::Resync } else { State::Head(None) };
        }
        match Body::new(framing) {
            Some(body) => self.server.state = State::Body(body),
            None if head.cut => {
                self.finish(Side::Server, out);
                self.server.state = State::Behind(false);
            }
            None => self.finish(Side::Server, out),
        }
        None
    }

    /// Makes a request of what was seen of a head.
    pub(super) fn promote(&mut self, out: &mut Vec<Call>) {
        if !self.client_has_start() {
            return;
        }
        if let State::Head(Some(scanner)) = std::mem::replace(&mut self.client.state, State::Resync)
            && let Some(mut head) = scanner.into_head(true)
            && let Start::Request(line) = std::mem::replace(&mut head.start, Start::Response(0))
        {
            self.request(line, head, out);
        }
    }

    /// Bytes of the server that are no head answer the first request that waits.
    fn malformed_answer(&mut self, out: &mut Vec<Call>) {
        let Some(front) = self.queue.front_mut().filter(|front| !front.response_whole) else { return };
        front.call.error.get_or_insert(MALFORMED_RESPONSE);
        if self.queue.len() > 1 {
            // Whether the next status line answers it or the one behind it can't be told.
            self.queue.pop(End::Complete, None, out);
            self.missed_response(MALFORMED_RESPONSE, false, out);
        }
    }

    /// A further request says that they were all of that answer.
    fn answered_malformed(&mut self, out: &mut Vec<Call>) {
        let waits = self.queue.front().filter(|front| front.call.response.is_none());
        if waits.is_some_and(|front| front.call.error == Some(MALFORMED_RESPONSE)) {
            self.queue.pop(End::Complete, None, out);
        }
    }

    /// The message that a direction was in is whole.
    pub(super) fn finish(&mut self, side: Side, out: &mut Vec<Call>) {
        if side == Side::Server {
            self.unread = false;
        }
        let lane = self.lane(side);
        lane.state = State::Head(None);
        if !std::mem::take(&mut lane.attached) {
            return;
        }
        match side {
            Side::Client => {
                if let Some(last) = self.queue.back_mut() {
                    last.request_whole = true;
                    if last.response_whole {
                        self.queue.pop(End::Complete, None, out);
                    }
                }
            }
            Side::Server => {
                // Behind this response its request has ended in any case, if another follows or its side said FIN.
                let more = self.queue.len() > 1 || self.client.closed;
                if let Some(front) = self.queue.front_mut() {
                    front.response_whole = true;
                    if front.request_whole || more {
                        self.queue.pop(End::Complete, None, out);
                    } else if self.request_looks_whole() {
                        self.finish(Side::Client, out);
                        self.client.state = State::Behind(false);
                    }
                }
            }
        }
    }

    /// The request's end was not certain, but it looks like one.
    pub(super) fn request_looks_whole(&self) -> bool {
        match &self.client.state {
            // A trailer section that is longer than the kept tail hides its last chunk.
            State::Body(Body::Windows(tail)) => tail.ends_chunked() || tail.ends_with_empty_line(),
            State::Body(Body::Unknown(tail)) => tail.ends_with_empty_line(),
            _ => false,
        }
    }

    /// Bytes passed unseen where a message could start.
    pub(super) fn missed(&mut self, side: Side, len: u64, at: u64, why: &'static str, out: &mut Vec<Call>) {
        self.blind = true;
        let state = std::mem::replace(&mut self.lane(side).state, State::Resync);
        let scanner = match state {
            State::Head(scanner) => scanner,
            _ => None,
        };
        match side {
            Side::Client => {
                if let Some(scanner) = scanner.filter(|scanner| scanner.has_start())
                    && let Some(mut head) = scanner.into_head(true)
                {
                    head.wire += len;
                    head.last_at = at;
                    self.take_head(head, out);
                } else {
                    self.barrier = true;
                }
            }
            Side::Server => {
                if let Some(scanner) = scanner.filter(|scanner| scanner.status().is_some())
                    && let Some(mut head) = scanner.into_head(true)
                {
                    head.wire += len;
                    head.last_at = at;
                    self.take_head(head, out);
                    // Behind the head that was cut, the answers to further requests may have passed.
                    if self.queue.len() > usize::from(self.server.attached) {
                        self.finish(Side::Server, out);
                        self.server.state = State::Resync;
                        self.missed_response(why, false, out);
                    }
                } else {
                    self.missed_response(why, true, out);
                }
            }
        }
    }

    /// Of a response whose end is not certain, bytes passed unseen while further requests wait: their answers may have
    /// been among them. One that waits alone is answered by the next status line: no answer precedes its request.
    pub(super) fn answers_missed(&mut self, side: Side, wait: usize, why: &'static str, out: &mut Vec<Call>) {
        if side == Side::Server && self.ends_unseen() && wait > 1 {
            self.finish(Side::Server, out);
            self.server.state = State::Resync;
            self.missed_response(why, false, out);
        }
    }

    /// Of the response that is being read the end is not certain.
    pub(super) fn ends_unseen(&self) -> bool {
        self.server.attached && matches!(self.server.state, State::Body(Body::Windows(_) | Body::Unknown(_)))
    }

    /// Responses' heads were not seen, one at least or (not `certain`) perhaps none: which of the waiting requests they
    /// answered can't be known.
    fn missed_response(&mut self, why: &'static str, certain: bool, out: &mut Vec<Call>) {
        if self.queue.front().is_some_and(|front| front.response_whole) {
            // Its request still flows; what was missed answers nothing that is known.
            return;
        }
        let lost = self.queue.len() as u64;
        while !self.queue.is_empty() {
            self.queue.pop(End::Lost(why), None, out);
        }
        self.client.attached = false;
        self.server.attached = false;
        let owed = lost.saturating_sub(u64::from(certain));
        if owed > 0 {
            self.barrier = true;
            self.owed += owed;
        }
    }
}
