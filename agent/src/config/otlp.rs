//! Export by the OpenTelemetry protocol: as written, then as usable.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Size, Time, check::Check};

/// The OpenTelemetry protocol's carriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Protocol {
    /// gRPC, by custom at port 4317.
    #[serde(rename = "grpc")]
    Grpc,
    /// HTTP with protobuf bodies, by custom at port 4318.
    #[serde(rename = "http/protobuf", alias = "http")]
    Http,
}

/// Compression of exported data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip.
    Gzip,
    /// None.
    None,
}

/// What exported metrics count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Temporality {
    /// Since the series began.
    Cumulative,
    /// Since the last export.
    Delta,
}

/// Export by the OpenTelemetry protocol. The standard variables `OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_HEADERS`,
/// `_COMPRESSION`, `_TIMEOUT`, `_CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY`, and `OTEL_RESOURCE_ATTRIBUTES`,
/// `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`, `OTEL_LOGS_EXPORTER` fill the keys that
/// are not given otherwise; so do those of one signal, as `OTEL_EXPORTER_OTLP_TRACES_HEADERS`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenOtlp {
    /// Where to, as `http://collector:4317` or `https://…`. Empty: nothing is exported, or only what the next three say.
    pub endpoint: String,
    /// Where spans go instead, taken as it is: with `http/protobuf` the whole URL with its path.
    pub traces_endpoint: String,
    /// Where metrics go instead, taken as it is: with `http/protobuf` the whole URL with its path.
    pub metrics_endpoint: String,
    /// Where log records go instead, taken as it is: with `http/protobuf` the whole URL with its path.
    pub logs_endpoint: String,
    /// `grpc` or `http/protobuf`.
    pub protocol: Protocol,
    /// Headers of every request, for instance `authorization`. Their values are never shown.
    pub headers: BTreeMap<String, String>,
    /// `gzip` or `none`.
    pub compression: Compression,
    /// A request that takes longer is given up and tried again.
    pub timeout: Time,
    /// How often metrics are exported.
    pub interval: Time,
    /// Memory for spans that wait for the endpoint; beyond it the newest are dropped and counted.
    pub queue: Size,
    /// File with the certificates (PEM) that an `https` endpoint must be signed by. Empty: the system's.
    pub certificate: String,
    /// File with this client's certificate (PEM). Empty: none.
    pub client_certificate: String,
    /// File with the key (PEM) of `client_certificate`.
    pub client_key: String,
    /// Whether spans are exported.
    pub traces: bool,
    /// Whether metrics are exported.
    pub metrics: bool,
    /// Whether a log record is exported of each call that a drop rule met.
    pub logs: bool,
    /// What metrics count from: `cumulative` (since they began) or `delta` (since the last export).
    pub temporality: Temporality,
    /// Attributes added to every Resource, for instance `deployment.environment.name`.
    pub resource: BTreeMap<String, String>,
    /// What a signal has otherwise.
    pub signals: Signals,
}

/// What signals have otherwise, each key in the place of the one above.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Signals {
    /// Spans.
    pub traces: WrittenSignal,
    /// Metrics.
    pub metrics: WrittenSignal,
    /// Log records.
    pub logs: WrittenSignal,
}

/// What a signal has otherwise.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenSignal {
    /// `grpc` or `http/protobuf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Headers, all of them: none of `otlp.headers` is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// `gzip` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// A request that takes longer is given up and tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// File with the certificates (PEM) that an `https` endpoint must be signed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// File with this client's certificate (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// File with the key (PEM) of `client_certificate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
}

impl Default for WrittenOtlp {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            traces_endpoint: String::new(),
            metrics_endpoint: String::new(),
            logs_endpoint: String::new(),
            protocol: Protocol::Grpc,
            headers: BTreeMap::new(),
            compression: Compression::Gzip,
            timeout: Time(Duration::from_secs(10)),
            interval: Time(Duration::from_secs(15)),
            queue: Size(16 << 20),
            certificate: String::new(),
            client_certificate: String::new(),
            client_key: String::new(),
            traces: true,
            metrics: true,
            logs: true,
            temporality: Temporality::Cumulative,
            resource: BTreeMap::new(),
            signals: Signals::default(),
        }
    }
}

/// OTLP export as usable; at least one endpoint is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// For all signals; each endpoint is an absolute `http` or `https` URL with a host and without user information.
    pub endpoint: Option<String>,
    /// Spans.
    pub traces: Signal,
    /// Metrics.
    pub metrics: Signal,
    /// Log records.
    pub logs: Signal,
    /// Between two exports of metrics, at least 1 s.
    pub interval: Duration,
    /// Bytes of spans that may wait for the endpoint, at least 1 MiB.
    pub queue: u64,
    /// What metrics count from.
    pub temporality: Temporality,
    /// Attributes added to every Resource; none of `service.*`.
    pub resource: BTreeMap<String, String>,
}

/// How a signal is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Whether it is.
    pub wanted: bool,
    /// Its own endpoint, to be taken as it is.
    pub endpoint: Option<String>,
    /// Carrier.
    pub protocol: Protocol,
    /// Headers of every request, valid as names and values.
    pub headers: BTreeMap<String, String>,
    /// gzip.
    pub gzip: bool,
    /// Limit of one request, at least 1 ms.
    pub timeout: Duration,
    /// Certificates (PEM) to trust instead of the system's.
    pub certificate: Option<PathBuf>,
    /// Client certificate and key (PEM).
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Check<'_> {
    pub(super) fn otlp(&mut self, otlp: &WrittenOtlp) -> Option<Otlp> {
        self.headers("otlp.headers", &otlp.headers);
        for name in otlp.resource.keys().filter(|name| name.starts_with("service.")) {
            self.wrong(
                "otlp.resource",
                &format!(
                    "`{name}` is found for each observed process; leave it out, or name services by identity.rules"
                ),
            );
        }
        let certificate = self.absolute("otlp.certificate", &otlp.certificate);
        let client = self.client("otlp", &otlp.client_certificate, &otlp.client_key);
        self.timeout("otlp.timeout", otlp.timeout);
        if otlp.interval.0 < Duration::from_secs(1) {
            self.wrong("otlp.interval", "too short; write at least 1s");
        }
        if otlp.queue.0 < 1 << 20 {
            self.wrong("otlp.queue", "too small; write at least 1MiB");
        }
        let common = Signal {
            wanted: true,
            endpoint: None,
            protocol: otlp.protocol,
            headers: otlp.headers.clone(),
            gzip: otlp.compression == Compression::Gzip,
            timeout: otlp.timeout.0,
            certificate,
            client,
        };
        let endpoint = self.endpoint("otlp.endpoint", &otlp.endpoint);
        let [traces, metrics, logs] = [
            ("traces", otlp.traces, &otlp.traces_endpoint, &otlp.signals.traces),
            ("metrics", otlp.metrics, &otlp.metrics_endpoint, &otlp.signals.metrics),
            ("logs", otlp.logs, &otlp.logs_endpoint, &otlp.signals.logs),
        ]
        .map(|(name, wanted, endpoint, written)| {
            let endpoint = self.endpoint(&format!("otlp.{name}_endpoint"), endpoint);
            Signal { wanted, endpoint, ..self.signal(name, written, &common) }
        });
        if [&endpoint, &traces.endpoint, &metrics.endpoint, &logs.endpoint].iter().all(|endpoint| endpoint.is_none()) {
            return None;
        }
        Some(Otlp {
            endpoint,
            traces,
            metrics,
            logs,
            interval: otlp.interval.0,
            queue: otlp.queue.0,
            temporality: otlp.temporality,
            resource: otlp.resource.clone(),
        })
    }

    /// A signal: what it has otherwise, and of all else what is common.
    fn signal(&mut self, name: &str, written: &WrittenSignal, common: &Signal) -> Signal {
        let key = format!("otlp.signals.{name}");
        let own = |key: &Option<String>| key.clone().unwrap_or_default();
        let headers = written.headers.iter().inspect(|headers| self.headers(&format!("{key}.headers"), headers));
        let headers = headers.last().unwrap_or(&common.headers).clone();
        written.timeout.iter().for_each(|timeout| self.timeout(&format!("{key}.timeout"), *timeout));
        let client = self.client(&key, &own(&written.client_certificate), &own(&written.client_key));
        Signal {
            protocol: written.protocol.unwrap_or(common.protocol),
            headers,
            gzip: written.compression.map_or(common.gzip, |compression| compression == Compression::Gzip),
            timeout: written.timeout.map_or(common.timeout, |timeout| timeout.0),
            certificate: self
                .absolute(&format!("{key}.certificate"), &own(&written.certificate))
                .or_else(|| common.certificate.clone()),
            client: client.or_else(|| common.client.clone()),
            ..common.clone()
        }
    }

    fn headers(&mut self, key: &str, headers: &BTreeMap<String, String>) {
        for (name, value) in headers {
            // The value is never part of the message: it is a secret.
            if hyper::header::HeaderName::try_from(name).is_err() {
                self.wrong(key, &format!("`{name}` is not a header's name; letters, digits and - belong there"));
            } else if hyper::header::HeaderValue::try_from(value).is_err() {
                self.wrong(key, &format!("the value of `{name}` has bytes that a header can't carry"));
            }
        }
    }

    fn timeout(&mut self, key: &str, timeout: Time) {
        if timeout.0 < Duration::from_millis(1) {
            self.wrong(key, "too short; write at least 1ms");
        }
    }

    /// A client certificate and its key, in the section `key`.
    fn client(&mut self, key: &str, certificate: &str, private: &str) -> Option<(PathBuf, PathBuf)> {
        let names = [format!("{key}.client_certificate"), format!("{key}.client_key")];
        match (self.absolute(&names[0], certificate), self.absolute(&names[1], private)) {
            (Some(certificate), Some(private)) => Some((certificate, private)),
            (None, None) => None,
            (Some(_), None) => {
                self.wrong(&names[0], &format!("needs {}; give both or none", names[1]));
                None
            }
            (None, Some(_)) => {
                self.wrong(&names[1], &format!("needs {}; give both or none", names[0]));
                None
            }
        }
    }

    fn endpoint(&mut self, key: &str, text: &str) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        let remedy = "write http://HOST:4317 or https://HOST:4317";
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let Ok(uri) = url.parse::<hyper::Uri>() else {
            self.wrong(key, &format!("not a URL; {remedy}"));
            return None;
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // Not shown: it holds a password.
            self.wrong(key, "has a user in it; credentials belong in otlp.headers");
            return None;
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.authority().and_then(|authority| authority.as_str().strip_prefix(host));
        let port = port.is_some_and(|port| port.is_empty() || uri.port_u16().is_some_and(|port| port != 0));
        let number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if !matches!(uri.scheme_str(), Some("http" | "https")) || number || !port {
            self.wrong(key, &format!("`{text}` is no http or https URL; {remedy}"));
            return None;
        }
        Some(url)
    }
}
