//! The doors to telemetry backends: OTLP and the Prometheus page.

mod delivery;
mod exporter;
mod ledger;
mod logs;
mod metrics;
mod otlp;
mod points;
pub mod prometheus;
mod queue;
mod relations;
mod resource;
mod sample;
mod settings;
mod spans;
mod wire;

pub use exporter::Exporter;
pub use ledger::{Ledger, Outcome};
pub use metrics::{Bound, Metrics};
pub use otlp::{EndpointError, Protocol, Signal};
pub use relations::{Relation, Seconds};
pub use sample::Sampler;
pub use settings::{Endpoint, Node, Retry, Settings, Temporality, Tls};

#[cfg(test)]
mod tests;
