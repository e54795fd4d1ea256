//! The judging thread: each call is redacted, kept, measured, exported and shown.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::capture::Batch;
use crate::model::Exchange;

/// Someone who wants every call as it comes (`--output live`).
pub type Viewer = Box<dyn FnMut(&Exchange) + Send>;

/// The judging thread's own state.
pub(super) struct Judge {
    pub batches: Receiver<Batch>,
    pub viewer: Option<Viewer>,
}

impl Judge {
    /// Runs until the capturing thread is gone and everything it handed over is judged.
    pub(super) fn run(mut self) {
        while let Ok(batch) = self.batches.recv() {
            for exchange in batch {
                let exchange = Arc::new(exchange);
                if let Some(viewer) = &mut self.viewer {
                    viewer(&exchange);
                }
            }
        }
    }
}
