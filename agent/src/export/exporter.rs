//! The OTLP exporter: spans in batches, metrics at an interval. Whatever the receiver does, what waits is bounded and
//! the one who offers never waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::delivery::{Delivery, Payload, Stop};
use super::ledger::{Ledger, Outcome};
use super::metrics::Metrics;
use super::otlp::{EndpointError, Sender, Signal};
use super::queue::{LeftOut, Queue};
use super::sample::Sampler;
use super::settings::{Endpoint, Node, Settings, Temporality};
use super::{logs, points, spans};
use crate::model::Exchange;

/// Bytes of log records that may wait, where the queue for spans may hold more: what rules meet is little.
const LOGS: u64 = 4 << 20;
/// Alarms under way at once.
const ALARMS: usize = 64;

/// Makes a request of a batch; the last is the sampler's trace state.
type Encode = fn(&[Arc<Exchange>], &Node, &str) -> Bytes;

/// A running exporter. Dropping it without [`Exporter::stop`] ends it at once; what waits is then lost uncounted.
#[derive(Debug)]
pub struct Exporter {
    traces: Option<Arc<Queue>>,
    logs: Option<Arc<Queue>>,
    alarms: Option<(Delivery, Arc<Settings>)>,
    sampler: Sampler,
    ledger: Arc<Ledger>,
    stop: watch::Sender<Option<Instant>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    runtime: Handle,
}

impl Exporter {
    /// Starts the tasks of an exporter; must be called within a tokio runtime. Nothing is sent before there is
    /// something to send, so an unreachable receiver is no error here.
    ///
    /// `metrics` and `ledger` outlive it: a reload starts a new exporter with the same ones.
    pub fn start(settings: &Settings, metrics: &Arc<Metrics>, ledger: Arc<Ledger>) -> Result<Self, EndpointError> {
        let (stop, stopping) = watch::channel(None);
        let sampler = Sampler::new(settings.sample);
        let settings = Arc::new(settings.clone());
        let delivery = |signal, endpoint: &Endpoint| -> Result<Delivery, EndpointError> {
            let sender = Sender::new(endpoint)?;
            Ok(Delivery::new(signal, sender, settings.retry, Arc::clone(&ledger), stopping.clone()))
        };
        let mut tasks = Vec::new();
        let mut queued = |signal, endpoint: &Option<Endpoint>, bytes, encode: Encode| -> Result<_, EndpointError> {
            let Some(endpoint) = endpoint else { return Ok(None) };
            let delivery = delivery(signal, endpoint)?;
            let queue = Arc::new(Queue::new(bytes, settings.batch));
            let (state, settings, stop) = (sampler.trace_state(), Arc::clone(&settings), stopping.clone());
            tasks.push(tokio::spawn(batches(Arc::clone(&queue), settings, state, encode, delivery, stop)));
            Ok(Some(queue))
        };
        let traces = queued(Signal::Traces, &settings.traces, settings.queue, spans::encode)?;
        let logs = queued(Signal::Logs, &settings.logs, settings.queue.min(LOGS), logs::encode)?;
        let alarms = settings.logs.as_ref().map(|endpoint| delivery(Signal::Logs, endpoint)).transpose()?;
        let alarms = alarms.map(|delivery| (delivery, Arc::clone(&settings)));
        if let Some(endpoint) = &settings.metrics {
            let mut delivery = delivery(Signal::Metrics, endpoint)?;
            if settings.temporality == Temporality::Cumulative {
                // The next reading says all that this one does.
                delivery.give_up_after(settings.interval);
            }
            tasks.push(tokio::spawn(readings(Arc::clone(metrics), Arc::clone(&settings), delivery, stopping.clone())));
        }
        if settings.traces.is_some() {
            metrics.sample(sampler);
        }
        Ok(Self { traces, logs, alarms, runtime: Handle::current(), sampler, ledger, stop, tasks: Mutex::new(tasks) })
    }

    /// Offers calls for export as spans. Never waits: what the queue has no room for is counted as `queue_full`.
    pub fn offer(&self, calls: &[Arc<Exchange>]) {
        if let Some(queue) = &self.logs {
            let (outcome, left_out) = counted(&queue.offer(calls.iter().filter(|call| logs::is_told(call))));
            self.ledger.add(Signal::Logs, outcome, left_out);
        }
        let Some(queue) = &self.traces else { return };
        let mut unsampled = 0;
        let sampled = calls.iter().filter(|call| {
            let kept = self.sampler.keeps(&call.ids.trace);
            unsampled += u64::from(!kept);
            kept
        });
        let (outcome, left_out) = counted(&queue.offer(sampled));
        self.ledger.add(Signal::Traces, outcome, left_out);
        self.ledger.add(Signal::Traces, Outcome::Unsampled, unsampled);
    }

    /// Sends a log record that says that the circuit breaker put a rule back to monitor mode, and why. Never waits; more
    /// than [`ALARMS`] at once are counted as `queue_full`.
    pub fn alarm(&self, rule: &str, why: &str) {
        let Some((delivery, settings)) = &self.alarms else { return };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        if tasks.len() >= ALARMS {
            return self.ledger.add(Signal::Logs, Outcome::QueueFull, 1);
        }
        let (body, delivery) = (logs::alarm(rule, why, &settings.node), delivery.clone());
        tasks.push(self.runtime.spawn(async move { delivery.deliver(Payload { body, items: 1 }).await }));
    }

    /// Sends what waits, for `flush` at most, and ends. What could not be delivered is counted as `stopped`.
    /// What is offered afterwards is counted as `stopped`, too.
    pub async fn stop(&self, flush: Duration) {
        for queue in self.traces.iter().chain(&self.logs) {
            queue.close();
        }
        self.stop.send_replace(Some(Instant::now() + flush));
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "an OTLP export task ended early");
            }
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

fn counted(left_out: &LeftOut) -> (Outcome, u64) {
    match left_out {
        LeftOut::Full(n) => (Outcome::QueueFull, *n),
        LeftOut::Closed(n) => (Outcome::Stopped, *n),
    }
}

/// Takes batches from the queue and delivers several at a time, so that one slow answer does not hold up the rest.
async fn batches(
    queue: Arc<Queue>,
    settings: Arc<Settings>,
    trace_state: String,
    encode: Encode,
    delivery: Delivery,
    mut stop: Stop,
) {
    let room = Arc::new(Semaphore::new(settings.in_flight.max(1)));
    let mut under_way = JoinSet::new();
    let trace_state: Arc<str> = trace_state.into();
    let mut stopping = false;
    loop {
        if !stopping {
            tokio::select! {
                () = queue.ready() => {}
                () = tokio::time::sleep(settings.delay) => {}
                _ = stop.changed() => stopping = true,
            }
        }
        // Room first, then the batch: what can't be sent yet stays in the queue, where it is bounded.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while under_way.try_join_next().is_some() {}
        let batch = queue.take();
        if batch.is_empty() {
            if stopping {
                break;
            }
            continue;
        }
        let (settings, trace_state, delivery) = (Arc::clone(&settings), Arc::clone(&trace_state), delivery.clone());
        under_way.spawn(async move {
            let items = batch.len() as u64;
            let body = encode(&batch, &settings.node, &trace_state);
            drop(batch);
            delivery.deliver(Payload { body, items }).await;
            drop(permit);
        });
    }
    while under_way.join_next().await.is_some() {}
}

/// Reads the metrics at an interval and delivers them.
async fn readings(metrics: Arc<Metrics>, settings: Arc<Settings>, delivery: Delivery, mut stop: Stop) {
    let mut ticks = tokio::time::interval(settings.interval.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    loop {
        let stopping = tokio::select! {
            _ = ticks.tick() => false,
            _ = stop.changed() => true,
        };
        for payload in points::requests(&metrics, &settings.node, settings.temporality) {
            delivery.deliver(payload).await;
        }
        if stopping {
            return;
        }
    }
}
