//! The configuration as written: every key with its default. The comments here are the reference that users read
//! (`weir config schema`).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Size, Time, feeds::WrittenFeed, hosts::WrittenHost, otlp::WrittenOtlp, proxies::WrittenProxies};
use crate::policy::written::WrittenRule;

/// Configuration of Weir. Sizes are written as `64MiB` or `512B`, times as `100ms`, `30s`, `5m`. Each key may also be
/// given as environment variable `WEIR_SECTION__KEY` or as `--set section.key=value`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Written {
    /// What the agent says about itself.
    pub log: Log,
    /// What may leave the process.
    pub privacy: Privacy,
    /// The control socket.
    pub control: Control,
    /// Prometheus metrics and health.
    pub prometheus: Prometheus,
    /// Export by the OpenTelemetry protocol.
    pub otlp: WrittenOtlp,
    /// Recent calls that are kept on this node.
    pub recent: Recent,
    /// The kernel half.
    pub kernel: Kernel,
    /// Putting connections and calls together.
    pub flow: Flow,
    /// Who a process is.
    pub identity: Identity,
    /// Pods and Services of a cluster.
    pub kubernetes: Kubernetes,
    /// Other hosts that have an agent of their own.
    pub hosts: Vec<WrittenHost>,
    /// Proxies and load balancers whose word on a call's client counts.
    pub proxies: WrittenProxies,
    /// Names of endpoints.
    pub routes: Routes,
    /// TLS.
    pub tls: Tls,
    /// Traces.
    pub traces: Traces,
    /// Drop decisions.
    pub enforce: Enforce,
    /// Which calls are watched. Empty: all of the node. A call is watched when a rule meets it and no rule with
    /// `exclude` does; a rule meets a call when all that it says is true of it.
    pub select: Vec<SelectRule>,
}

/// What the agent says about itself.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Least level that is written to stderr: `error`, `warn`, `info`, `debug`, `trace`, or directives by module as
    /// `warn,weir::export=debug`.
    pub level: String,
}

/// How much of a call may be kept and exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Method, route template, status, sizes, times, peers. No path, query, header value or body.
    Strict,
    /// As strict, and the path, and the query keys of `privacy.query`.
    Standard,
    /// As standard, and bounded windows of bodies, classified in memory and never exported.
    Inspect,
}

/// What may leave the process.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Privacy {
    /// `strict`, `standard` or `inspect`.
    pub level: Level,
    /// Query keys whose values are shown at level `standard` and above; the values of all others are left out.
    pub query: Vec<String>,
    /// Headers whose values are shown at level `standard` and above: `user-agent` is the only one that is read.
    pub headers: Vec<String>,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Path of the unix socket that `weir calls` and the other verbs talk to; its folder is made where missing.
    pub socket: String,
}

/// Prometheus metrics and health.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Prometheus {
    /// Address and port of `/metrics`, `/healthz` and `/readyz`; `off`: none.
    pub listen: String,
}

/// Recent calls that are kept on this node.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recent {
    /// Memory for recent calls; the oldest leave first.
    pub memory: Size,
    /// Recent calls on disk.
    pub disk: Disk,
}

/// Recent calls on disk.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// File of the store. Empty: calls are kept in memory only.
    pub path: String,
    /// Bytes of calls kept on disk; the oldest leave first.
    pub size: Size,
}

/// The kernel half.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kernel {
    /// Size of the ring between kernel and agent, 64KiB to 1GiB; rounded up to a power of two.
    pub ring: Size,
    /// Bytes kept of the start of each message at least, 64B to 64KiB. By need more is kept in any case: 64KiB of a
    /// request, 4KiB of an answer; what is larger serves answers with longer heads, and costs as much to copy.
    pub window: Size,
    /// Root of cgroup v2 to attach to; `auto`: the one that is mounted, or a private mount of it.
    pub cgroup: String,
}

/// Putting connections and calls together.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Flow {
    /// Connections followed at once; beyond it the one that was quiet for longest is let go, and counted.
    pub connections: u32,
    /// Memory for segments that overtook others and wait for them.
    pub reorder: Size,
}

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Processes that are remembered at once; those that were looked up last, half as many, are never read anew.
    pub processes: u32,
    /// Names of services by rule; the first that meets a process wins over everything found otherwise.
    pub rules: Vec<NameRule>,
}

/// A rule that names a service. It meets a process when all that it says is true of it. `*` stands for any text, `?` for
/// one character.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NameRule {
    /// Executable: its path if there is a `/` in it, else its file name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Command line, arguments separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// systemd unit, for instance `shop.service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Container id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// TCP port that it answers on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `service.name` of what the rule meets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `service.namespace` of what the rule meets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Whether pods are named by the API server of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KubernetesMode {
    /// In a pod, or where a kubeconfig is given.
    Auto,
    /// Always: in a pod by its service account, else by a kubeconfig.
    On,
    /// Never.
    Off,
}

/// Pods and Services of a cluster: names for processes in pods of this node, and for addresses of the cluster. The
/// account needs get, list and watch of pods, services and endpointslices (and get of replicasets and jobs, for
/// `CronJob`s and the like); without it, or without an API server, less is named and nothing else changes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// `auto`, `on` or `off`.
    pub mode: KubernetesMode,
    /// File that tells where the API server is, and who asks. Empty: a pod's own service account; outside of a pod,
    /// with mode `on`, `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: String,
    /// Name of this node in the cluster. Empty: the variable `NODE_NAME`, else the host's name.
    pub node: String,
    /// Pods and nodes elsewhere are known by their addresses, too, not only what stands behind Services: for clusters of
    /// up to some hundred nodes, as every agent then hears of every pod. The account also needs nodes.
    pub cluster: bool,
}

/// Names of endpoints.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Routes {
    /// Known templates, for instance `/orders/{id}`: a path that fits one is shown under it. Other paths get a
    /// template by their shape.
    pub templates: Vec<String>,
    /// Templates kept for each service; further ones are shown as one.
    pub limit: u32,
}

/// How TLS plaintext is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// The cheapest way that works.
    Auto,
    /// Where the library hands it over, a probe for each call.
    Data,
    /// On the wire, with the keys of the handshake.
    Handshake,
    /// Not at all: TLS connections are opaque.
    Off,
}

/// TLS.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// `auto`, `data`, `handshake` or `off`.
    pub mode: TlsMode,
}

/// What is exported beside applications that export spans of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Instrumented {
    /// No span of a call that the application tells.
    Silent,
    /// Every span, as a child of the one that the request names.
    Parent,
    /// Spans in a trace beside the application's, linked to it.
    Link,
}

/// Traces.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// Whether calls that a process makes to answer another are told as its children, where that is proven.
    pub chains: bool,
    /// Whether goroutines of Go programs count as threads do for that: a probe on their HTTP client, some 3 µs for each
    /// call that they make.
    pub go: bool,
    /// What is exported of calls that an application tells itself, because it exports spans of its own (known by its
    /// OTLP over HTTP): `silent`: nothing, and whom it calls is told under its span. `parent`: everything, under the span
    /// that the request names. `link`: calls whose request names a span, whoever makes them, in a trace beside the
    /// application's, each with a link to that span.
    pub instrumented: Instrumented,
    /// Share of traces that are exported as spans, 0 to 1, the same ones on every node. Metrics count all calls.
    pub sample: f64,
}

/// What becomes of a call that a drop rule meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It passes, and is counted and shown.
    Monitor,
    /// It is dropped.
    Enforce,
}

/// Drop decisions.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Enforce {
    /// `monitor` or `enforce`.
    pub mode: Mode,
    /// Rules.
    pub rules: Vec<WrittenRule>,
    /// When a rule is taken for a mistake and goes back to monitor mode.
    pub breaker: Breaker,
    /// Folder whose files `*.yaml` and `*.yml` hold further rules, as `rules: [...]`. It is watched; a change is taken
    /// whole or refused whole, and then the rules of before stay. Empty: none.
    pub directory: String,
    /// Lists of addresses that others publish, each made into one rule.
    pub feeds: Vec<WrittenFeed>,
    /// Rules of `WeirPolicy` objects are taken, where Kubernetes is asked and has that kind.
    pub policies: bool,
    /// Namespaces whose policies may name any server of this node, not only their own pods. Who may write a `WeirPolicy`
    /// there may drop calls of the whole cluster.
    pub cluster_namespaces: Vec<String>,
    /// File of the audit log; made with the first change. Empty: changes are only logged.
    pub audit: String,
    /// Folder of what is kept over a restart: the last good list of each feed, and when rules with a time to live began;
    /// read at the start. Empty: nothing is kept.
    pub state: String,
}

/// The circuit breaker of drop rules. Of clients that a rule refuses, clients are counted, not requests; of services
/// whose calls it refuses, the answers that fail (status 5xx, or broken off).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// A rule must refuse so many clients of one port within 10 s at least. 0: no circuit breaker.
    pub clients: u32,
    /// And more than this share of the clients that came there.
    pub share: f64,
    /// A service must fail so many answers after the first refusal of a call that it makes, and must have given as many
    /// before. 0: its answers are not looked at.
    pub errors: u32,
    /// And the share of answers that fail must be higher by more than this than before, for 2 s.
    pub rise: f64,
    /// How long before and after the first refusal counts, 5s to 10m.
    pub window: Time,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { clients: 20, share: 0.5, errors: 20, rise: 0.2, window: Time(Duration::from_secs(30)) }
    }
}

/// A rule of `select`. `*` stands for any text.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SelectRule {
    /// `service.name` of the observed process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `service.namespace` of the observed process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// systemd unit of the observed process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// cgroup path of the observed process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// TCP port of the server's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What the rule meets is left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclude: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

impl Default for Privacy {
    fn default() -> Self {
        Self { level: Level::Strict, query: Vec::new(), headers: Vec::new() }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: "/run/weir/control.sock".into() }
    }
}

impl Default for Prometheus {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".into() }
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self { memory: Size(64 << 20), disk: Disk::default() }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self { path: String::new(), size: Size(1 << 30) }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self { ring: Size(16 << 20), window: Size(512), cgroup: "auto".into() }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self { connections: 65_536, reorder: Size(16 << 20) }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self { processes: 32_768, rules: Vec::new() }
    }
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self { mode: KubernetesMode::Auto, kubeconfig: String::new(), node: String::new(), cluster: false }
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self { templates: Vec::new(), limit: 200 }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { mode: TlsMode::Auto }
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self { chains: true, go: true, instrumented: Instrumented::Silent, sample: 1.0 }
    }
}

impl Default for Enforce {
    fn default() -> Self {
        Self {
            mode: Mode::Monitor,
            rules: Vec::new(),
            breaker: Breaker::default(),
            directory: String::new(),
            feeds: Vec::new(),
            policies: true,
            cluster_namespaces: Vec::new(),
            audit: "/var/log/weir/audit.log".to_owned(),
            state: "/var/lib/weir".to_owned(),
        }
    }
}
