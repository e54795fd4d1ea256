//! The machine: two lanes, one for each direction, and the queue between them.

use std::net::IpAddr;

use crate::model::{Call, Message, Stamp};
use crate::proto::proxy::{self, Prefix};
use crate::proto::{Begun, Chunk, Close, Gap, MIDWAY, Parser, Side, Step};

use super::body::{Body, Tail};
use super::doubt::Doubt;
use super::head::Scanner;
use super::line;
use super::queue::Queue;
use super::withheld::Withheld;

/// Silence after which an end that only looks like one is taken for one, nanoseconds.
pub(super) const QUIET: u64 = 200_000_000;
/// Turns of the client that start no request, after which a connection joined midway is no HTTP.
const TURNS: u8 = 16;

/// `lost_reason` of a call whose answer lay behind what is kept of a segment.
pub(super) const BEYOND_WINDOW: &str = "beyond_window";

/// Step: the bytes are not HTTP/1.
pub const NOT_HTTP: &str = "not_http";
/// Step: the bytes are HTTP/2 with prior knowledge.
pub const HTTP2: &str = "http2";
/// Step: 101, or 2xx to CONNECT.
pub const UPGRADED: &str = "upgraded";

/// What a direction is in.
#[derive(Debug)]
pub(super) enum State {
    /// Before the connection's first byte, which may be a PROXY protocol prefix; what was seen of it.
    Open(Vec<u8>),
    /// In that prefix: this many bytes are left.
    Prefix(u64),
    /// Between messages, or (with a scanner) in a head.
    Head(Option<Box<Scanner>>),
    /// In a body.
    Body(Body),
    /// In a body that nobody awaits, or behind it.
    Withheld(Box<Withheld>),
    /// Bytes before were not seen: at the next chunk that certainly starts a message it goes on.
    Resync,
    /// Behind what looked like a message's end: as [`State::Resync`], but a chunk that is too short to be certain is
    /// read as the start of a message until it can be none; `true`: what was left out last did not end a line, so no
    /// message starts there.
    Behind(bool),
    /// Behind CONNECT, until its response; `true`: something was sent.
    Tunnel(bool),
}

/// One direction.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
pub(super) struct Lane {
    pub(super) state: State,
    /// The body that is being read belongs to a request in the queue: the client's to the last, the server's to the first.
    pub(super) attached: bool,
    /// It said FIN.
    pub(super) closed: bool,
    /// The head that is being read may turn out to be none: more of the message before it.
    pub(super) tried: bool,
    /// What was left out last goes on: what follows in the same turn starts no message.
    within: bool,
    /// When what was fed last passed.
    heard_at: u64,
}

/// The HTTP/1 machine of one connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
pub struct Http1 {
    pub(super) client: Lane,
    pub(super) server: Lane,
    pub(super) queue: Queue,
    /// Behind the queue there may be requests that were not seen: what is sent now can't be told from them.
    pub(super) barrier: bool,
    /// Bytes were not seen: a response without a request may be the answer to one of them.
    pub(super) blind: bool,
    /// More than one request waited at a time.
    pub(super) pipelined: bool,
    /// Bytes of the server passed among which the answer to a request that waits may have been.
    pub(super) unread: bool,
    /// A request came while a response was being read that lasts until the connection closes.
    pub(super) asked_again: bool,
    /// A request was seen: this is HTTP.
    pub(super) proven: bool,
    /// Over: an upgrade, or both sides are done.
    pub(super) over: bool,
    /// Responses that may still come for calls that already ended as lost.
    pub(super) owed: u64,
    pub(super) skipped: u64,
    pub(super) malformed_contexts: u64,
    /// Requests with ids that nobody has asked for yet.
    pub(super) begun: Vec<Begun>,
    /// Source address of the PROXY protocol's prefix.
    pub(super) claimed: Option<IpAddr>,
    /// Calls that are not certain yet.
    pub(super) doubt: Doubt,
    /// When the last byte passed.
    pub(super) last_at: u64,
    last_side: Option<Side>,
    turns: u8,
}

/// The chunk certainly starts a message.
fn starts(side: Side, bytes: &[u8]) -> bool {
    match side {
        Side::Client => line::starts_request(bytes),
        Side::Server => line::starts_response(bytes),
    }
}

/// The chunk may start a message and is too short to tell.
fn begins(side: Side, bytes: &[u8]) -> bool {
    match side {
        Side::Client => !bytes.contains(&b'\n') && line::request_begun(bytes),
        Side::Server => bytes.len() < 13 && line::response_begun(bytes),
    }
}

/// What a head made of its bytes.
pub(super) enum Headed {
    /// It took this many.
    Took(usize),
    /// The connection's HTTP is over.
    Stop(&'static str),
}

impl Http1 {
    /// A machine for a connection; `midway`: its first bytes were not seen.
    #[must_use]
    pub fn new(midway: bool) -> Self {
        let lane = |state| Lane { state, attached: false, closed: false, tried: false, within: false, heard_at: 0 };
        let (client, server) =
            if midway { (State::Resync, State::Resync) } else { (State::Open(Vec::new()), State::Head(None)) };
        Self {
            client: lane(client),
            server: lane(server),
            queue: Queue::default(),
            barrier: false,
            blind: midway,
            pipelined: false,
            unread: false,
            asked_again: false,
            proven: false,
            over: false,
            owed: 0,
            skipped: 0,
            malformed_contexts: 0,
            begun: Vec::new(),
            claimed: None,
            doubt: Doubt::new(midway),
            last_at: 0,
            last_side: None,
            turns: 0,
        }
    }

    /// Bytes of memory held beside the machine itself.
    #[must_use]
    pub fn held(&self) -> usize {
        let lane = |lane: &Lane| match &lane.state {
            State::Open(bytes) => bytes.capacity(),
            State::Head(Some(scanner)) => size_of::<Scanner>() + scanner.held(),
            State::Withheld(withheld) => withheld.held(),
            _ => 0,
        };
        lane(&self.client)
            + lane(&self.server)
            + self.queue.held()
            + self.begun.capacity() * size_of::<Begun>()
            + self.doubt.held()
    }

    pub(super) fn lane(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// The message whose body a direction is in.
    fn message(&mut self, side: Side) -> Option<&mut Message> {
        match side {
            Side::Client if self.client.attached => self.queue.back_mut().map(|last| &mut last.call.request),
            Side::Server if self.server.attached => self.queue.front_mut()?.call.response.as_mut(),
            _ => None,
        }
    }

    /// The last request was answered before its body, which was not awaited.
    fn refused(&self) -> bool {
        self.client.attached && self.queue.back().is_some_and(|last| last.holds_body && last.response_whole)
    }

    /// A chunk starts a message although the direction is in a body, whose end was not certain.
    fn restarts(&self, side: Side, body: Body, bytes: &[u8]) -> bool {
        match side {
            Side::Client => {
                let answered = || self.client.attached && self.queue.back().is_some_and(|last| last.response_whole);
                let open = match body {
                    Body::Windows(tail) => {
                        tail.ends_chunked() || tail.is_blank() || (tail.ends_with_empty_line() && answered())
                    }
                    Body::Unknown(_) => true,
                    Body::Length(_) | Body::Chunked(_) => self.refused(),
                    Body::Close => false,
                };
                open && line::starts_request(bytes)
            }
            Side::Server => {
                // Only a request that waits behind the current one can be answered by a further message.
                let waits = self.queue.len() > usize::from(self.server.attached);
                let open = match body {
                    // A trailer section that is longer than the kept tail hides its last chunk.
                    Body::Windows(tail) => tail.ends_with_empty_line() || tail.is_blank(),
                    Body::Unknown(_) => true,
                    // Who asks again has taken what came for the whole answer.
                    Body::Close => !self.server.attached || self.asked_again,
                    Body::Length(_) | Body::Chunked(_) => !self.server.attached,
                };
                // Who did not ask before has an answer whole when it asks again: what follows is the next one.
                let certain = line::starts_response(bytes) || (!self.pipelined && begins(side, bytes));
                waits && open && certain
            }
        }
    }

    /// Takes a piece of a body that was seen (`bytes`), or not (`len`). Returns how much of it was the body's.
    fn body(&mut self, side: Side, bytes: Option<&[u8]>, len: u64, at: u64, out: &mut Vec<Call>) -> u64 {
        let State::Body(body) = &mut self.lane(side).state else { return 0 };
        let taken = match bytes {
            Some(bytes) => body.take(bytes),
            None => body.skip(len),
        };
        if side == Side::Server && self.ends_unseen() && self.queue.len() > 1 {
            self.unread = true;
        }
        if let Some(message) = self.message(side) {
            message.wire += taken.wire;
            message.last_at = at;
            message.content = message.content.zip(taken.content).map(|(before, more)| before + more);
        }
        let pending = match side {
            Side::Client if self.client.attached => self.queue.back_mut(),
            Side::Server if self.server.attached => self.queue.front_mut(),
            _ => None,
        };
        if let Some(pending) = pending {
            if side == Side::Client {
                pending.holds_body = false;
            }
            if taken.broken {
                self.doubt.refute();
                let error = if side == Side::Client { "malformed_request" } else { "malformed_response" };
                pending.call.error.get_or_insert(error);
            }
        }
        if taken.whole {
            self.finish(side, out);
        }
        taken.wire
    }

    pub(super) fn read(&mut self, chunk: Chunk<'_>, out: &mut Vec<Call>) -> Step {
        let side = chunk.side;
        let mut rest = chunk.bytes;
        // Messages start where segments do, for all that is known where an end was not certain.
        let mut first = chunk.at != self.lane(side).heard_at;
        while !rest.is_empty() && !self.over {
            let done = chunk.bytes.len() - rest.len();
            let here = Stamp { at: chunk.at, seq: chunk.seq.wrapping_add(done as u32), by: chunk.by };
            if first && self.lane(side).tried && starts(side, rest) {
                self.lane(side).state = State::Head(None);
                self.lane(side).tried = false;
            }
            let took = match &mut self.lane(side).state {
                State::Head(_) => match self.head(side, rest, here, out) {
                    Headed::Took(took) => took,
                    Headed::Stop(why) => {
                        self.over = true;
                        return Step::Done(why);
                    }
                },
                State::Body(body) => {
                    let body = *body;
                    if first && self.restarts(side, body, rest) {
                        self.finish(side, out);
                        self.lane(side).state = State::Head(None);
                        self.lane(side).tried = !starts(side, rest);
                        0
                    } else if done == 0
                        && side == Side::Client
                        && self.refused()
                        && let Some(withheld) = Withheld::begin(body, rest, here)
                    {
                        self.client.state = State::Withheld(Box::new(withheld));
                        rest.len()
                    } else {
                        let took = self.body(side, Some(rest), 0, chunk.at, out);
                        self.pipelined |= self.unread;
                        took as usize
                    }
                }
                State::Withheld(_) => {
                    self.withheld(Chunk { bytes: rest, ..chunk }, out);
                    rest.len()
                }
                State::Behind(false) if first && rest.starts_with(b"\n") => 1,
                State::Behind(false) if first && rest.starts_with(b"\r\n") => 2,
                State::Behind(false) if first && begins(side, rest) => {
                    self.lane(side).state = State::Head(None);
                    self.lane(side).tried = true;
                    0
                }
                State::Resync | State::Behind(_) => {
                    if first && self.found(side, rest) {
                        self.lane(side).state = State::Head(None);
                        self.lane(side).tried = false;
                        0
                    } else if self.turns > TURNS {
                        self.over = true;
                        return Step::Done(NOT_HTTP);
                    } else {
                        self.left_out(side, rest);
                        rest.len()
                    }
                }
                State::Tunnel(used) => {
                    *used = true;
                    rest.len()
                }
                State::Prefix(left) => {
                    let some = (*left).min(rest.len() as u64);
                    *left -= some;
                    if *left == 0 {
                        self.lane(side).state = State::Head(None);
                    }
                    some as usize
                }
                State::Open(_) => match self.open(chunk, out) {
                    Ok(took) => took,
                    Err(step) => return step,
                },
            };
            // Empty lines before a message are no part of it.
            first &= rest.iter().take(took).all(|byte| matches!(byte, b'\r' | b'\n'));
            rest = rest.get(took..).unwrap_or_default();
        }
        Step::Continue
    }

    /// The connection's first bytes. `Err`: they were fed again, with this result.
    fn open(&mut self, chunk: Chunk<'_>, out: &mut Vec<Call>) -> Result<usize, Step> {
        let State::Open(seen) = &mut self.client.state else { return Ok(0) };
        let before = seen.len();
        let found = if before == 0 {
            proxy::prefix(chunk.bytes)
        } else {
            seen.extend_from_slice(chunk.bytes);
            proxy::prefix(seen)
        };
        match found {
            Prefix::Absent if before == 0 => {
                self.client.state = State::Head(None);
                Ok(0)
            }
            Prefix::Absent => {
                // The few bytes that were held back go first. Their time is a little late, their place is right.
                let held: Vec<u8> = seen.drain(..).take(before).collect();
                self.client.state = State::Head(None);
                let seq = chunk.seq.wrapping_sub(before as u32);
                match self.read(Chunk { seq, bytes: &held, ..chunk }, out) {
                    Step::Continue => Ok(0),
                    done @ Step::Done(_) => Err(done),
                }
            }
            Prefix::Of(len) => {
                self.claimed = proxy::source(if before == 0 { chunk.bytes } else { seen });
                self.client.state = State::Prefix((len - before) as u64);
                Ok(0)
            }
            Prefix::Unsure => {
                if before == 0 {
                    seen.extend_from_slice(chunk.bytes);
                }
                Ok(chunk.bytes.len())
            }
        }
    }

    /// Bytes pass that are not known to be of any message.
    fn left_out(&mut self, side: Side, bytes: &[u8]) {
        match side {
            // They may have been a request.
            Side::Client => {
                self.barrier = true;
                self.blind = true;
            }
            Side::Server => {
                self.unread |= self.queue.front().is_some_and(|front| !front.response_whole);
                self.doubt.refute();
            }
        }
        let lane = self.lane(side);
        lane.within = !bytes.ends_with(b"\n");
        match &mut lane.state {
            State::Behind(within) => *within = lane.within,
            // They may have been a head, whose body follows.
            _ => lane.within = true,
        }
    }

    /// Looks for a message's certain start, and counts a client's turns that are none.
    fn found(&mut self, side: Side, bytes: &[u8]) -> bool {
        match side {
            Side::Server => line::starts_response(bytes),
            Side::Client if !self.client.within && line::starts_request(bytes) => true,
            Side::Client => {
                if !self.proven && self.last_side == Some(Side::Server) {
                    self.turns += 1;
                }
                false
            }
        }
    }
}

impl Parser for Http1 {
    fn feed(&mut self, chunk: Chunk<'_>, out: &mut Vec<Call>) -> Step {
        if self.last_side != Some(chunk.side) {
            self.lane(chunk.side).within = false;
        }
        if chunk.side == Side::Client && self.last_side == Some(Side::Server) {
            self.turned(out);
        }
        let told = out.len();
        let step = self.read(chunk, out);
        self.doubt.take(out, told);
        self.lane(chunk.side).heard_at = chunk.at;
        self.last_at = chunk.at;
        self.last_side = Some(chunk.side);
        step
    }

    fn gap(&mut self, gap: Gap, out: &mut Vec<Call>) -> Step {
        let side = gap.side;
        let why = gap.lost.unwrap_or(BEYOND_WINDOW);
        if gap.lost == Some(MIDWAY) {
            self.doubt = Doubt::new(true);
        }
        let lane = self.lane(side);
        lane.within = gap.lost.is_none() && (lane.within || matches!(lane.state, State::Resync));
        if side == Side::Client {
            self.withheld_is_body(gap.at, out);
        }
        let mut left = gap.len;
        if left == 0 && gap.lost.is_some() {
            // An unknown number of bytes: whatever was being read, its end can't be told.
            if let State::Body(body) = &mut self.lane(side).state {
                *body = Body::Unknown(Tail::default());
                self.unread |= side == Side::Server && self.queue.len() > 1;
            } else {
                self.missed(side, 0, gap.at, why, out);
            }
        }
        while left > 0 && !self.over {
            left -= match &mut self.lane(side).state {
                State::Body(_) => {
                    let taken = self.body(side, None, left, gap.at, out);
                    // What was not kept of a segment is more of what it began with, which was no head.
                    self.pipelined |= self.unread && gap.lost.is_none();
                    self.answers_missed(side, self.queue.len().saturating_sub(1), why, out);
                    taken
                }
                State::Tunnel(used) => {
                    *used = true;
                    left
                }
                State::Prefix(prefix) if *prefix > left => {
                    *prefix -= left;
                    left
                }
                State::Prefix(_)
                | State::Open(_)
                | State::Head(_)
                | State::Withheld(_)
                | State::Resync
                | State::Behind(_) => {
                    self.missed(side, left, gap.at, why, out);
                    left
                }
            };
        }
        if gap.lost.is_none() {
            // What follows at the same time is the end of the same segment.
            self.lane(side).heard_at = gap.at;
        }
        self.last_at = gap.at;
        self.last_side = Some(side);
        Step::Continue
    }

    fn counts(&self, side: Side) -> u64 {
        let lane = if side == Side::Client { &self.client } else { &self.server };
        match &lane.state {
            State::Body(body) => body.counts(),
            State::Tunnel(_) => u64::MAX,
            _ => 0,
        }
    }

    fn close(&mut self, close: Close, at: u64, out: &mut Vec<Call>) {
        let told = out.len();
        if !self.over {
            self.ended(close, at, out);
        }
        self.doubt.take(out, told);
        match close {
            Close::Fin(_) => self.turned(out),
            _ => self.doubt.settle(out),
        }
    }

    fn tick(&mut self, now: u64, out: &mut Vec<Call>) {
        if now.saturating_sub(self.last_at) >= QUIET {
            let told = out.len();
            if !self.over {
                self.settle(out);
            }
            self.doubt.take(out, told);
            self.turned(out);
        }
    }

    fn busy(&self) -> bool {
        let head = |lane: &Lane| matches!(lane.state, State::Head(Some(_)));
        let over = self.over || (self.queue.is_empty() && !head(&self.client) && !head(&self.server));
        !over || self.doubt.waits()
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn malformed_contexts(&self) -> u64 {
        self.malformed_contexts
    }

    fn begun(&mut self) -> Vec<Begun> {
        std::mem::take(&mut self.begun)
    }
}
