//! The node's mode: whether the kernel half carries rules out.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use weir_common::verdict::GateSlot;

use super::gate::Kernel;
use super::{Blocks, Book, Refused};
use crate::app::precedence::Precedence;
use crate::config;
use crate::kernel::gate::GateError;
use crate::kernel::load::Half;
use crate::policy::rule::Mode;

/// The gate's counters, as they are told.
const COUNTS: [(&str, GateSlot); 10] = [
    ("connections_saved", GateSlot::ALLOWED),
    ("connections_refused", GateSlot::REFUSED),
    ("requests_ambiguous", GateSlot::AMBIGUOUS),
    ("segments_early", GateSlot::EARLY),
    ("segments_busy", GateSlot::BUSY),
    ("segments_unread", GateSlot::UNREAD),
    ("segments_damaged", GateSlot::DAMAGED),
    ("connections_unjudged", GateSlot::NO_STORAGE),
    ("verdicts_lost", GateSlot::LOST),
    ("limit_keys", GateSlot::KEYS),
];

impl Blocks {
    /// Takes the kernel half, and enforces where the configuration asks for it. A gate that is refused is said: the
    /// agent watches on.
    pub(in crate::app) fn take(&self, half: Arc<Mutex<Half>>, precedence: Arc<Precedence>, mode: config::Mode) {
        let mode = Mode::from(mode);
        self.in_force.has_kernel(Kernel::new(half, precedence));
        let ready = self.ready(mode);
        let mut book = self.book();
        book.configured = mode;
        if let Err(error) = self.turn(&mut book, "config", mode, ready) {
            tracing::error!(%error, "enforce.mode: the node stays in monitor mode, nothing is dropped");
        }
        self.note(&book);
    }

    /// The node's mode, and calls that the allow-list saved.
    pub(in crate::app) fn mode(&self) -> Value {
        let book = self.book();
        let kernel = book.kernel();
        let allowed = match kernel {
            Some(kernel) => kernel.look(|gate| book.allowed().rows(|prefix| gate.saved(prefix.bytes, prefix.len))),
            None => book.allowed().rows(|_| 0),
        };
        let mut told = json!({
            "mode": book.set().mode().as_str(), "rules": book.set().rules().len(), "allow_list": allowed,
        });
        if let Some(kernel) = kernel {
            let counts =
                kernel.look(|gate| COUNTS.map(|(name, slot)| (name.to_owned(), Value::from(gate.count(slot)))));
            told["gate"] = Value::Object(counts.into_iter().collect());
        }
        told
    }

    /// Sets the node's mode in the name of `who`.
    pub(in crate::app) fn set_mode(&self, who: &str, word: &str) -> Result<Value, Refused> {
        let mode = match word {
            "monitor" => Mode::Monitor,
            "enforce" => Mode::Enforce,
            other => return Err(Refused::Mode(other.chars().take(40).collect())),
        };
        let ready = self.ready(mode);
        {
            let mut book = self.book();
            self.turn(&mut book, who, mode, ready)?;
            self.note(&book);
        }
        Ok(self.mode())
    }

    /// Loads the gate's programs where they will be needed. To be called without the book: it takes seconds on a busy node,
    /// and all that ask for changes would wait.
    pub(super) fn ready(&self, mode: Mode) -> Result<(), GateError> {
        match self.in_force.kernel() {
            Some(kernel) if mode == Mode::Enforce => kernel.load(),
            _ => Ok(()),
        }
    }

    /// Sets the mode and records it, or does neither. `ready`: what [`Self::ready`] gave.
    pub(super) fn turn(
        &self,
        book: &mut Book,
        who: &str,
        mode: Mode,
        ready: Result<(), GateError>,
    ) -> Result<(), Refused> {
        let before = book.set().mode();
        if mode == before {
            return Ok(());
        }
        if let Err(error) = book.log.write(who, "mode", None, "", before.as_str().into(), mode.as_str().into()) {
            // The way out is open also where the disk is full: it is said where it can be.
            if mode == Mode::Enforce {
                return Err(error.into());
            }
            tracing::warn!(%error, who, "the node goes back to monitor mode all the same");
        }
        if let Err(refused) = book.set_mode(mode, ready) {
            let now = book.set().mode().as_str();
            book.log.write("weir", "mode", None, &refused.to_string(), mode.as_str().into(), now.into())?;
            return Err(refused);
        }
        self.note(book);
        Ok(())
    }
}

impl From<config::Mode> for Mode {
    fn from(mode: config::Mode) -> Self {
        match mode {
            config::Mode::Monitor => Self::Monitor,
            config::Mode::Enforce => Self::Enforce,
        }
    }
}
