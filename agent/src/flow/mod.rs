//! From records to calls: each connection's two streams are put in order, its protocol is told by its first bytes, and
//! every call gets its identity.
//!
//! A [`Worker`] is a shard: it owns its connections and does no I/O.

mod chains;
mod dialect;
mod exchange;
mod ids;
mod live;
mod mirror;
mod reading;
mod settings;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod worker;

pub use chains::{Chains, Note};
pub use settings::Settings;
pub use worker::{Output, Worker};
