//! Which outgoing call of a process belongs to which incoming one. A wrong parent is a bug, none is an answer with a
//! reason (`weir_chains_total`). Two things count as proof.
//!
//! **Carried ids.** An outgoing request names the very same trace context (or, without one, the same id of the request,
//! `proto::propagation`) as exactly one incoming request of the same process that is under way when it is sent, or was
//! answered within [`AFTERWARDS`] before. A context that no incoming request had was made by the application itself: then
//! the header says whose child it is. Left is the assumption that an id of 16 bytes or more that two requests share was
//! passed on, not made up twice.
//!
//! **The same thread.** A thread reads a request, sends others, reads their responses, and sends the answer, and takes no
//! other request in between (`weir_common::errand`, `agent-ebpf/src/errand.rs`). Where goroutines can be told apart
//! (below), they count as threads. It does not count for
//! - a thread that reads its request from a non-blocking socket: it may have others to wait for. So do nginx, Node,
//!   asyncio, gevent, Netty, tokio; and servers of a thread for each connection that have time limits for reads;
//! - a socket that anything else waits on while it is read;
//! - a thread that ever read a non-blocking socket on which an epoll instance waited, used `io_uring`, or took a request
//!   while another of its was not answered: it serves many at once;
//! - an answer that another thread sends, and calls that another thread makes: thread pools that hand over;
//! - calls whose response the thread has not begun to read when it answers: what is sent and forgotten, or by a timer;
//! - pipelined requests, and what is sent after the answer began.
//!
//! Left is the assumption that a thread which reads a request in a way that may block works for that request alone until
//! it answers. What would break it: a program that waits with `poll` or `select` for several connections, reads them in
//! blocking mode all the same, and has timers of its own that call others, until it first takes two requests at a time;
//! and bytes that TCP held back and that the call of another thread on the same socket pushed out.
//!
//! **Goroutines.** A Go program's thread that reads or sends runs the goroutine that its thread-local variable names. The
//! one that `net/http` starts for a connection (it began at `go c.serve(ctx)`, as its `startpc` says) serves that one only,
//! so that what it does between a request and the answer is for that request. Its HTTP client lets another goroutine
//! write: `persistConn.roundTrip`, on which there is a probe, has the connection to itself until it is answered, so the
//! next request on the socket of that connection is the one of the goroutine that called it. It does not count for calls
//! of goroutines that a handler starts, and of those to which it hands work over: they may work for several requests, as
//! pools and batches do that the first request starts; nor for handlers under `http.TimeoutHandler`, and other servers
//! than `net/http`'s. Left is the assumption that offsets in the runtime's structures are those of its version.
//!
//! **Waiting.** A call is told when its parent is settled: with the thread as proof, when the answer has been sent, at most
//! [`PATIENCE`] after its own end; and at most [`MOST`] wait at a time. What is late goes without a parent.
//!
//! **Trace ids.** A call that gets a parent takes the parent's trace id. Where its other end is observed by the same
//! agent, that end does too, and so on down the chain. Another node computes its ids from the wire, which no header tells
//! about the chain: there the call keeps a span link to the span at the other end, in that span's own trace. Where that
//! node is known to have an agent (`hosts`), whose span is the call's child, the call stays in the trace of the wire, and
//! its parent is a link.

mod held;
mod incoming;
mod memory;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use weir_common::errand::{Doubt, Errand};

use self::held::{Held, Id, Wait, Waiting};
use self::incoming::{Found, Incoming};
use self::memory::Memory;
use super::exchange;
use crate::meter::{Count, Meter};
use crate::model::{Exchange, Http, Kind, Link, Operation};
use crate::proto::Begun;

/// How long after its answer a request may still be the parent of a call that carries its ids, nanoseconds.
const AFTERWARDS: u64 = 1_000_000_000;
/// How long a call waits for its parent after it ended, nanoseconds.
const PATIENCE: u64 = 10_000_000_000;
/// Calls that wait at a time; the one that waits longest goes on for a new one.
const MOST: usize = 8192;
/// Calls of which something is remembered, of each kind.
const REMEMBERED: usize = 16_384;
/// How long carried ids prove nothing after records were lost, nanoseconds: how long a request may be under way that was
/// not seen.
const DOUBT: u64 = 60_000_000_000;

type Span = [u8; 8];
type Trace = [u8; 16];

/// What a worker noticed between two calls.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    /// A process took a request that has ids which it may pass on.
    Begun {
        /// Span of the call.
        span: Span,
        /// The process.
        tgid: u32,
        /// When, and which ids.
        begun: Begun,
    },
    /// A thread on an errand sent a request.
    Asked {
        /// Span of the call.
        span: Span,
        /// When.
        at: u64,
    },
    /// Records were lost: requests may be under way of which nothing is known.
    Lost {
        /// The process that has taken them.
        tgid: u32,
        /// When that was noticed.
        at: u64,
    },
}

/// Joins calls. Takes them in the order in which they ended, with what was noticed in between.
#[derive(Debug)]
pub struct Chains {
    on: bool,
    meter: Arc<Meter>,
    incoming: Incoming,
    /// Calls on an errand that have not ended; only they may get a parent by it.
    asked: Memory<Span, (), REMEMBERED>,
    /// Trace ids of clients' calls that were told, for the other end if that ends later.
    settled: Memory<Span, Trace, REMEMBERED>,
    /// Clients' calls that have not ended and whose other end was told already, under the ids of the wire.
    given_up: Memory<Span, (), REMEMBERED>,
    held: Held,
}

/// What is known of a call's parent.
enum Parent {
    None(Count),
    /// This span, whose trace id may still change.
    Is(Span, Option<Trace>),
    /// Whoever answers what began this errand.
    OnErrand(Wait),
}

impl Chains {
    /// `on`: it joins calls; what the kernel half must tell for that is told.
    #[must_use]
    pub fn new(on: bool, meter: Arc<Meter>) -> Self {
        Self {
            on,
            meter,
            incoming: Incoming::default(),
            asked: Memory::default(),
            settled: Memory::default(),
            given_up: Memory::default(),
            held: Held::default(),
        }
    }

    /// Turns it on or off; what waits goes on without a parent when it is turned off.
    pub fn set(&mut self, on: bool, out: &mut Vec<Arc<Exchange>>) {
        if self.on != on {
            self.finish(out);
            *self = Self::new(on, Arc::clone(&self.meter));
        }
    }

    /// Takes what was noticed.
    pub fn note(&mut self, note: Note) {
        if !self.on {
            return;
        }
        match note {
            Note::Begun { span, tgid, begun } => self.incoming.begun(span, tgid, &begun),
            Note::Asked { span, at } => {
                // One that does not fit gets no parent.
                self.asked.insert_if_room(span, (), at);
            }
            Note::Lost { tgid, at } => self.incoming.doubt(tgid, at),
        }
    }

    /// Takes a call that ended; gives it back now or later.
    pub fn take(&mut self, call: Arc<Exchange>, out: &mut Vec<Arc<Exchange>>) {
        match call.kind {
            _ if !self.on => out.push(call),
            Kind::Client => self.sent(call, out),
            Kind::Server => self.answered(call, out),
        }
    }

    /// Time passes. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub fn tick(&mut self, now: u64, out: &mut Vec<Arc<Exchange>>) {
        while let Some(id) = self.held.due(now) {
            self.give_up(id, Count::ChainLate, out);
        }
        self.incoming.forget(now);
        // Longer than any call waits.
        let before = now.saturating_sub(DOUBT);
        self.settled.forget(before);
        self.given_up.forget(before);
        self.asked.forget(now.saturating_sub(5 * DOUBT));
    }

    /// Gives back all that waits, without parents.
    pub fn finish(&mut self, out: &mut Vec<Arc<Exchange>>) {
        while let Some(id) = self.held.oldest() {
            self.give_up(id, Count::ChainLate, out);
        }
    }

    /// A call that this node's process made.
    fn sent(&mut self, mut call: Arc<Exchange>, out: &mut Vec<Arc<Exchange>>) {
        let asked = self.asked.remove(&call.ids.span).is_some();
        let parent = if self.given_up.remove(&call.ids.span).is_some() {
            Parent::None(Count::ChainLate)
        } else {
            self.parent(&call, asked)
        };
        match parent {
            Parent::None(why) => {
                if matches!(why, Count::ChainSeveral | Count::ChainEnded | Count::ChainLost | Count::ChainNew) {
                    // What its header names is, or may be, the parent of its parent.
                    Arc::make_mut(&mut call).ids.parent = None;
                }
                self.meter.add(why, 1);
                self.release(call, out);
            }
            Parent::Is(span, trace) => {
                let own = Arc::make_mut(&mut call);
                own.ids.parent = Some(span);
                match trace {
                    Some(trace) => {
                        join(own, trace);
                        self.meter.add(Count::ChainCarried, 1);
                        self.release(call, out);
                    }
                    None => self.hold(call, Wait::Call(span), Count::ChainCarried, out),
                }
            }
            Parent::OnErrand(wait) => {
                let proof = proof(&call);
                self.hold(call, wait, proof, out);
            }
        }
    }

    /// Looks for proof. `asked`: its errand was told in time.
    fn parent(&self, call: &Exchange, asked: bool) -> Parent {
        let by = call.call.request.first.by;
        let Operation::Http(Http { context, request_id, .. }) = &call.call.operation;
        // Who sent it is not certain, or what its process had taken.
        let unsure = by.tgid == 0 || matches!(by.errand.doubt(), Doubt::NEW | Doubt::UNKNOWN);
        let found = match incoming::key(*context, *request_id) {
            Some(key) if !unsure => self.incoming.find(by.tgid, key, &call.call),
            _ => Found::Nothing,
        };
        match found {
            Found::One(span, trace) => return Parent::Is(span, trace),
            Found::Several => return Parent::None(Count::ChainSeveral),
            Found::Doubt => return Parent::None(Count::ChainLost),
            Found::Ended if context.is_some() => return Parent::None(Count::ChainEnded),
            Found::Ended | Found::Nothing => {}
        }
        if by.errand == Errand::NONE {
            return Parent::None(Count::ChainNoRequest);
        }
        if context.is_some() {
            let own = if unsure { reason(by.errand.doubt()) } else { Count::ChainOwnSpan };
            return Parent::None(own);
        }
        if !by.errand.is_sure() {
            return Parent::None(reason(by.errand.doubt()));
        }
        if asked { Parent::OnErrand(Wait::Errand(by.tgid, by.errand.id())) } else { Parent::None(Count::ChainLost) }
    }

    /// A call that this node's process answered.
    fn answered(&mut self, mut call: Arc<Exchange>, out: &mut Vec<Arc<Exchange>>) {
        let span = call.ids.span;
        let Operation::Http(Http { context, request_id, .. }) = &call.call.operation;
        if context.is_some() || request_id.is_some() {
            let last = call.call.response.map_or(call.call.request.last_at, |response| response.last_at);
            self.incoming.ended(span, last);
        }
        let upstream = if context.is_some() { Upstream::Known } else { self.upstream(&call, request_id.is_some()) };
        let children = self.children(&call, out);
        match upstream {
            Upstream::Wait(client) => {
                for child in children {
                    let proof = proof(&child);
                    self.hold(child, Wait::Call(span), proof, out);
                }
                self.hold(call, Wait::Call(client), Count::ChainThread, out);
            }
            Upstream::Is(trace) => {
                Arc::make_mut(&mut call).ids.trace = trace;
                self.release_with(call, children, out);
            }
            Upstream::Known => self.release_with(call, children, out),
        }
    }

    /// Where the trace id of an answered call comes from.
    fn upstream(&self, call: &Exchange, has_id: bool) -> Upstream {
        let Some(client) = call.ids.parent.filter(|_| call.mirror.is_some()) else { return Upstream::Known };
        if let Some(trace) = self.settled.get(&client) {
            return Upstream::Is(*trace);
        }
        let may_change = has_id || self.asked.get(&client).is_some() || self.held.has(client);
        if may_change { Upstream::Wait(client) } else { Upstream::Known }
    }

    /// Calls that were made on the errand that this answer ends; those that it does not prove go on alone.
    fn children(&mut self, parent: &Exchange, out: &mut Vec<Arc<Exchange>>) -> Vec<Arc<Exchange>> {
        let Some(response) = parent.call.response else { return Vec::new() };
        let by = response.first.by;
        if by.errand.id() == 0 {
            return Vec::new();
        }
        let mut proven = Vec::new();
        for Waiting { mut call, .. } in self.held.take(&Wait::Errand(by.tgid, by.errand.id())) {
            let sent = call.call.request.first;
            let within = parent.call.request.first.at <= sent.at && sent.at < response.first.at;
            let why = match by.errand.doubt() {
                Doubt::NONE if parent.call.pipelined => Count::ChainPipelined,
                Doubt::NONE if !within => Count::ChainMixed,
                // A goroutine goes on in other threads, and others send for it.
                Doubt::NONE if sent.by.tid != by.tid && !by.errand.is_goroutine() => Count::ChainMixed,
                Doubt::NONE => {
                    Arc::make_mut(&mut call).ids.parent = Some(parent.ids.span);
                    proven.push(call);
                    continue;
                }
                doubt => reason(doubt),
            };
            self.meter.add(why, 1);
            self.release(call, out);
        }
        proven
    }

    fn hold(&mut self, call: Arc<Exchange>, wait: Wait, proof: Count, out: &mut Vec<Arc<Exchange>>) {
        while self.held.len() >= MOST
            && let Some(id) = self.held.oldest()
        {
            self.give_up(id, Count::ChainFull, out);
        }
        let last = call.call.response.map_or(call.call.request.last_at, |response| response.last_at);
        self.held.insert(Waiting { call, proof, deadline: last.saturating_add(PATIENCE) }, wait);
    }

    /// A call has waited long enough.
    fn give_up(&mut self, id: Id, why: Count, out: &mut Vec<Arc<Exchange>>) {
        let Some((mut call, wait)) = self.held.remove(id) else { return };
        if call.kind == Kind::Client {
            Arc::make_mut(&mut call).ids.parent = None;
            self.meter.add(why, 1);
        } else if let Wait::Call(client) = wait {
            // Both ends go on under the same trace id.
            if let Some(other) = self.held.id_of(client) {
                self.give_up(other, why, out);
                if let Some(trace) = self.settled.get(&client) {
                    Arc::make_mut(&mut call).ids.trace = *trace;
                }
            } else if self.asked.remove(&client).is_none() {
                self.given_up.insert(client, (), call.call.request.last_at);
            }
        }
        self.release(call, out);
    }

    fn release_with(&mut self, call: Arc<Exchange>, children: Vec<Arc<Exchange>>, out: &mut Vec<Arc<Exchange>>) {
        let trace = call.ids.trace;
        self.release(call, out);
        for mut child in children {
            join(Arc::make_mut(&mut child), trace);
            self.meter.add(proof(&child), 1);
            self.release(child, out);
        }
    }

    /// Gives a call back whose ids are final, then all that waited for it.
    fn release(&mut self, call: Arc<Exchange>, out: &mut Vec<Arc<Exchange>>) {
        let mut ready = Vec::new();
        let mut next = Some(call);
        while let Some(call) = next {
            let (span, trace) = (call.ids.span, call.ids.trace);
            let Operation::Http(Http { context, request_id, .. }) = &call.call.operation;
            match call.kind {
                Kind::Client if context.is_none() && (request_id.is_some() || !by_none(&call)) => {
                    self.settled.insert(span, trace, call.call.request.last_at);
                }
                Kind::Server if request_id.is_some() => self.incoming.settle(span, trace),
                Kind::Client | Kind::Server => {}
            }
            for Waiting { call: mut other, proof, .. } in self.held.take(&Wait::Call(span)) {
                join(Arc::make_mut(&mut other), trace);
                if other.kind == Kind::Client {
                    self.meter.add(proof, 1);
                }
                ready.push(other);
            }
            out.push(call);
            next = ready.pop();
        }
    }
}

/// Where an answered call's trace id comes from.
enum Upstream {
    /// It has its own.
    Known,
    /// The client's end of it, which was told already.
    Is(Trace),
    /// The client's end of it, which may still get a parent.
    Wait(Span),
}

/// What proves the parent of a call on an errand.
fn proof(call: &Exchange) -> Count {
    if call.call.request.first.by.errand.is_goroutine() { Count::ChainGoroutine } else { Count::ChainThread }
}

/// Its process takes no requests: nobody can wait for its ids.
fn by_none(call: &Exchange) -> bool {
    call.call.request.first.by.errand == Errand::NONE
}

/// The call belongs to this trace. Its other end does too, where it is observed here; else it can't know, and is linked.
/// Where another host's agent tells it as this call's child, both stay in the trace of the wire, and the parent is linked.
fn join(call: &mut Exchange, trace: Trace) {
    if call.ids.trace == trace {
        return;
    }
    if call.kind == Kind::Client && call.elsewhere {
        call.ids.link = call.ids.parent.take().map(|span| Link { trace, span });
        return;
    }
    if call.kind == Kind::Client && call.mirror.is_none() {
        call.ids.link = Some(exchange::far(call));
    }
    call.ids.trace = trace;
}

fn reason(doubt: Doubt) -> Count {
    match doubt {
        Doubt::NONE => Count::ChainNoRequest,
        Doubt::IDLE => Count::ChainIdle,
        Doubt::SHARED => Count::ChainShared,
        Doubt::FREE => Count::ChainFree,
        Doubt::LOOP => Count::ChainLoop,
        Doubt::MIXED => Count::ChainMixed,
        Doubt::OTHER => Count::ChainOther,
        Doubt::UNREAD => Count::ChainUnread,
        Doubt::NEW => Count::ChainNew,
        _ => Count::ChainUnknown,
    }
}
