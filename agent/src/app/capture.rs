//! The capturing thread: ring → flow → identity. It owns all three, so that process and connection records meet in the
//! order in which the kernel wrote them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use crate::clock::{self, Offset};
use crate::flow::{Output, Worker};
use crate::identity::{Counts, Resolver, Seen};
use crate::kernel::ring::Reader;
use crate::meter::{Count, Meter};
use crate::model::{Event, Exchange, OpenConnection, Role, Service, Thread};

/// How often what only time can end is looked at.
const TICK_NS: u64 = 100_000_000;
/// How often the offset of the wall clock is measured.
const CLOCK_NS: u64 = 1_000_000_000;

/// What others may ask of the capturing thread.
pub(super) enum Ask {
    /// Every live connection, with its owner's service.
    Connections(SyncSender<Vec<(OpenConnection, Arc<Service>)>>),
    /// Services seen, and what the resolver did.
    Services(SyncSender<(Vec<Seen>, Counts)>),
    /// New rules for names.
    Identity(crate::identity::Settings),
    /// Take what is left in the ring, end what is running, and stop.
    Stop,
}

/// What the capturing thread hands over.
pub(super) type Batch = Vec<Exchange>;

/// The capturing thread's own state.
pub(super) struct Capture {
    pub reader: Reader,
    pub worker: Worker,
    pub resolver: Resolver,
    pub meter: Arc<Meter>,
    pub clock: Arc<Offset>,
    pub asks: Receiver<Ask>,
    pub batches: SyncSender<Batch>,
}

impl Capture {
    /// Runs until told to stop, or until nobody can ask any more.
    pub(super) fn run(mut self) {
        let mut out = Output::default();
        if let Err(error) = self.resolver.look() {
            tracing::warn!(%error, "sockets older than the agent have no owner until they send");
        }
        let (mut ticked, mut measured) = (0, 0);
        loop {
            let records = self.drain(&mut out);
            let now = clock::monotonic_ns();
            if now.saturating_sub(ticked) >= TICK_NS {
                ticked = now;
                self.worker.tick(now, &mut out);
            }
            if now.saturating_sub(measured) >= CLOCK_NS {
                measured = now;
                self.clock.refresh();
            }
            self.hand_over(&mut out);
            let pause = if Reader::is_burst(records) { Duration::ZERO } else { self.reader.pause(records) };
            match self.asks.recv_timeout(pause) {
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(ask) => self.answer(ask),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        while self.drain(&mut out) > 0 {
            self.hand_over(&mut out);
        }
        self.worker.finish(clock::monotonic_ns(), &mut out);
        self.hand_over(&mut out);
    }

    fn drain(&mut self, out: &mut Output) -> usize {
        let Self { reader, worker, resolver, meter, .. } = self;
        let mut segments = 0;
        let records = reader.drain(meter, |event| {
            match &event {
                Event::Exec(exec, args) => resolver.exec(exec, args),
                Event::Exit(exit) => resolver.exit(exit),
                Event::Opened(opened) => return worker.event(Event::Opened(&resolver.opened(opened)), out),
                Event::Bytes(..) => segments += 1,
                Event::Pair(..) => segments += 2,
                Event::Closed(_) => {}
            }
            worker.event(event, out);
        });
        meter.add(Count::Delivered, segments);
        records
    }

    fn hand_over(&mut self, out: &mut Output) {
        out.ended.clear();
        if out.calls.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut out.calls);
        for exchange in &mut batch {
            self.resolver.name(exchange);
        }
        // Never waits: a judge that is behind costs calls, counted, and not the ring.
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.batches.try_send(batch) {
            self.meter.add(Count::LostQueue, batch.len() as u64);
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
                        let server = row.connection.role == Role::Server;
                        let service = self.resolver.end(&row.connection, Thread::default(), server, now);
                        (row, service)
                    })
                    .collect();
                let _ = to.try_send(rows);
            }
            Ask::Services(to) => {
                let _ = to.try_send((self.resolver.services().to_vec(), self.resolver.counts()));
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
