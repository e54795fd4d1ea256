//! One request until it is taken, refused, or given up: retry with exponential back-off and jitter, as the OTLP
//! specification asks.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::{Ledger, Outcome};
use super::otlp::{Reply, Sender, Signal};
use super::settings::Retry;

/// An encoded request.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    /// The request's protobuf.
    pub(super) body: Bytes,
    /// Spans or data points in it.
    pub(super) items: u64,
}

/// When the exporter has to be done: nothing yet, or the end of its flush.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

/// Delivers the requests of one signal to one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    signal: Signal,
    sender: Sender,
    retry: Retry,
    ledger: Arc<Ledger>,
    stop: Stop,
    endpoint: Arc<Mutex<Endpoint>>,
}

/// What is known of the endpoint, shared by all requests under way.
#[derive(Debug, Default)]
struct Endpoint {
    /// The receiver asked for silence until then.
    silent_until: Option<Instant>,
    /// The last thing said about it in the log was a failure.
    failing: bool,
}

impl Delivery {
    pub(super) fn new(signal: Signal, sender: Sender, retry: Retry, ledger: Arc<Ledger>, stop: Stop) -> Self {
        Self { signal, sender, retry, ledger, stop, endpoint: Arc::default() }
    }

    /// Gives requests up after `time`, where that is earlier.
    pub(super) fn give_up_after(&mut self, time: Duration) {
        self.retry.give_up = self.retry.give_up.min(time);
    }

    /// Delivers a request and counts what became of its items.
    pub(super) async fn deliver(&self, payload: Payload) {
        let mut stop = self.stop.clone();
        let give_up = Instant::now() + self.retry.give_up;
        let mut wait = self.retry.initial;
        loop {
            if !self.hush(&mut stop, give_up).await {
                return self.lose(&payload, &stop);
            }
            let reply = tokio::select! {
                reply = self.sender.attempt(self.signal, payload.body.clone()) => reply,
                () = stopped(&mut stop) => return self.lose(&payload, &stop),
            };
            let after = match reply {
                Reply::Taken { rejected, message } => return self.taken(&payload, rejected, &message),
                Reply::Refused(why) => return self.refused(&payload, &why),
                Reply::Again { after, why } => {
                    self.failing(&why);
                    after
                }
            };
            if let Some(after) = after {
                // No longer than a request may take in all: a receiver that asks for years is asked again then.
                self.endpoint().silent_until = Some(Instant::now() + after.min(self.retry.give_up));
            }
            if !pause(Instant::now() + jitter(wait), &mut stop, give_up).await {
                return self.lose(&payload, &stop);
            }
            wait = (wait * 2).min(self.retry.max);
        }
    }

    /// Waits while the receiver has asked for silence; false when time is over before that.
    async fn hush(&self, stop: &mut Stop, give_up: Instant) -> bool {
        loop {
            let until = self.endpoint().silent_until;
            match until.filter(|until| *until > Instant::now()) {
                None => return true,
                Some(until) if !pause(until, stop, give_up).await => return false,
                Some(_) => {}
            }
        }
    }

    fn taken(&self, payload: &Payload, rejected: u64, message: &str) {
        let rejected = rejected.min(payload.items);
        self.ledger.add(self.signal, Outcome::Ok, payload.items - rejected);
        self.ledger.add(self.signal, Outcome::Rejected, rejected);
        if rejected > 0 || !message.is_empty() {
            let (signal, why) = (self.signal.as_str(), message);
            tracing::warn!(signal, rejected, why, "OTLP receiver took a request in part");
        }
        if std::mem::take(&mut self.endpoint().failing) {
            tracing::info!(signal = self.signal.as_str(), "OTLP receiver is back");
        }
    }

    fn refused(&self, payload: &Payload, why: &str) {
        self.ledger.add(self.signal, Outcome::Refused, payload.items);
        if !std::mem::replace(&mut self.endpoint().failing, true) {
            tracing::warn!(signal = self.signal.as_str(), items = payload.items, why, "OTLP receiver refuses");
        }
    }

    fn lose(&self, payload: &Payload, stop: &Stop) {
        let outcome = if over(stop) { Outcome::Stopped } else { Outcome::Expired };
        self.ledger.add(self.signal, outcome, payload.items);
    }

    /// Says a failure once, until the receiver is back.
    fn failing(&self, why: &str) {
        if !std::mem::replace(&mut self.endpoint().failing, true) {
            tracing::warn!(signal = self.signal.as_str(), why, "OTLP receiver can't be reached; trying again");
        }
    }

    fn endpoint(&self) -> std::sync::MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sleeps until `until`; false when the request's time or the flush at stop is over before that.
async fn pause(until: Instant, stop: &mut Stop, give_up: Instant) -> bool {
    tokio::select! {
        () = stopped(stop) => false,
        () = tokio::time::sleep_until(until.min(give_up)) => until <= give_up,
    }
}

/// Returns when the flush at stop is over.
async fn stopped(stop: &mut Stop) {
    loop {
        let deadline = *stop.borrow_and_update();
        tokio::select! {
            () = async { match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            } } => return,
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}

fn over(stop: &Stop) -> bool {
    stop.has_changed().is_err() || stop.borrow().is_some_and(|deadline| deadline <= Instant::now())
}

/// The wait times 0.5 to 1.5, so that agents which lost the same receiver don't come back as one.
fn jitter(wait: Duration) -> Duration {
    let random = RandomState::new().hash_one(wait) >> 11;
    wait.mul_f64(0.5 + random as f64 / (1_u64 << 53) as f64)
}
