//! The judging thread: each call is redacted, kept, measured, exported and shown.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::blocks::Blocks;
use super::capture::Batch;
use super::instrumented::{Instruments, Told};
use crate::clock;
use crate::config::{Instrumented, Select, Settings};
use crate::export::{Exporter, Metrics};
use crate::graph::Graph;
use crate::meter::{Count, Meter};
use crate::model::{Exchange, Kind, Role, Verdict};
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
    pub bench: Arc<RwLock<Bench>>,
    pub recent: Arc<Recent>,
    pub metrics: Arc<Metrics>,
    pub graph: Arc<Mutex<Graph>>,
    pub blocks: Arc<Blocks>,
    pub meter: Arc<Meter>,
    pub instruments: Instruments,
    pub viewer: Option<Viewer>,
}

impl Judge {
    /// Runs until the capturing thread is gone and everything it handed over is judged.
    pub(super) fn run(mut self) {
        loop {
            match self.batches.recv_timeout(IDLE) {
                Ok(batch) => {
                    self.judge(batch);
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
        for (role, service) in batch.exporting {
            self.instruments.exports_by_grpc(role, &service);
        }
        let mut calls = Vec::with_capacity(batch.calls.len());
        // Only calls of which something else than their own span is exported, by their place.
        let mut told = Vec::new();
        for mut exchange in batch.calls {
            self.instruments.heed(&exchange);
            if !bench.select.is_everything() && !bench.select.takes(&exchange.service, server_port(&exchange)) {
                self.meter.add(Count::FilteredSelect, 1);
                continue;
            }
            if let Err(ignored) = bench.proxies.settle(&mut exchange) {
                let count = match ignored {
                    Ignored::Untrusted => Count::UntrustedForwarded,
                    Ignored::Unusable => Count::UnusableForwarded,
                    Ignored::Contradicting => Count::ContradictingForwarded,
                };
                self.meter.add(count, 1);
            }
            // Rules read what the redactor takes away.
            self.blocks.saw(&exchange);
            if exchange.verdict == Verdict::Allowed
                && let Some(verdict) = self.blocks.judge(&exchange)
            {
                exchange.verdict = verdict;
            }
            match self.instruments.told(&exchange, bench.instrumented) {
                Told::AsIs => {}
                other => told.push((calls.len(), other)),
            }
            bench.redactor.apply(&mut exchange);
            calls.push(Arc::new(exchange));
        }
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
        for call in calls {
            self.recent.insert(call);
        }
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
