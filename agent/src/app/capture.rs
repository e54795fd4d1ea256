//! The capturing thread: ring → flow → identity. It owns all three, so that process and connection records meet in the
//! order in which the kernel wrote them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::time::Duration;

use crate::clock::{self, Offset};
use crate::flow::{Chains, Output, Worker};
use crate::identity::{Counts, Heard, Resolver, Seen, Sockets};
use crate::kernel::ring::Reader;
use crate::kernel::tables::Foreign;
use crate::meter::{Count, Meter};
use crate::model::{EndedConnection, Event, Exchange, OpenConnection, Role, Service, Thread};
use crate::proto::dns::{self, Nothing};

use weir_common::record::{Dns, Way};

use super::blocks::{Blocks, groups::Known};
use super::goroutines::Watch;
use super::older::Older;
use super::precedence::Precedence;
use super::refusals::Refusals;

/// How often what only time can end is looked at.
const TICK_NS: u64 = 100_000_000;
/// Calls that wait to be used again, below which more are taken: what a drain makes, and not more than is in a processor's
/// cache.
const SPARE: usize = 512;
/// How often the offset of the wall clock is measured.
const CLOCK_NS: u64 = 1_000_000_000;

/// A live connection with who is at its ends.
#[derive(Debug)]
pub struct Open {
    /// The connection.
    pub connection: OpenConnection,
    /// The service of its owner.
    pub service: Arc<Service>,
    /// Its other end, where it is proven.
    pub peer: Option<Arc<Service>>,
    /// It has none because several names could be meant.
    pub ambiguous: bool,
}

/// What others may ask of the capturing thread.
pub(super) enum Ask {
    /// Every live connection.
    Connections(SyncSender<Vec<Open>>),
    /// Whether it does its work.
    Alive(SyncSender<()>),
    /// Services seen, and what the resolver did.
    Services(SyncSender<(Vec<Seen>, Counts)>),
    /// Whether calls are joined inside processes.
    Chains(bool),
    /// New rules for names.
    Identity(crate::identity::Settings),
    /// Take what is left in the ring, end what is running, and stop.
    Stop,
}

/// A connection that ended without a call, with who was at its ends.
pub(super) struct Ended {
    pub connection: EndedConnection,
    pub service: Arc<Service>,
    pub peer: Option<Arc<Service>>,
    /// When it ended, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

/// What the capturing thread hands over.
#[derive(Default)]
pub(super) struct Batch {
    pub calls: Vec<Arc<Exchange>>,
    pub ended: Vec<Ended>,
    /// Who exports spans by gRPC (client), or takes such exports (server).
    pub exporting: Vec<(Role, Arc<Service>)>,
}

/// The capturing thread's own state.
pub(super) struct Capture {
    pub reader: Reader,
    pub foreign: Foreign,
    pub worker: Worker,
    pub chains: Chains,
    pub resolver: Resolver,
    pub meter: Arc<Meter>,
    pub clock: Arc<Offset>,
    pub asks: Receiver<Ask>,
    pub batches: SyncSender<Batch>,
    /// Calls that were judged.
    pub returned: Receiver<Vec<Arc<Exchange>>>,
    pub blocks: Arc<Blocks>,
    pub known: Known,
    pub refusals: Refusals,
    pub precedence: Arc<Precedence>,
    pub older: Arc<Older>,
    pub goroutines: Arc<Watch>,
}

impl Capture {
    /// Runs until told to stop, or until nobody can ask any more.
    pub(super) fn run(mut self) {
        self.precedence.join();
        let mut out = Output::default();
        let mut older = self.resolver.look().map_err(|error| self.older.tell(Err(error))).ok();
        let (mut ticked, mut measured) = (0, 0);
        loop {
            self.precedence.round();
            if self.resolver.hear() {
                self.known.renamed();
            }
            if out.spare.len() < SPARE
                && let Ok(calls) = self.returned.try_recv()
            {
                out.spare.extend(calls);
            }
            if let Some(found) = older.as_ref().and_then(arrived) {
                older = None;
                self.find(found);
            }
            let records = self.drain(&mut out);
            for cookie in out.foreign.drain(..) {
                // What the map refuses goes on being watched, as if nothing had been said.
                let _ = self.foreign.add(cookie);
            }
            let now = clock::monotonic_ns();
            if now.saturating_sub(ticked) >= TICK_NS {
                ticked = now;
                self.worker.tick(now, &mut out);
            }
            if now.saturating_sub(measured) >= CLOCK_NS {
                measured = now;
                self.clock.refresh();
            }
            self.hand_over(&mut out, now);
            let pause = if Reader::is_burst(records) { Duration::ZERO } else { self.reader.pause() };
            match self.asks.recv_timeout(pause) {
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(ask) => {
                    // What passed before it was asked is in the answer.
                    self.drain(&mut out);
                    self.answer(ask);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        while self.drain(&mut out) > 0 {
            self.hand_over(&mut out, clock::monotonic_ns());
        }
        self.worker.finish(clock::monotonic_ns(), &mut out);
        self.hand_over(&mut out, clock::monotonic_ns());
        let mut calls = Vec::new();
        self.chains.finish(&mut calls);
        self.send(Batch { calls, ..Batch::default() });
    }

    /// Takes what was found of sockets older than the agent.
    fn find(&mut self, found: io::Result<Sockets>) {
        let Self { resolver, worker, known, .. } = self;
        if let Ok(found) = &found {
            resolver.found(found);
            worker.correct(|connection| resolver.older(connection));
        }
        self.older.tell(found);
        // Rules that name identities hold for who was found, too.
        known.renamed();
    }

    fn drain(&mut self, out: &mut Output) -> usize {
        let Self { reader, worker, resolver, meter, clock, blocks, known, refusals, older, goroutines, .. } = self;
        if blocks.identities(known) {
            // Where no rule names an identity there is nobody to tell.
            let now = clock::monotonic_ns();
            let processes = if known.is_wanted() { resolver.processes(now) } else { Vec::new() };
            let listening = if known.is_wanted() { resolver.listening(now) } else { Vec::new() };
            for (pid, service) in processes {
                blocks.process(known, pid, &service);
            }
            for (place, service) in listening {
                blocks.listener(known, place, &service);
            }
            // Who asked for a rule waits until it holds for all that is there.
            if older.is_over() {
                blocks.told(known);
            }
        }
        let mut segments = 0;
        let records = reader.drain(meter, |event| {
            match &event {
                Event::Exec(exec, args) => {
                    resolver.exec(exec, args);
                    goroutines.exec(exec.owner.tgid);
                    if known.is_wanted()
                        && let Some(service) = resolver.process(exec.owner.tgid, exec.head.at)
                    {
                        blocks.process(known, exec.owner.tgid, &service);
                    }
                }
                Event::Exit(exit) => {
                    resolver.exit(exit);
                    goroutines.exit(exit.tgid);
                    blocks.gone(known, exit.tgid);
                }
                Event::Opened(opened) => {
                    let opened = resolver.opened(opened);
                    if known.is_wanted()
                        && let Some(service) = resolver.process(opened.owner.tgid, opened.head.at)
                    {
                        blocks.process(known, opened.owner.tgid, &service);
                    }
                    if resolver.is_ambiguous(opened.head.conn) {
                        meter.add(Count::AmbiguousName, 1);
                    }
                    return worker.event(Event::Opened(&opened), out);
                }
                Event::Dns(dns, message) => return heard(resolver, meter, dns, message),
                Event::Refused(told) => {
                    let mut told = **told;
                    let sends = told.role == weir_common::conn::Role::CLIENT.0;
                    let sender = sends.then(|| resolver.process(told.owner.tgid, told.head.at)).flatten();
                    if told.owner.tgid == 0 {
                        // Its network namespace is needed to end the connection.
                        told.owner.tgid = resolver.holds(told.head.conn).unwrap_or_default();
                    }
                    refusals.add(&told, blocks.refused(&told, clock.unix_ns(told.head.at), sender.as_deref()));
                }
                Event::Bytes(bytes, _) => {
                    segments += 1;
                    let by = Thread { tgid: bytes.tgid, tid: bytes.tid, ..Thread::default() };
                    resolver.sent(bytes.head.conn, by);
                }
                Event::Pair(..) => segments += 2,
                Event::Closed(_) | Event::Read(_) | Event::Asked(_) => {}
            }
            worker.event(event, out);
            if let Event::Closed(closed) = &event {
                refusals.end(closed.head.conn, out);
            }
        });
        meter.add(Count::Delivered, segments);
        records
    }

    fn hand_over(&mut self, out: &mut Output, now: u64) {
        // All at once: a batch that grows is copied again and again.
        let mut batch = Batch { calls: Vec::with_capacity(out.calls.len()), ..Batch::default() };
        let mut notes = out.notes.drain(..).peekable();
        for (at, mut call) in out.calls.drain(..).enumerate() {
            while let Some((_, note)) = notes.next_if(|(before, _)| *before <= at) {
                self.chains.note(note);
            }
            // Before it may have to wait: who is at its ends may be gone by then.
            let exchange = Arc::make_mut(&mut call);
            self.refusals.mark(exchange);
            self.resolver.name(exchange);
            self.chains.take(call, &mut batch.calls);
        }
        notes.for_each(|(_, note)| self.chains.note(note));
        self.chains.tick(now, &mut batch.calls);
        for connection in out.exporting.drain(..) {
            batch.exporting.push((connection.role, self.resolver.at_end_of(&connection, now)));
        }
        if batch.calls.is_empty() && out.ended.is_empty() && batch.exporting.is_empty() {
            return;
        }
        for connection in out.ended.drain(..) {
            let (ends, at) = (&connection.connection, connection.ended_at);
            if !connection.established {
                self.resolver.failed(ends);
            }
            let service = self.resolver.at_end_of(ends, at);
            let peer = self.resolver.peer(ends, connection.mirror.as_deref(), at);
            let unix_ns = self.clock.unix_ns(at);
            batch.ended.push(Ended { connection, service, peer, unix_ns });
        }
        self.send(batch);
    }

    fn send(&self, batch: Batch) {
        // Never waits: a judge that is behind costs calls, counted, and not the ring.
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.batches.try_send(batch) {
            self.meter.add(Count::LostQueue, batch.calls.len() as u64);
            self.meter.add(Count::LostConnection, (batch.ended.len() + batch.exporting.len()) as u64);
        } else {
            self.precedence.handed();
        }
    }

    fn answer(&mut self, ask: Ask) {
        // Who asked may have given up waiting: then nobody takes the answer.
        match ask {
            Ask::Connections(to) => {
                let now = clock::monotonic_ns();
                let rows = self.worker.snapshot().into_iter();
                let rows = rows
                    .map(|row| {
                        let service = self.resolver.at_end_of(&row.connection, now);
                        let peer = self.resolver.peer(&row.connection, row.mirror.as_deref(), now);
                        let ambiguous = peer.is_none() && self.resolver.is_ambiguous(row.connection.cookie);
                        Open { connection: row, service, peer, ambiguous }
                    })
                    .collect();
                let _ = to.try_send(rows);
            }
            Ask::Alive(to) => {
                let _ = to.try_send(());
            }
            Ask::Services(to) => {
                let _ = to.try_send((self.resolver.services().cloned().collect(), self.resolver.counts()));
            }
            Ask::Chains(on) => {
                let mut calls = Vec::new();
                self.chains.set(on, &mut calls);
                self.send(Batch { calls, ..Batch::default() });
            }
            Ask::Identity(settings) => {
                if let Err(error) = self.resolver.set(settings) {
                    tracing::error!(%error, "identity settings were refused");
                }
            }
            Ask::Stop => {}
        }
    }
}

/// What a look at sockets found, once it is over.
fn arrived(look: &Receiver<io::Result<Sockets>>) -> Option<io::Result<Sockets>> {
    match look.try_recv() {
        Ok(found) => Some(found),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the look ended early"))),
    }
}

/// Takes a DNS message along.
fn heard(resolver: &mut Resolver, meter: &Meter, dns: &Dns, message: &[u8]) {
    let told = if Way(dns.way) == Way::OUT {
        dns::question(message).map(|lookup| resolver.asked(dns, lookup))
    } else {
        dns::answer(message).map(|told| match resolver.answered(dns, &told) {
            Heard::Kept => {}
            Heard::Unasked => meter.add(Count::UnaskedDns, 1),
            Heard::Full => meter.add(Count::RefusedDns, 1),
        })
    };
    if told == Err(Nothing::Malformed) {
        meter.add(Count::MalformedDns, 1);
    }
}
