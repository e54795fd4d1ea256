//! What the exporters are told: where to, how, how often, and how much may wait.

use std::path::PathBuf;
use std::time::Duration;

use super::otlp::{Protocol, Signal};

/// Where a signal goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// `http://host:port` or `https://host:port`; with [`Protocol::Http`] the whole URL with its path, see
    /// [`Endpoint::url_of`]. Without a scheme it is `http://`.
    pub url: String,
    /// `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub protocol: Protocol,
    /// `OTEL_EXPORTER_OTLP_HEADERS`, decoded: names and values as sent.
    pub headers: Vec<(String, String)>,
    /// `OTEL_EXPORTER_OTLP_COMPRESSION`: `gzip` or none.
    pub gzip: bool,
    /// Certificates; used with `https://` only.
    pub tls: Tls,
    /// `OTEL_EXPORTER_OTLP_TIMEOUT`: longest time of one attempt, connecting included.
    pub timeout: Duration,
}

impl Default for Endpoint {
    /// The specification's defaults, but with gzip.
    fn default() -> Self {
        Self {
            url: "http://localhost:4317".to_owned(),
            protocol: Protocol::Grpc,
            headers: Vec::new(),
            gzip: true,
            tls: Tls::default(),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Endpoint {
    /// The URL of a signal under `OTEL_EXPORTER_OTLP_ENDPOINT`: HTTP appends the signal's path, gRPC takes the endpoint
    /// as it is (OTLP exporter specification, "Endpoint URLs for OTLP/HTTP"). A signal's own endpoint
    /// (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is taken as it is and must not pass here.
    #[must_use]
    pub fn url_of(base: &str, protocol: Protocol, signal: Signal) -> String {
        match protocol {
            Protocol::Grpc => base.to_owned(),
            Protocol::Http => format!("{}{}", base.trim_end_matches('/'), signal.http_path()),
        }
    }
}

/// Certificates in PEM files, read when the exporter starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE`: who may sign the server's certificate; without it the system's roots.
    pub ca: Option<PathBuf>,
    /// `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` and `…_CLIENT_KEY`: chain and private key shown to the server.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How often and how long a refused or unanswered export is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Wait after the first failure; each further one waits twice as long, every wait times 0.5 to 1.5.
    pub initial: Duration,
    /// Longest wait before jitter; a longer wait asked for by the receiver is honoured, up to `give_up`.
    pub max: Duration,
    /// After this time an export is given up and counted as `expired`.
    pub give_up: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(5), give_up: Duration::from_mins(5) }
    }
}

/// OTLP aggregation temporality of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Since the series began.
    #[default]
    Cumulative,
    /// Since the last export.
    Delta,
}

/// The node, as it stands in every Resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// semconv `host.name`.
    pub name: Option<String>,
    /// semconv `host.id`: `/etc/machine-id`.
    pub id: Option<String>,
    /// Attributes of the agent's own `OTEL_RESOURCE_ATTRIBUTES` (`deployment.environment.name`, `k8s.cluster.name`, …);
    /// those that a service tells of itself win.
    pub attributes: Vec<(String, String)>,
}

/// What the OTLP exporter is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where spans go; none: spans are not exported.
    pub traces: Option<Endpoint>,
    /// Where metrics go; none: metrics are not exported (the Prometheus page has them all the same).
    pub metrics: Option<Endpoint>,
    /// Where log records of what drop rules met go; none: they are not exported.
    pub logs: Option<Endpoint>,
    /// The node.
    pub node: Node,
    /// `traces.sample`: share of traces whose spans are exported, 0.0 to 1.0. Decided by the trace id, so that every
    /// node decides the same for a trace.
    pub sample: f64,
    /// Bytes of memory for calls that wait; a full queue drops new ones and counts them as `queue_full`.
    pub queue: u64,
    /// Spans of one request at most.
    pub batch: usize,
    /// Longest time that a span waits for its batch to fill.
    pub delay: Duration,
    /// Requests of spans in flight at most, those that wait for a retry included.
    pub in_flight: usize,
    /// How failures are tried again.
    pub retry: Retry,
    /// Time between two exports of metrics.
    pub interval: Duration,
    /// What metrics count from.
    pub temporality: Temporality,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            traces: None,
            metrics: None,
            logs: None,
            node: Node::default(),
            sample: 1.0,
            queue: 16 << 20,
            batch: 512,
            delay: Duration::from_secs(1),
            in_flight: 4,
            retry: Retry::default(),
            interval: Duration::from_secs(15),
            temporality: Temporality::Cumulative,
        }
    }
}
