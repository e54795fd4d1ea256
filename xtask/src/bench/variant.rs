//! What is at work while the load runs.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use weir_tests::{
    agent::Agent,
    ledger::count,
    peers::{
        nginx::Nginx,
        proxy::{Kind, Proxy},
    },
    place::{self, Scratch},
    process::Process,
    wait,
};

use super::{
    cost, load,
    noop::{self, Noop},
};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    /// Nothing: what the others are compared with.
    Bare,
    /// Programs that do nothing.
    Noop,
    /// Every call assembled and kept, nothing exported.
    Kept,
    /// And metrics exported, and one span of a hundred.
    Sampled,
    /// And every span exported.
    Spans,
    /// nginx writes its access log.
    AccessLog,
    /// Envoy in front of nginx, as a sidecar is.
    Sidecar,
    /// The same heads taken at system calls by bpftrace.
    Syscalls,
}

impl Variant {
    pub(crate) const ALL: [Self; 8] = [
        Self::Bare,
        Self::Noop,
        Self::Kept,
        Self::Sampled,
        Self::Spans,
        Self::AccessLog,
        Self::Sidecar,
        Self::Syscalls,
    ];

    /// How the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "nothing attached",
            Self::Noop => "no-op programs attached",
            Self::Kept => "Weir, every call kept",
            Self::Sampled => "Weir, every call kept, metrics and 1 % of spans exported",
            Self::Spans => "Weir, every call kept, every span exported",
            Self::AccessLog => "nginx's access log on",
            Self::Sidecar => "Envoy in front of nginx",
            Self::Syscalls => "heads taken at system calls by bpftrace",
        }
    }

    /// Settings of the agent, where this is one with it.
    pub(crate) fn settings(self, collector: &Collector) -> Option<Vec<String>> {
        let mut settings = vec!["recent.memory=64MiB".to_owned(), "log.level=warn".to_owned()];
        let sample = match self {
            Self::Kept => return Some(settings),
            Self::Sampled => "0.01",
            Self::Spans => "1",
            Self::Bare | Self::Noop | Self::AccessLog | Self::Sidecar | Self::Syscalls => return None,
        };
        settings.push(format!("otlp.endpoint=http://127.0.0.1:{}", collector.port));
        settings.push("otlp.interval=1s".to_owned());
        settings.push(format!("traces.sample={sample}"));
        Some(settings)
    }
}

/// A variant at work, and the server to ask.
pub(crate) struct Working {
    pub(crate) server: Nginx,
    pub(crate) agent: Option<Agent>,
    sidecar: Option<Proxy>,
    _noop: Option<Noop>,
    _tracer: Option<Tracer>,
}

impl Working {
    /// Starts a fresh server and what the variant adds.
    pub(crate) fn start(variant: Variant, collector: &Collector) -> Result<Self> {
        let server = load::server(variant == Variant::AccessLog)?;
        let sidecar =
            if variant == Variant::Sidecar { Some(Proxy::start(Kind::Envoy, server.address())?) } else { None };
        let agent = match variant.settings(collector) {
            Some(settings) => Some(Agent::start(&settings.iter().map(String::as_str).collect::<Vec<_>>())?),
            None => None,
        };
        let noop = if variant == Variant::Noop { Some(noop::attach()?) } else { None };
        let tracer = if variant == Variant::Syscalls { Some(Tracer::start()?) } else { None };
        Ok(Self { server, agent, sidecar, _noop: noop, _tracer: tracer })
    }

    /// Asks as fast as possible; what the agent spent on it comes along.
    pub(crate) fn saturate(&self, time: Duration) -> Result<Round> {
        let address = self.sidecar.as_ref().map_or_else(|| self.server.address(), Proxy::address);
        let before = self.agent.as_ref().map(Spent::read).transpose()?;
        let saturated = load::saturate(address, time)?;
        // What waits in the ring belongs to this load.
        std::thread::sleep(Duration::from_millis(300));
        let after = self.agent.as_ref().map(Spent::read).transpose()?;
        let spent = before.zip(after).map(|(before, after)| after.since(&before));
        Ok(Round { requests: saturated.requests, per_second: saturated.per_second, spent })
    }
}

/// One measurement.
pub(crate) struct Round {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    pub(crate) spent: Option<Spent>,
}

/// What the agent did and used.
pub(crate) struct Spent {
    /// Processor time by thread name, seconds.
    pub(crate) threads: BTreeMap<String, f64>,
    /// Calls assembled, both sides counted.
    pub(crate) calls: u64,
    /// Messages lost for any reason.
    pub(crate) lost: u64,
}

impl Spent {
    fn read(agent: &Agent) -> Result<Self> {
        let page = agent.page()?;
        Ok(Self {
            threads: cost::processor_time(agent.pid())?,
            calls: count(page.sum("weir_calls_total", &[])),
            lost: count(page.sum("weir_messages_total", &[("stage", "lost")])),
        })
    }

    fn since(&self, before: &Self) -> Self {
        let earlier = |name: &String| before.threads.get(name).copied().unwrap_or_default();
        let threads = self.threads.iter().map(|(name, seconds)| (name.clone(), seconds - earlier(name))).collect();
        Self { threads, calls: self.calls - before.calls, lost: self.lost - before.lost }
    }

    /// Processor time of all threads, seconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.threads.values().sum()
    }
}

/// The collector that takes the export, for the whole run.
pub(crate) struct Collector {
    port: u16,
    _process: Process,
    _scratch: Scratch,
}

impl Collector {
    /// Receives by gRPC and forgets: its own cost is not Weir's.
    pub(crate) fn start() -> Result<Self> {
        let scratch = Scratch::new("collector")?;
        let port = place::free_port()?;
        let configuration = scratch.write(
            "collector.yaml",
            format!(
                "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{port}\" }} }} }} }}
exporters: {{ file: {{ path: /dev/null }} }}
service:
  telemetry: {{ metrics: {{ level: none }}, logs: {{ level: error }} }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [file] }}
    metrics: {{ receivers: [otlp], exporters: [file] }}
"
            ),
        )?;
        let mut command = Command::new(place::cached("bin/otelcol")?);
        command.arg("--config").arg(configuration);
        let process = Process::start(command, "otelcol", &scratch)?;
        wait::listening(([127, 0, 0, 1], port).into(), Duration::from_secs(10))
            .with_context(|| process.output().unwrap_or_default())?;
        Ok(Self { port, _process: process, _scratch: scratch })
    }
}

/// The first 200 bytes (bpftrace's longest) of every read and write of the load's two programs.
const SCRIPT: &str = r#"
struct piece { char *base; unsigned long length; };
BEGIN { system("touch ready"); }
tracepoint:syscalls:sys_enter_read /comm == "nginx" || comm == "wrk"/ { @into[tid] = (uint64)args->buf; }
tracepoint:syscalls:sys_enter_recvfrom /comm == "nginx" || comm == "wrk"/ { @into[tid] = (uint64)args->ubuf; }
tracepoint:syscalls:sys_exit_read, tracepoint:syscalls:sys_exit_recvfrom /@into[tid]/
{ if (args->ret > 0) { printf("%d < %r\n", tid, buf(@into[tid], 200)); } delete(@into[tid]); }
tracepoint:syscalls:sys_enter_write /comm == "nginx" || comm == "wrk"/
{ printf("%d > %r\n", tid, buf((uint64)args->buf, 200)); }
tracepoint:syscalls:sys_enter_writev /comm == "nginx" || comm == "wrk"/
{ printf("%d > %r\n", tid, buf((uint64)((struct piece *)args->vec)->base, 200)); }
"#;

/// bpftrace with its output thrown away.
struct Tracer {
    _process: Process,
    _scratch: Scratch,
}

impl Tracer {
    fn start() -> Result<Self> {
        let scratch = Scratch::new("bpftrace")?;
        let script = scratch.write("heads.bt", SCRIPT)?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec bpftrace --unsafe -q '{}' >/dev/null", script.display()));
        command.env("BPFTRACE_STRLEN", "200").env("BPFTRACE_PERF_RB_PAGES", "1024").current_dir(scratch.path());
        let process = Process::start(command, "bpftrace", &scratch)?;
        wait::until(Duration::from_secs(30), "bpftrace", || Ok(fs::exists(scratch.join("ready"))?.then_some(())))
            .with_context(|| process.output().unwrap_or_default())?;
        Ok(Self { _process: process, _scratch: scratch })
    }
}
