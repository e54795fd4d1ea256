//! What a user of OpenTelemetry has behind the Collector: Jaeger for traces, Prometheus for metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::collector::{Collector, Ports};
use crate::ledger::count;
use crate::peers::load;
use crate::place::{self, Scratch};
use crate::process::Process;
use crate::wait;

/// Longest that one of them may take to start.
const START: Duration = Duration::from_secs(20);

/// Job of the series that Prometheus reads off the agents' own pages.
pub const PAGES: &str = "pages";
/// Job of the series that agents sent by OTLP: the Resource of an agent.
pub const OTLP: &str = "weir";

/// The Collector, writing files and passing everything on to Jaeger and Prometheus. All listen on 127.0.0.1.
#[derive(Debug)]
pub struct Backends {
    /// The Collector.
    pub collector: Collector,
    jaeger: Process,
    jaeger_port: u16,
    /// Started last: it is told where the agents' pages are.
    prometheus: Option<(Process, u16)>,
    page: u16,
    scratch: Scratch,
}

impl Backends {
    /// Starts the Collector and Jaeger.
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new("backends")?;
        let [spans, jaeger_port, grpc, page] =
            [place::free_port()?, place::free_port()?, place::free_port()?, place::free_port()?];
        let configuration = scratch.write("jaeger.yaml", jaeger(spans, jaeger_port, grpc))?;
        let mut command = Command::new(place::cached("bin/jaeger")?);
        // Without this it traces itself, and sends that to the Collector.
        command.arg("--config").arg(configuration).env("OTEL_TRACES_SAMPLER", "always_off");
        let jaeger = Process::start(command, "jaeger", &scratch)?;
        for port in [spans, jaeger_port] {
            wait::listening(local(port), START).with_context(|| jaeger.output().unwrap_or_default())?;
        }
        let collector = Collector::passing_on(Ports::free()?, spans, page)?;
        Ok(Self { collector, jaeger, jaeger_port, prometheus: None, page, scratch })
    }

    /// Starts Prometheus, which reads these pages and the Collector's each second.
    pub fn scrape(&mut self, agents: &[SocketAddr]) -> Result<()> {
        let port = place::free_port()?;
        let targets: Vec<String> = agents.iter().map(|page| format!("\"{page}\"")).collect();
        let (targets, collector) = (targets.join(", "), self.page);
        let configuration = format!(
            "global: {{ scrape_interval: 1s }}
scrape_configs:
  - {{ job_name: {PAGES}, static_configs: [ {{ targets: [{targets}] }} ] }}
  - {{ job_name: otlp, honor_labels: true, static_configs: [ {{ targets: [\"127.0.0.1:{collector}\"] }} ] }}
"
        );
        let configuration = self.scratch.write("prometheus.yml", configuration)?;
        let mut command = Command::new(place::program("prometheus")?);
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", self.scratch.join("prometheus").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let process = Process::start(command, "prometheus", &self.scratch)?;
        wait::listening(local(port), START).with_context(|| process.output().unwrap_or_default())?;
        self.prometheus = Some((process, port));
        Ok(())
    }

    /// Jaeger's API.
    #[must_use]
    pub fn jaeger(&self) -> String {
        format!("http://127.0.0.1:{}", self.jaeger_port)
    }

    /// Prometheus, once [`Self::scrape`] was called.
    #[must_use]
    pub fn prometheus(&self) -> Option<String> {
        self.prometheus.as_ref().map(|(_, port)| format!("http://127.0.0.1:{port}"))
    }

    /// Ids of their processes, by name.
    #[must_use]
    pub fn pids(&self) -> Vec<(&'static str, u32)> {
        let prometheus = self.prometheus.iter().map(|(process, _)| ("prometheus", process.pid()));
        [("jaeger", self.jaeger.pid())].into_iter().chain(prometheus).collect()
    }

    /// Who calls whom by Jaeger: calls by caller and called. Spans below others of their own service, which it counts too, are
    /// left out.
    pub fn dependencies(&self) -> Result<BTreeMap<(String, String), u64>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let url = format!("{}/api/dependencies?endTs={now}&lookback=86400000", self.jaeger());
        let answer: Value = serde_json::from_str(&load::curl(&["-f", &url])?)?;
        let rows = answer["data"].as_array().with_context(|| format!("Jaeger said {answer}"))?;
        let mut calls = BTreeMap::new();
        for row in rows {
            let name = |key: &str| row[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {row}"));
            let of_pair = row["callCount"].as_u64().with_context(|| format!("no callCount in {row}"))?;
            *calls.entry((name("parent")?, name("child")?)).or_default() += of_pair;
        }
        calls.retain(|(parent, child), _| parent != child);
        Ok(calls)
    }

    /// Spans of a trace by Jaeger; 0 where it has none.
    pub fn spans_of(&self, trace: &str) -> Result<usize> {
        // An unknown trace is an error to it.
        let answer: Value = serde_json::from_str(&load::curl(&[&format!("{}/api/traces/{trace}", self.jaeger())])?)?;
        Ok(answer.pointer("/data/0/spans").and_then(Value::as_array).map_or(0, Vec::len))
    }

    /// A family of service-graph metrics by Prometheus, summed by `client` and `server`, as this job told it.
    pub fn service_graph(&self, family: &str, job: &str) -> Result<BTreeMap<(String, String), u64>> {
        let base = self.prometheus().context("Prometheus was not started")?;
        let query = format!("query=sum by (client, server) ({family}{{job=\"{job}\"}})");
        let url = format!("{base}/api/v1/query");
        let answer: Value = serde_json::from_str(&load::curl(&["-f", "-G", "--data-urlencode", &query, &url])?)?;
        ensure!(answer["status"] == "success", "Prometheus said {answer}");
        let rows = answer.pointer("/data/result").and_then(Value::as_array).context("no result")?;
        let mut sums = BTreeMap::new();
        for row in rows {
            let label = |name: &str| row["metric"][name].as_str().unwrap_or_default().to_owned();
            let value: f64 = row["value"][1].as_str().with_context(|| format!("no value in {row}"))?.parse()?;
            sums.insert((label("client"), label("server")), count(value));
        }
        Ok(sums)
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn jaeger(spans: u16, http: u16, grpc: u16) -> String {
    format!(
        "service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [jaeger_storage_exporter] }} }}
  telemetry: {{ metrics: {{ level: none }} }}
extensions:
  jaeger_query:
    storage: {{ traces: mem }}
    grpc: {{ endpoint: 127.0.0.1:{grpc} }}
    http: {{ endpoint: 127.0.0.1:{http} }}
  jaeger_storage: {{ backends: {{ mem: {{ memory: {{ max_traces: 100000 }} }} }} }}
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: 127.0.0.1:{spans} }} }} }} }}
exporters: {{ jaeger_storage_exporter: {{ trace_storage: mem }} }}
"
    )
}
