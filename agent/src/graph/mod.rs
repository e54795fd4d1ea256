//! The dependency graph: which service calls which, how often, how well and how fast.
//!
//! A [`Graph`] takes calls and connections that ended without one, and gives a [`Snapshot`] for people and
//! [`Relation`]s for service-graph metrics. A call that both its ends told is counted once.

mod edge;
mod edges;
mod halves;
mod node;
mod open;
mod render;
mod snapshot;
#[cfg(test)]
mod tests;

pub use edge::{BOUNDS_SECONDS, Buckets};
pub use edges::{Graph, Settings};
pub use open::Open;
pub use render::{Format, UnknownFormat};
pub use snapshot::{Counts, EdgeRow, LatencyRow, NodeRow, OtherRow, Relation, ServiceName, Snapshot, ViaRow};
