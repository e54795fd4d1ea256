//! OTLP 1.x to one endpoint: one attempt at one encoded request, over gRPC or HTTP.

mod grpc;
mod http;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

use super::settings::Endpoint;

/// How OTLP is spoken (`OTEL_EXPORTER_OTLP_PROTOCOL`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`.
    #[default]
    Grpc,
    /// `http/protobuf`.
    Http,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Records of what drop rules met.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// Label `signal`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// Path of OTLP/HTTP.
    #[must_use]
    pub fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }

    fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// What a receiver that answered success has not taken of it (OTLP partial success).
    fn partial(self, response: &[u8]) -> Reply {
        let told = match self {
            Self::Traces => ExportTraceServiceResponse::decode(response)
                .map(|answer| answer.partial_success.map(|part| (part.rejected_spans, part.error_message))),
            Self::Metrics => ExportMetricsServiceResponse::decode(response)
                .map(|answer| answer.partial_success.map(|part| (part.rejected_data_points, part.error_message))),
            Self::Logs => ExportLogsServiceResponse::decode(response)
                .map(|answer| answer.partial_success.map(|part| (part.rejected_log_records, part.error_message))),
        };
        // An answer that can't be read is still an answer of success: nothing says that anything was rejected.
        let (rejected, message) = told.ok().flatten().unwrap_or_default();
        Reply::Taken { rejected: u64::try_from(rejected).unwrap_or(0), message }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The receiver took the request.
    Taken {
        /// Items of it that it did not take.
        rejected: u64,
        /// Why, or a warning.
        message: String,
    },
    /// Not now (OTLP specification, "Failures": retryable).
    Again {
        /// The wait that the receiver asks for.
        after: Option<Duration>,
        /// What happened.
        why: String,
    },
    /// Never.
    Refused(String),
}

/// Why an endpoint can't be used as it is set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The URL can't be read.
    #[error("OTLP endpoint `{url}`: {why}; it is written like http://collector:4317")]
    Url {
        /// As set.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A header's name or value can't be sent.
    #[error("OTLP header `{name}`: its name or value has characters that a header can't carry")]
    Header {
        /// Its name; the value may be a secret.
        name: String,
    },
    /// A certificate or key file can't be read.
    #[error("OTLP certificate {path}: {why}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS set-up as a whole is refused.
    #[error("OTLP over TLS to `{url}`: {why}")]
    Tls {
        /// The endpoint.
        url: String,
        /// What is wrong.
        why: String,
    },
}

/// One endpoint, ready to be sent to. Connects at the first attempt, and anew whenever the connection is lost.
#[derive(Clone, Debug)]
pub(super) enum Sender {
    Grpc(grpc::Sender),
    Http(Box<http::Sender>),
}

impl Sender {
    /// Prepares an endpoint; must be called within a tokio runtime.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        match endpoint.protocol {
            Protocol::Grpc => grpc::Sender::new(endpoint).map(Self::Grpc),
            Protocol::Http => http::Sender::new(endpoint).map(|sender| Self::Http(Box::new(sender))),
        }
    }

    /// Makes one attempt, within the endpoint's timeout.
    pub(super) async fn attempt(&self, signal: Signal, request: Bytes) -> Reply {
        match self {
            Self::Grpc(sender) => sender.attempt(signal, request).await,
            Self::Http(sender) => sender.attempt(signal, request).await,
        }
    }
}

/// The endpoint's URL with a scheme.
fn uri(endpoint: &Endpoint) -> Result<hyper::Uri, EndpointError> {
    let fail = |why: &str| EndpointError::Url { url: endpoint.url.clone(), why: why.to_owned() };
    let written = if endpoint.url.contains("://") { endpoint.url.clone() } else { format!("http://{}", endpoint.url) };
    let uri: hyper::Uri = written.parse().map_err(|error: hyper::http::uri::InvalidUri| fail(&error.to_string()))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        Some("http" | "https") => Err(fail("it names no host")),
        _ => Err(fail("its scheme is neither http nor https")),
    }
}

/// The endpoint's headers.
fn headers(endpoint: &Endpoint) -> Result<hyper::HeaderMap, EndpointError> {
    let mut headers = hyper::HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let fail = || EndpointError::Header { name: name.clone() };
        let key: hyper::header::HeaderName = name.trim().to_ascii_lowercase().parse().map_err(|_| fail())?;
        let mut value = hyper::header::HeaderValue::from_str(value.trim()).map_err(|_| fail())?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

/// An error with its causes, as one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
