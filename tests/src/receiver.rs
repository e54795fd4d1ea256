//! An OTLP receiver over HTTP that answers as badly as a test wants.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::wire::{Message, Server};

/// What it does with a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Waits so long.
    pub after: Duration,
    /// Status line's code.
    pub status: u16,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u32>,
}

impl Answer {
    /// 200 at once.
    pub const TAKEN: Self = Self { after: Duration::ZERO, status: 200, retry_after: None };
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it was whole.
    pub at: Instant,
    /// What it was.
    pub message: Message,
    /// What it was answered.
    pub status: u16,
}

/// The running receiver.
#[derive(Debug)]
pub struct Receiver {
    server: Server,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// Starts it; `answer` gets the serial of the request for traces, from 0.
    pub fn start(answer: impl Fn(usize) -> Answer + Clone + Send + 'static) -> Result<Self> {
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let list = Arc::clone(&received);
        let server = Server::start(move |mut wire| {
            while let Some(message) = wire.request()? {
                let at = Instant::now();
                let traces = message.start().contains("/v1/traces");
                let mut reply = Answer::TAKEN;
                {
                    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
                    if traces {
                        let serial =
                            list.iter().filter(|received| received.message.start().contains("/v1/traces")).count();
                        reply = answer(serial);
                    }
                    list.push(Received { at, message, status: reply.status });
                }
                std::thread::sleep(reply.after);
                let retry = reply.retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
                let head =
                    format!("HTTP/1.1 {} Answer\r\n{retry}Content-Type: application/x-protobuf\r\n", reply.status);
                if wire.send(format!("{head}Content-Length: 0\r\n\r\n")).is_err() {
                    // Whoever asked has given up waiting.
                    return Ok(());
                }
            }
            Ok(())
        })?;
        Ok(Self { server, received })
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Requests for traces so far.
    #[must_use]
    pub fn traces(&self) -> Vec<Received> {
        let list = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter(|received| received.message.start().contains("/v1/traces")).cloned().collect()
    }
}
