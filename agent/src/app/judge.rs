//! The judging thread: each call is redacted, kept, measured, exported and shown.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::blocks::Blocks;
use super::capture::Batch;
use super::instrumented::{Instruments, Told};
use super::precedence::Precedence;
use crate::clock;
use crate::config::{Instrumented, Select, Settings};
use crate::export::{Exporter, Metrics};
use crate::graph::Graph;
use crate::meter::{Count, Meter};
use crate::model::{Exchange, Kind, Operation, Role, Verdict};
use crate::policy::meet::ambiguous;
use crate::policy::proxies::{Ignored, Proxies};
use crate::recent::Recent;
use crate::redact::Redactor;

/// Someone who wants every call as it comes (`--output live`).
pub type Viewer = Box<dyn FnMut(&Exchange) + Send>;

/// How often the viewer and the disk are given time when no call comes.
const IDLE: Duration = Duration::from_millis(500);

/// What a reload may change.
pub(super) struct Bench {
    pub redactor: Redactor,
    pub select: Select,
    pub proxies: Proxies,
    pub instrumented: Instrumented,
    pub exporter: Option<Arc<Exporter>>,
}

impl Bench {
    pub(super) fn new(settings: &Settings, redactor: Redactor, exporter: Option<Arc<Exporter>>) -> Self {
        Self {
            redactor,
            select: settings.select.clone(),
            proxies: settings.proxies.clone(),
            instrumented: settings.traces.instrumented,
            exporter,
        }
    }
}

/// The judging thread's own state.
pub(super) struct Judge {
    pub batches: Receiver<Batch>,
    /// Where calls go that were judged, to be used again.
    pub returns: SyncSender<Vec<Arc<Exchange>>>,
    pub bench: Arc<RwLock<Bench>>,
    pub recent: Arc<Recent>,
    pub metrics: Arc<Metrics>,
    pub graph: Arc<Mutex<Graph>>,
    pub blocks: Arc<Blocks>,
    pub meter: Arc<Meter>,
    pub instruments: Instruments,
    pub viewer: Option<Viewer>,
    pub precedence: Arc<Precedence>,
}

impl Judge {
    /// Runs until the capturing thread is gone and everything it handed over is judged.
    pub(super) fn run(mut self) {
        self.precedence.join();
        loop {
            match self.batches.recv_timeout(IDLE) {
                Ok(batch) => {
                    self.judge(batch);
                    self.precedence.judged();
                    self.alarm();
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.alarm();
                    self.graph.lock().unwrap_or_else(PoisonError::into_inner).tick(clock::monotonic_ns());
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.recent.flush();
    }

    /// Exports what the circuit breaker did.
    fn alarm(&self) {
        let alarms = self.blocks.alarms();
        let bench = self.bench.read().unwrap_or_else(PoisonError::into_inner);
        for (rule, why) in alarms {
            bench.exporter.iter().for_each(|exporter| exporter.alarm(&rule, &why));
        }
    }

    fn judge(&mut self, batch: Batch) {
        let bench = self.bench.read().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic_ns();
        for (role, service) in batch.exporting {
            self.instruments.exports_by_grpc(role, &service);
        }
        let mut calls = batch.calls;
        // Only calls of which something else than their own span is exported, by their place.
        let mut told = Vec::new();
        let mut place = 0;
        calls.retain_mut(|call| {
            let exchange = Arc::make_mut(call);
            self.instruments.heed(exchange);
            if !bench.select.is_everything() && !bench.select.takes(&exchange.service, server_port(exchange)) {
                self.meter.add(Count::FilteredSelect, 1);
                return false;
            }
            if let Err(ignored) = bench.proxies.settle(exchange) {
                let count = match ignored {
                    Ignored::Untrusted => Count::UntrustedForwarded,
                    Ignored::Unusable => Count::UnusableForwarded,
                    Ignored::Contradicting => Count::ContradictingForwarded,
                };
                self.meter.add(count, 1);
            }
            let Operation::Http(http) = &mut exchange.call.operation;
            http.unclear = http.sent.take().map_or(0, |head| ambiguous(&head));
            // Rules read what the redactor takes away.
            self.blocks.saw(exchange, now);
            if exchange.verdict == Verdict::Allowed
                && let Some(verdict) = self.blocks.judge(exchange)
            {
                exchange.verdict = verdict;
            }
            match self.instruments.told(exchange, bench.instrumented) {
                Told::AsIs => {}
                other => told.push((place, other)),
            }
            bench.redactor.apply(exchange);
            place += 1;
            true
        });
        let mut graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        for call in &calls {
            graph.call(call);
        }
        for ended in batch.ended {
            let port = match ended.connection.connection.role {
                Role::Client => ended.connection.connection.remote.port(),
                _ => ended.connection.connection.local.port(),
            };
            if bench.select.is_everything() || bench.select.takes(&ended.service, port) {
                graph.ended(&ended.connection, &ended.service, ended.peer.as_deref(), ended.unix_ns);
            }
        }
        drop(graph);
        self.metrics.record(&calls);
        if let Some(exporter) = &bench.exporter {
            if told.is_empty() {
                exporter.offer(&calls);
            } else {
                exporter.offer(&self.exported(&calls, &told));
            }
        }
        if let Some(viewer) = &mut self.viewer {
            for call in &calls {
                viewer(call);
            }
        }
        self.recent.keep(&calls);
        // Where enough wait already, these are freed.
        let _ = self.returns.try_send(calls);
    }
}

impl Judge {
    /// The calls as they are exported.
    fn exported(&self, calls: &[Arc<Exchange>], told: &[(usize, Told)]) -> Vec<Arc<Exchange>> {
        let mut told = told.iter().peekable();
        let mut left_out = 0;
        let exported = calls.iter().enumerate().filter_map(|(place, call)| {
            let how = told.next_if(|(at, _)| *at == place).map_or(Told::AsIs, |(_, how)| *how);
            let exported = how.apply(call);
            left_out += u64::from(exported.is_none());
            exported
        });
        let exported = exported.collect();
        self.meter.add(Count::ToldByApplication, left_out);
        exported
    }
}

/// TCP port of the server's end.
fn server_port(exchange: &Exchange) -> u16 {
    match exchange.kind {
        Kind::Client => exchange.connection.remote.port(),
        Kind::Server => exchange.connection.local.port(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use weir_common::judge::unclear;

    use super::*;
    use crate::model::Thread;
    use crate::proto::http1::Http1;
    use crate::proto::{Chunk, Parser as _, Side};

    const FIELDS: [&str; 18] = [
        "Host: a.test\r\n",
        "Host: b.test:80\r\n",
        "host:\t[::1]:8080 \r\n",
        "Host: u@a.test\r\n",
        "Host: a.test, b.test\r\n",
        "Host:\r\n",
        "Host : a.test\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 00\n",
        "Content-Length: +0\r\n",
        "Content-Length: 0, 0\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "X: a\r\n b\r\n",
        "no field\r\n",
        "User-Agent: x\r\n",
    ];

    proptest! {
        /// A head that is not kept whole is plain: reading it byte by byte, as the kernel half does, finds nothing else.
        #[test]
        fn what_is_not_kept_is_plain(
            line in select(vec!["GET / HTTP/1.1\r\n", "GET /a HTTP/1.0\n", "GET  / HTTP/1.1\r\n", "GET / HTTP/1.1 \r\n"]),
            fields in prop::collection::vec(select(FIELDS.to_vec()), 0..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let head = format!("{line}{}\r\n", fields.concat());
            let whole = ambiguous(head.as_bytes());
            for at in [0, cut.index(head.len())] {
                let (mut http, mut calls) = (Http1::new(false), Vec::new());
                let (first, rest) = head.as_bytes().split_at(at);
                for bytes in [first, rest].into_iter().filter(|bytes| !bytes.is_empty()) {
                    let chunk = Chunk { side: Side::Client, at: 1, seq: 1, bytes, by: Thread::default() };
                    http.feed(chunk, &mut calls);
                }
                http.close(crate::proto::Close::Gone, 2, &mut calls);
                prop_assert_eq!(calls.len(), 1);
                let Operation::Http(http) = &calls[0].operation;
                match &http.sent {
                    None => prop_assert_eq!(whole & !unclear::TARGET, 0, "{:?}", head),
                    Some(sent) => prop_assert_eq!(&**sent, head.as_bytes()),
                }
            }
        }
    }
}
