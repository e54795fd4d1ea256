//! The control socket: HTTP/1.1 and JSON on a unix socket, so that `curl --unix-socket` works.
//!
//! `server` asks a [`Backend`] and tells in the shapes of [`crate::model::json`] and [`rows`]; `client` is how the verbs ask.

mod body;
pub mod client;
mod places;
mod routes;
pub mod rows;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use server::Server;
pub use socket::{Error, Holder};

use serde_json::Value;

use crate::model::{Endpoint, Exchange, Filter};
use rows::{ConnectionRow, ServiceRow};

/// Group whose members may read, where it exists.
pub const GROUP: &str = "weir";

/// What came since a place in the order of calls.
#[derive(Debug, Default)]
pub struct News {
    /// Calls that fit, oldest first.
    pub calls: Vec<Arc<Exchange>>,
    /// Where to go on.
    pub next: u64,
    /// Calls that left the store before they were told.
    pub missed: u64,
}

/// The part of the agent that was asked does not answer; the text says which and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// How the graph is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line an edge.
    Text,
    /// One document, as CONTRACT has it.
    Json,
    /// Graphviz.
    Dot,
    /// Mermaid flowchart.
    Mermaid,
}

/// A change of drop decisions.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A rule as written.
    Add(Value),
    /// What a rule would have met; nothing is changed.
    Rehearse(Value),
    /// The rule with this id goes.
    Remove(String),
    /// The node's mode.
    Mode(String),
}

/// A change that was refused; nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotMade {
    /// There is no such rule.
    pub unknown: bool,
    /// Why.
    pub why: String,
    /// The key at fault, where it is one.
    pub field: Option<String>,
}

/// What the server asks. Every method may wait, for a second at most: it is called on a thread where that is allowed.
pub trait Backend: Send + Sync + 'static {
    /// Up to `last` calls that fit and came before a place, newest first.
    fn before(&self, place: u64, filter: &Filter, last: usize) -> Vec<Arc<Exchange>>;
    /// Where the order of calls ends now.
    fn end(&self) -> u64;
    /// Calls since a place, a bounded number of them.
    fn since(&self, place: u64, filter: &Filter) -> News;
    /// Every live connection.
    fn connections(&self) -> Result<Vec<ConnectionRow>, Unavailable>;
    /// Every service that was seen.
    fn services(&self) -> Result<Vec<ServiceRow>, Unavailable>;
    /// Every method and route of every service, with counts.
    fn endpoints(&self) -> Vec<Endpoint>;
    /// The dependency graph; with `since` (nanoseconds since the Unix epoch), edges used after it; as text into `width`
    /// columns.
    fn graph(&self, form: Form, since: Option<u64>, width: Option<usize>) -> Result<String, Unavailable>;
    /// The ledger and what the agent uses: `weir stats --json`.
    fn stats(&self) -> Result<Value, Unavailable>;
    /// What this node can do and what runs: `weir doctor --json`.
    fn doctor(&self) -> Result<Value, Unavailable>;
    /// Every drop rule, with what it met.
    fn blocks(&self) -> Vec<Value>;
    /// A drop rule, what it would have met of the kept calls, and which rules win over it.
    fn explain(&self, id: &str) -> Result<Value, NotMade>;
    /// The node's mode and its allow-list.
    fn mode(&self) -> Value;
    /// Changes drop decisions in the name of `who`; `pid`: the process that asks.
    fn change(&self, who: &str, pid: Option<u32>, change: Change) -> Result<Value, NotMade>;
    /// Reads the configuration again: what else is to be said, a line each, or why it was refused whole.
    /// In the name of `who`.
    fn reload(&self, who: &str) -> Result<Vec<String>, String>;
}
