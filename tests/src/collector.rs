//! The OpenTelemetry Collector, writing what it receives to files: the judge of everything exported.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::place::{self, Scratch};
use crate::process::Process;
use crate::wait;

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    process: Process,
    scratch: Scratch,
    ports: Ports,
}

/// Where it receives, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// OTLP over gRPC.
    pub grpc: u16,
    /// OTLP over HTTP.
    pub http: u16,
}

impl Ports {
    /// Two free ones.
    pub fn free() -> Result<Self> {
        Ok(Self { grpc: place::free_port()?, http: place::free_port()? })
    }
}

/// A span as the collector received it.
#[derive(Clone, Debug)]
pub struct Span {
    /// Resource attributes.
    pub resource: BTreeMap<String, Value>,
    /// What the file says of the span.
    pub span: SpanJson,
    /// Its attributes.
    pub attributes: BTreeMap<String, Value>,
}

/// A span in OTLP's JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpanJson {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits, or empty.
    #[serde(default)]
    pub parent_span_id: String,
    /// 2: server, 3: client.
    pub kind: u8,
    /// Its name.
    pub name: String,
    /// Nanoseconds since the Unix epoch, in decimal.
    pub start_time_unix_nano: String,
    /// Nanoseconds since the Unix epoch, in decimal.
    pub end_time_unix_nano: String,
    /// Spans of other traces that belong to it.
    #[serde(default)]
    pub links: Vec<LinkJson>,
    #[serde(default)]
    attributes: Vec<Attribute>,
}

/// A span link in OTLP's JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkJson {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Attribute {
    key: String,
    value: Value,
}

/// Plain values: OTLP's JSON wraps each in its type, and writes integers as text.
fn plain(attributes: &[Attribute]) -> BTreeMap<String, Value> {
    let value = |value: &Value| {
        let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else { return Value::Null };
        match (kind.as_str(), inner.as_str().map(str::parse::<i64>)) {
            ("intValue", Some(Ok(number))) => number.into(),
            _ => inner.clone(),
        }
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), value(&attribute.value))).collect()
}

impl Collector {
    /// Starts it, in clear.
    pub fn start(ports: Ports) -> Result<Self> {
        Self::with(ports, None)
    }

    /// Starts it with everything passed on as well: spans to an OTLP receiver (gRPC) at the first port of 127.0.0.1,
    /// metrics as a page for Prometheus at the second.
    pub fn passing_on(ports: Ports, spans: u16, page: u16) -> Result<Self> {
        let exporters = format!(
            "  otlp/spans: {{ endpoint: \"127.0.0.1:{spans}\", tls: {{ insecure: true }} }}
  prometheus: {{ endpoint: \"127.0.0.1:{page}\" }}\n"
        );
        Self::configured(ports, "", &exporters, [", otlp/spans", ", prometheus"])
    }

    /// Starts it with TLS, given the files of its certificate and its key.
    pub fn with(ports: Ports, tls: Option<(&Path, &Path)>) -> Result<Self> {
        let tls = tls.map_or_else(String::new, |(certificate, key)| {
            format!(", tls: {{ cert_file: \"{}\", key_file: \"{}\" }}", certificate.display(), key.display())
        });
        Self::configured(ports, &tls, "", ["", ""])
    }

    /// `tls`: of the receivers; `exporters`: further ones, and the names of those for spans and for metrics.
    fn configured(ports: Ports, tls: &str, exporters: &str, [spans, metrics]: [&str; 2]) -> Result<Self> {
        let scratch = Scratch::new("collector")?;
        let folder = scratch.path().display();
        let configuration = format!(
            "receivers:
  otlp: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{}\"{tls} }}, http: {{ endpoint: \"127.0.0.1:{}\"{tls} }} }} }}
exporters:
  file/traces: {{ path: \"{folder}/traces.jsonl\", flush_interval: 50ms }}
  file/metrics: {{ path: \"{folder}/metrics.jsonl\", flush_interval: 50ms }}
  file/logs: {{ path: \"{folder}/logs.jsonl\", flush_interval: 50ms }}
{exporters}service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [file/traces{spans}] }}
    metrics: {{ receivers: [otlp], exporters: [file/metrics{metrics}] }}
    logs: {{ receivers: [otlp], exporters: [file/logs] }}
",
            ports.grpc, ports.http
        );
        let path = scratch.write("collector.yaml", configuration)?;
        let mut command = Command::new(place::cached("bin/otelcol")?);
        command.arg("--config").arg(path);
        let process = Process::start(command, "collector", &scratch)?;
        let collector = Self { process, scratch, ports };
        for port in [ports.grpc, ports.http] {
            wait::listening(([127, 0, 0, 1], port).into(), Duration::from_secs(10))
                .with_context(|| collector.process.output().unwrap_or_default())?;
        }
        Ok(collector)
    }

    /// Where it receives.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Its files as text: all that came.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        for name in ["traces.jsonl", "metrics.jsonl", "logs.jsonl"] {
            text += &read(&self.scratch.join(name))?;
        }
        Ok(text)
    }

    /// All spans that came so far.
    pub fn spans(&self) -> Result<Vec<Span>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Line {
            resource_spans: Vec<ResourceSpans>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ResourceSpans {
            #[serde(default)]
            resource: Resource,
            scope_spans: Vec<ScopeSpans>,
        }
        #[derive(Default, Deserialize)]
        struct Resource {
            #[serde(default)]
            attributes: Vec<Attribute>,
        }
        #[derive(Deserialize)]
        struct ScopeSpans {
            spans: Vec<SpanJson>,
        }
        let mut all = Vec::new();
        for line in whole_lines(&read(&self.scratch.join("traces.jsonl"))?) {
            let line: Line = serde_json::from_str(line)?;
            for resource in line.resource_spans {
                let attributes = plain(&resource.resource.attributes);
                for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    all.push(Span { resource: attributes.clone(), attributes: plain(&span.attributes), span });
                }
            }
        }
        Ok(all)
    }

    /// All log records that came so far, as OTLP's JSON, each with its plain attributes under `plain`.
    pub fn logs(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for line in whole_lines(&read(&self.scratch.join("logs.jsonl"))?) {
            let line: Value = serde_json::from_str(line)?;
            let scopes = list(&line, "resourceLogs").iter().flat_map(|resource| list(resource, "scopeLogs"));
            for record in scopes.flat_map(|scope| list(scope, "logRecords")) {
                let attributes: Vec<Attribute> = serde_json::from_value(record["attributes"].clone())?;
                let mut record = record.clone();
                record["plain"] = serde_json::to_value(plain(&attributes))?;
                all.push(record);
            }
        }
        Ok(all)
    }

    /// The newest data points of a metric, each with its Resource's attributes under `resource`.
    pub fn points(&self, metric: &str) -> Result<Vec<Value>> {
        let mut newest: BTreeMap<String, Value> = BTreeMap::new();
        for line in whole_lines(&read(&self.scratch.join("metrics.jsonl"))?) {
            let line: Value = serde_json::from_str(line)?;
            for resource in list(&line, "resourceMetrics") {
                let of = resource.pointer("/resource/attributes").cloned().unwrap_or_default();
                let scopes = list(resource, "scopeMetrics");
                let metrics = scopes.iter().flat_map(|scope| list(scope, "metrics"));
                for found in metrics.filter(|found| found.get("name").is_some_and(|name| name == metric)) {
                    for point in ["histogram", "sum", "gauge"]
                        .iter()
                        .filter_map(|kind| found.get(kind))
                        .flat_map(|data| list(data, "dataPoints"))
                    {
                        let mut point = point.clone();
                        if let Some(object) = point.as_object_mut() {
                            object.insert("resource".to_owned(), of.clone());
                        }
                        let key = format!("{of}{}", point.get("attributes").cloned().unwrap_or_default());
                        newest.insert(key, point);
                    }
                }
            }
        }
        Ok(newest.into_values().collect())
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("reading {}", path.display())),
    }
}

/// Lines without a last one that is still being written.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.get(..text.rfind('\n').unwrap_or_default()).unwrap_or_default().lines().filter(|line| !line.is_empty())
}
