//! The configuration as usable: what serde could not judge (ranges, addresses, patterns, what belongs together), told
//! with the place of the key.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use super::{
    Place, Problem, Select,
    tree::Node,
    written::{Compression, Level, Mode, NameRule, Protocol, TlsMode, Written},
};

/// A configuration that can be used as it is: all values are in range.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Directives of [`EnvFilter`].
    pub log: String,
    /// What may leave the process.
    pub privacy: Privacy,
    /// Path of the control socket, absolute.
    pub socket: PathBuf,
    /// Address of the Prometheus endpoint; `None`: off.
    pub prometheus: Option<SocketAddr>,
    /// OTLP export; `None`: off.
    pub otlp: Option<Otlp>,
    /// Recent calls.
    pub recent: Recent,
    /// The kernel half.
    pub kernel: Kernel,
    /// Connections and calls.
    pub flow: Flow,
    /// Names of services by rule, the first match wins.
    pub names: Vec<NameRule>,
    /// Endpoint names.
    pub routes: Routes,
    /// How TLS plaintext is read.
    pub tls: TlsMode,
    /// Traces.
    pub traces: Traces,
    /// What becomes of a call that a drop rule meets.
    pub mode: Mode,
    /// Which calls are watched.
    pub select: Select,
}

/// What may leave the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privacy {
    /// How much of a call may be kept and exported.
    pub level: Level,
    /// Query keys whose values may be shown.
    pub query: Vec<String>,
}

/// OTLP export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Absolute `http` or `https` URI with a host, without user information.
    pub endpoint: hyper::Uri,
    /// Carrier.
    pub protocol: Protocol,
    /// Headers of every request, valid as names and values.
    pub headers: BTreeMap<String, String>,
    /// gzip.
    pub gzip: bool,
    /// Limit of one request, at least 1 ms.
    pub timeout: Duration,
    /// Between two exports of metrics, at least 1 s.
    pub interval: Duration,
    /// Bytes that may wait for the endpoint, at least 1 MiB.
    pub queue: u64,
    /// Certificates (PEM) to trust instead of the system's.
    pub certificate: Option<PathBuf>,
    /// Client certificate and key (PEM).
    pub client: Option<(PathBuf, PathBuf)>,
    /// Whether spans are exported.
    pub traces: bool,
    /// Whether metrics are exported.
    pub metrics: bool,
    /// Attributes added to every Resource; none of `service.*`.
    pub resource: BTreeMap<String, String>,
}

/// Recent calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Bytes of memory, at least 64 KiB.
    pub memory: u64,
    /// File of the disk store and its bound in bytes (at least 4 MiB).
    pub disk: Option<(PathBuf, u64)>,
}

/// The kernel half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes of the ring, a power of two from 64 KiB to 1 GiB.
    pub ring: u32,
    /// Bytes kept of a message's start, 64 to 4096.
    pub window: u32,
    /// Root of cgroup v2; `None`: to be found.
    pub cgroup: Option<PathBuf>,
}

/// Connections and calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Worker threads, 1 to 64.
    pub workers: u16,
    /// Connections followed at once, 64 to 16,777,216.
    pub connections: u32,
    /// After which an unanswered request is told as lost, at least 1 s.
    pub timeout: Duration,
}

/// Endpoint names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Templates, each beginning with `/`.
    pub templates: Vec<String>,
    /// Templates kept for each service, 1 to 100,000.
    pub limit: u32,
}

/// Traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Whether chains of calls are told.
    pub chains: bool,
    /// Share of traces exported, 0 to 1.
    pub sample: f64,
}

/// Judges what was written; adds what is wrong to `problems` and what has no effect to `warnings`.
pub(super) fn usable(
    written: &Written,
    tree: &Node,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Settings {
    let mut check = Check { tree, problems, warnings };
    if EnvFilter::try_new(&written.log.level).is_err() {
        let text = format!("`{}` is no level; write error, warn, info, debug or trace", written.log.level);
        check.wrong("log.level", &text);
    }
    Settings {
        log: written.log.level.clone(),
        privacy: Privacy { level: written.privacy.level, query: written.privacy.query.clone() },
        socket: check.absolute("control.socket", &written.control.socket).unwrap_or_default(),
        prometheus: check.listen("prometheus.listen", &written.prometheus.listen),
        otlp: check.otlp(written),
        recent: check.recent(written),
        kernel: check.kernel(written),
        flow: check.flow(written),
        names: check.names(written),
        routes: check.routes(written),
        tls: check.tls(written),
        traces: check.traces(written),
        mode: check.mode(written),
        select: check.select(written),
    }
}

struct Check<'a> {
    tree: &'a Node,
    problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn place(&self, key: &str) -> Place {
        self.tree.get(key.split('.')).map_or(Place::Default, |node| node.place.clone())
    }

    fn wrong(&mut self, key: &str, text: &str) {
        let place = self.place(key);
        self.problems.push(Problem { place, text: format!("`{key}`: {text}") });
    }

    fn warn(&mut self, key: &str, text: &str) {
        let place = self.place(key);
        self.warnings.push(Problem { place, text: format!("`{key}`: {text}") });
    }

    fn range<T: PartialOrd + Copy + std::fmt::Display>(&mut self, key: &str, value: T, least: T, most: T) -> T {
        if value < least || value > most {
            self.wrong(key, &format!("{value} is out of range; write {least} to {most}"));
        }
        value
    }

    fn absolute(&mut self, key: &str, text: &str) -> Option<PathBuf> {
        if text.is_empty() {
            return None;
        }
        let path = Path::new(text);
        if !path.is_absolute() {
            self.wrong(key, &format!("`{text}` is not an absolute path; begin it with /"));
        }
        Some(path.to_owned())
    }

    fn listen(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        if matches!(text, "" | "off") {
            return None;
        }
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.wrong(
                key,
                &format!("`{text}` is not an address with a port; write 127.0.0.1:9464, [::1]:9464 or off"),
            );
        }
        parsed
    }

    fn otlp(&mut self, written: &Written) -> Option<Otlp> {
        let otlp = &written.otlp;
        for (name, value) in &otlp.headers {
            // The value is never part of the message: it is a secret.
            if hyper::header::HeaderName::try_from(name).is_err() {
                self.wrong(
                    "otlp.headers",
                    &format!("`{name}` is not a header's name; letters, digits and - belong there"),
                );
            } else if hyper::header::HeaderValue::try_from(value).is_err() {
                self.wrong("otlp.headers", &format!("the value of `{name}` has bytes that a header can't carry"));
            }
        }
        for name in otlp.resource.keys().filter(|name| name.starts_with("service.")) {
            self.wrong(
                "otlp.resource",
                &format!(
                    "`{name}` is found for each observed process; leave it out, or name services by identity.names"
                ),
            );
        }
        let certificate = self.absolute("otlp.certificate", &otlp.certificate);
        let client = match (
            self.absolute("otlp.client_certificate", &otlp.client_certificate),
            self.absolute("otlp.client_key", &otlp.client_key),
        ) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                self.wrong("otlp.client_certificate", "needs otlp.client_key; give both or none");
                None
            }
            (None, Some(_)) => {
                self.wrong("otlp.client_key", "needs otlp.client_certificate; give both or none");
                None
            }
        };
        if otlp.timeout.0 < Duration::from_millis(1) {
            self.wrong("otlp.timeout", "too short; write at least 1ms");
        }
        if otlp.interval.0 < Duration::from_secs(1) {
            self.wrong("otlp.interval", "too short; write at least 1s");
        }
        if otlp.queue.0 < 1 << 20 {
            self.wrong("otlp.queue", "too small; write at least 1MiB");
        }
        let endpoint = self.endpoint(&otlp.endpoint)?;
        Some(Otlp {
            endpoint,
            protocol: otlp.protocol,
            headers: otlp.headers.clone(),
            gzip: otlp.compression == Compression::Gzip,
            timeout: otlp.timeout.0,
            interval: otlp.interval.0,
            queue: otlp.queue.0,
            certificate,
            client,
            traces: otlp.traces,
            metrics: otlp.metrics,
            resource: otlp.resource.clone(),
        })
    }

    fn endpoint(&mut self, text: &str) -> Option<hyper::Uri> {
        const KEY: &str = "otlp.endpoint";
        if text.is_empty() {
            return None;
        }
        let remedy = "write http://HOST:4317 or https://HOST:4317";
        let Ok(uri) = text.parse::<hyper::Uri>() else {
            self.wrong(KEY, &format!("not a URI; {remedy}"));
            return None;
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            self.wrong(KEY, &format!("`{text}` has no scheme http or https; {remedy}"));
            return None;
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // Not shown: it holds a password.
            self.wrong(KEY, "has a user in it; credentials belong in otlp.headers");
            return None;
        }
        Some(uri)
    }

    fn recent(&mut self, written: &Written) -> Recent {
        let recent = &written.recent;
        if recent.memory.0 < 64 << 10 {
            self.wrong("recent.memory", "too small; write at least 64KiB");
        }
        if recent.disk.size.0 < 4 << 20 {
            self.wrong("recent.disk.size", "too small; write at least 4MiB");
        }
        let path = self.absolute("recent.disk.path", &recent.disk.path);
        Recent { memory: recent.memory.0, disk: path.map(|path| (path, recent.disk.size.0)) }
    }

    fn kernel(&mut self, written: &Written) -> Kernel {
        let kernel = &written.kernel;
        if !(64 << 10..=1 << 30).contains(&kernel.ring.0) {
            self.wrong("kernel.ring", &format!("{} is out of range; write 64KiB to 1GiB", kernel.ring));
        }
        if !(64..=4096).contains(&kernel.window.0) {
            self.wrong("kernel.window", &format!("{} is out of range; write 64B to 4096B", kernel.window));
        }
        Kernel {
            ring: (kernel.ring.0.min(1 << 30) as u32).next_power_of_two(),
            window: kernel.window.0.min(4096) as u32,
            cgroup: match kernel.cgroup.as_str() {
                "auto" => None,
                path => self.absolute("kernel.cgroup", path),
            },
        }
    }

    fn flow(&mut self, written: &Written) -> Flow {
        let flow = &written.flow;
        if flow.timeout.0 < Duration::from_secs(1) {
            self.wrong("flow.timeout", "too short; write at least 1s");
        }
        let workers = match self.range("flow.workers", flow.workers, 0, 64) {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(4) as u16),
            workers => workers,
        };
        let connections = self.range("flow.connections", flow.connections, 64, 1 << 24);
        Flow { workers, connections, timeout: flow.timeout.0 }
    }

    fn names(&mut self, written: &Written) -> Vec<NameRule> {
        for (n, rule) in written.identity.names.iter().enumerate() {
            let text = if rule.name.is_empty() {
                "has an empty name; write the service's name"
            } else if [&rule.executable, &rule.command, &rule.unit, &rule.cgroup].iter().all(|part| part.is_none()) {
                "meets every process; give it executable, command, unit or cgroup"
            } else {
                continue;
            };
            self.wrong("identity.names", &format!("rule {} {text}", n + 1));
        }
        written.identity.names.clone()
    }

    fn routes(&mut self, written: &Written) -> Routes {
        for template in written.routes.templates.iter().filter(|template| !template.starts_with('/')) {
            self.wrong("routes.templates", &format!("`{template}` is not a path; begin it with /"));
        }
        let limit = self.range("routes.limit", written.routes.limit, 1, 100_000);
        Routes { templates: written.routes.templates.clone(), limit }
    }

    fn tls(&mut self, written: &Written) -> TlsMode {
        if matches!(written.tls.mode, TlsMode::Data | TlsMode::Handshake) {
            self.warn("tls.mode", "this version reads no TLS yet; TLS connections are counted as opaque");
        }
        written.tls.mode
    }

    fn traces(&mut self, written: &Written) -> Traces {
        let sample = self.range("traces.sample", written.traces.sample, 0.0, 1.0);
        Traces { chains: written.traces.chains, sample }
    }

    fn mode(&mut self, written: &Written) -> Mode {
        if written.enforce.mode == Mode::Enforce {
            self.warn("enforce.mode", "this version drops nothing yet; calls are only watched");
        }
        written.enforce.mode
    }

    fn select(&mut self, written: &Written) -> Select {
        for (n, rule) in written.select.iter().enumerate() {
            if rule.port == Some(0) {
                self.wrong("select", &format!("rule {}: port 0 meets nothing; write 1 to 65535", n + 1));
            }
        }
        Select::new(written.select.clone())
    }
}
