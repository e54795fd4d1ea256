//! The configuration as usable: what serde could not judge (ranges, addresses, patterns, what belongs together), told
//! with the place of the key.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    Feed, Otlp, Place, Problem, Select,
    quantity::Size,
    tree::Node,
    written::{Breaker, Instrumented, KubernetesMode, Level, Mode, NameRule, TlsMode, Written},
};
use crate::{
    model::Hosts,
    policy::{proxies::Proxies, written::WrittenRule},
    redact::Patterns,
};

/// Bytes of an answer's start that the kernel half keeps in any case.
const KEPT: u64 = weir_common::record::MEDIUM as u64;

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
    /// Who a process is.
    pub identity: Identity,
    /// Pods and Services of a cluster.
    pub kubernetes: Kubernetes,
    /// Other hosts that have an agent of their own.
    pub hosts: Arc<Hosts>,
    /// Proxies whose word on a call's client counts.
    pub proxies: Proxies,
    /// Endpoint names.
    pub routes: Routes,
    /// How TLS plaintext is read.
    pub tls: TlsMode,
    /// Traces.
    pub traces: Traces,
    /// What becomes of a call that a drop rule meets.
    pub mode: Mode,
    /// When a rule is taken for a mistake.
    pub breaker: Breaker,
    /// Rules as written, each good in itself and with the others; whom they may not meet on this node is judged where they
    /// are taken.
    pub rules: Vec<WrittenRule>,
    /// Folder with files of rules, absolute.
    pub directory: Option<PathBuf>,
    /// Feeds of addresses.
    pub feeds: Vec<Feed>,
    /// Rules of a cluster's policies.
    pub policies: super::Policies,
    /// File of the audit log, absolute; `None`: changes are only logged.
    pub audit: Option<PathBuf>,
    /// Folder of what is kept over a restart, absolute; `None`: nothing is.
    pub state: Option<PathBuf>,
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
    /// The `User-Agent` header is shown.
    pub user_agent: bool,
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
    /// Bytes of an answer's start that are kept whole beyond what is kept in any case, up to 64 KiB; 0: none.
    pub window: u32,
    /// Root of cgroup v2; `None`: to be found.
    pub cgroup: Option<PathBuf>,
}

/// Connections and calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Connections followed at once, 64 to 16,777,216.
    pub connections: u32,
    /// Bytes of segments that wait for earlier ones, at least 64 KiB.
    pub reorder: u64,
}

/// Who a process is.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Processes remembered at once, 16 to 1,048,576.
    pub processes: u32,
    /// Names of services by rule, each with a condition and an effect; the first that fits wins.
    pub rules: Vec<NameRule>,
}

/// Pods and Services of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Whether they are watched.
    pub mode: KubernetesMode,
    /// Absolute path of a kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// This node's name; `None`: to be found.
    pub node: Option<String>,
    /// Pods and nodes elsewhere are known, too.
    pub cluster: bool,
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
    /// Whether goroutines are told apart for them.
    pub go: bool,
    /// What is exported beside applications that export spans of their own.
    pub instrumented: Instrumented,
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
    // What is no level by itself would be read as the name of a module.
    let bare = |part: &str| !part.contains(['=', '[']) && !part.starts_with("weir");
    let unknown = |part: &&str| bare(part) && part.parse::<LevelFilter>().is_err();
    if EnvFilter::try_new(&written.log.level).is_err() || written.log.level.split(',').any(|part| unknown(&part.trim()))
    {
        let text = format!("`{}` is no level; write error, warn, info, debug or trace", written.log.level);
        check.wrong("log.level", &text);
    }
    let mut user_agent = false;
    for name in &written.privacy.headers {
        if name.eq_ignore_ascii_case("user-agent") {
            user_agent = true;
        } else {
            check.wrong("privacy.headers", &format!("`{name}` is not read; known: user-agent"));
        }
    }
    Settings {
        log: written.log.level.clone(),
        privacy: Privacy { level: written.privacy.level, query: written.privacy.query.clone(), user_agent },
        socket: check.absolute("control.socket", &written.control.socket).unwrap_or_default(),
        prometheus: check.listen("prometheus.listen", &written.prometheus.listen),
        otlp: check.otlp(&written.otlp),
        recent: check.recent(written),
        kernel: check.kernel(written),
        flow: check.flow(written),
        identity: check.identity(written),
        kubernetes: check.kubernetes(written),
        hosts: Arc::new(check.hosts(written)),
        proxies: check.proxies(&written.proxies),
        routes: check.routes(written),
        tls: check.tls(written),
        traces: check.traces(written),
        mode: written.enforce.mode,
        breaker: check.breaker(written),
        rules: check.drop_rules(&written.enforce.rules),
        directory: check.absolute("enforce.directory", &written.enforce.directory),
        feeds: check.feeds(written),
        policies: check.policies(written),
        audit: check.absolute("enforce.audit", &written.enforce.audit),
        state: check.absolute("enforce.state", &written.enforce.state),
        select: check.select(written),
    }
}

pub(super) struct Check<'a> {
    pub(super) tree: &'a Node,
    pub(super) problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<Problem>,
}

impl Check<'_> {
    /// Whether a key was written somewhere.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.tree.get(key.split('.')).is_some()
    }

    fn place(&self, key: &str) -> Place {
        self.tree.get(key.split('.')).map_or(Place::Default, |node| node.place.clone())
    }

    pub(super) fn wrong(&mut self, key: &str, text: &str) {
        let place = self.place(key);
        self.problems.push(Problem { place, text: format!("`{key}`: {text}") });
    }

    /// A mistake whose text names what it is about.
    pub(super) fn wrong_at(&mut self, key: &str, text: &str) {
        let place = self.place(key);
        self.problems.push(Problem { place, text: text.to_owned() });
    }

    /// A mistake in a list's item, counted from 0 here and from 1 in the text.
    fn wrong_item(&mut self, key: &str, index: usize, text: &str) {
        let place = self.place(&format!("{key}.{index}"));
        self.problems.push(Problem { place, text: format!("`{key}`: rule {} {text}", index + 1) });
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

    pub(super) fn absolute(&mut self, key: &str, text: &str) -> Option<PathBuf> {
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
        if !(64..=64 << 10).contains(&kernel.window.0) {
            self.wrong("kernel.window", &format!("{} is out of range; write 64B to 64KiB", kernel.window));
        } else if kernel.window.0 <= KEPT && kernel.window != Written::default().kernel.window {
            self.warn(
                "kernel.window",
                &format!("{} of an answer are kept in any case; write more, up to 64KiB", Size(KEPT)),
            );
        }
        Kernel {
            ring: (kernel.ring.0.min(1 << 30) as u32).next_power_of_two(),
            window: if kernel.window.0 <= KEPT { 0 } else { kernel.window.0.min(64 << 10) as u32 },
            cgroup: match kernel.cgroup.as_str() {
                "auto" => None,
                path => self.absolute("kernel.cgroup", path),
            },
        }
    }

    fn flow(&mut self, written: &Written) -> Flow {
        let flow = &written.flow;
        if flow.reorder.0 < 64 << 10 {
            self.wrong("flow.reorder", "too small; write at least 64KiB");
        }
        let connections = self.range("flow.connections", flow.connections, 64, 1 << 24);
        Flow { connections, reorder: flow.reorder.0 }
    }

    fn identity(&mut self, written: &Written) -> Identity {
        let processes = self.range("identity.processes", written.identity.processes, 16, 1 << 20);
        for (n, rule) in written.identity.rules.iter().enumerate() {
            let conditions = [&rule.executable, &rule.command_line, &rule.unit, &rule.container];
            let mut names = rule.name.iter().chain(&rule.namespace);
            let text = if rule.port.is_none() && conditions.iter().all(|condition| condition.is_none()) {
                "meets every process; give it executable, command_line, unit, container or port"
            } else if rule.name.is_none() && rule.namespace.is_none() {
                "names nothing; give it name or namespace"
            } else if names.any(|name| name.is_empty() || name.len() > 255 || name.chars().any(char::is_control)) {
                "has a name that can't be used; write 1 to 255 bytes without control characters"
            } else {
                continue;
            };
            self.wrong_item("identity.rules", n, text);
        }
        Identity { processes, rules: written.identity.rules.clone() }
    }

    fn kubernetes(&mut self, written: &Written) -> Kubernetes {
        let kubernetes = &written.kubernetes;
        let node = &kubernetes.node;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if node.len() > 253 || !node.chars().all(fits) {
            // It becomes a part of a field selector.
            self.wrong("kubernetes.node", "is no node's name; write small letters, digits, - and .");
        }
        let kubeconfig = self.absolute("kubernetes.kubeconfig", &kubernetes.kubeconfig);
        if kubernetes.mode == KubernetesMode::Off && (kubeconfig.is_some() || !node.is_empty()) {
            self.warn("kubernetes.mode", "is off, so that kubernetes.kubeconfig and kubernetes.node have no effect");
        }
        let node = Some(node.clone()).filter(|node| !node.is_empty());
        Kubernetes { mode: kubernetes.mode, kubeconfig, node, cluster: kubernetes.cluster }
    }

    fn routes(&mut self, written: &Written) -> Routes {
        for (n, template) in written.routes.templates.iter().enumerate() {
            if let Err(bad) = Patterns::new(&[template]) {
                let text = format!("`routes.templates`: `{}`: {}", bad.template, bad.problem);
                self.wrong_at(&format!("routes.templates.{n}"), &text);
            }
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
        let written = &written.traces;
        Traces { chains: written.chains, go: written.chains && written.go, instrumented: written.instrumented, sample }
    }

    fn breaker(&mut self, written: &Written) -> Breaker {
        let share = self.range("enforce.breaker.share", written.enforce.breaker.share, 0.0, 1.0);
        let rise = self.range("enforce.breaker.rise", written.enforce.breaker.rise, 0.0, 1.0);
        if !(5..=600).contains(&written.enforce.breaker.window.0.as_secs()) {
            self.wrong("enforce.breaker.window", "is not from 5s to 10m");
        }
        Breaker { share, rise, ..written.enforce.breaker }
    }

    fn select(&mut self, written: &Written) -> Select {
        for (n, rule) in written.select.iter().enumerate() {
            if rule.port == Some(0) {
                self.wrong_item("select", n, "meets nothing at port 0; write 1 to 65535");
            }
        }
        Select::new(written.select.clone())
    }
}
