//! Who: a service and how its name was found.

use std::sync::Arc;

/// Which rule gave a service its name, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// A rule of the configuration.
    Rule,
    /// `OTEL_SERVICE_NAME` in the process's environment.
    OtelServiceName,
    /// `service.name` of `OTEL_RESOURCE_ATTRIBUTES` in the process's environment.
    OtelResourceAttributes,
    /// Its pod's annotation `resource.opentelemetry.io/service.name`.
    PodAnnotation,
    /// Its pod's label `app.kubernetes.io/instance` or `app.kubernetes.io/name`.
    PodLabel,
    /// The workload that owns its pod, or the pod itself where nothing owns it.
    Workload,
    /// The Kubernetes Service behind an address.
    KubernetesService,
    /// The Kubernetes node that has an address.
    KubernetesNode,
    /// The systemd unit of its cgroup.
    Unit,
    /// The script, module, class or archive that its interpreter runs.
    Script,
    /// Its executable's file name.
    Executable,
    /// Its `task_comm`, when the executable could not be read any more.
    Comm,
    /// Only known by address, or by a name that the wire gave for it.
    External,
    /// Nothing is known.
    Unknown,
}

impl Evidence {
    /// Word shown by `weir services`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::OtelServiceName => "OTEL_SERVICE_NAME",
            Self::OtelResourceAttributes => "OTEL_RESOURCE_ATTRIBUTES",
            Self::PodAnnotation => "pod annotation",
            Self::PodLabel => "pod label",
            Self::Workload => "workload",
            Self::KubernetesService => "kubernetes service",
            Self::KubernetesNode => "kubernetes node",
            Self::Unit => "systemd unit",
            Self::Script => "script",
            Self::Executable => "executable",
            Self::Comm => "comm",
            Self::External => "external",
            Self::Unknown => "unknown",
        }
    }
}

/// A process behind a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Parent's process id; 0 where unknown.
    pub ppid: u32,
    /// Effective user id; absent where unknown.
    pub uid: Option<u32>,
    /// semconv `process.executable.name`.
    pub executable_name: Option<Arc<str>>,
    /// semconv `process.executable.path`.
    pub executable_path: Option<Arc<str>>,
    /// semconv `process.command_line`; kept in memory, leaves it only at privacy level `standard` and above.
    pub command_line: Option<Arc<str>>,
    /// cgroup path (`/proc/PID/cgroup`, line `0::`).
    pub cgroup: Option<Arc<str>>,
}

/// A service: what OpenTelemetry calls a Resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// semconv `service.name`; `unknown` with [`Evidence::Unknown`].
    pub name: Arc<str>,
    /// semconv `service.namespace`.
    pub namespace: Option<Arc<str>>,
    /// How the name was found.
    pub evidence: Evidence,
    /// The process; absent for a service that is only known by address.
    pub process: Option<Process>,
    /// semconv `container.id`.
    pub container_id: Option<Arc<str>>,
    /// systemd unit.
    pub unit: Option<Arc<str>>,
    /// Further Resource attributes (`k8s.*`, `service.version`, …), sorted by key.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl Service {
    /// The service of which nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            name: Arc::from("unknown"),
            namespace: None,
            evidence: Evidence::Unknown,
            process: None,
            container_id: None,
            unit: None,
            attributes: Vec::new(),
        }
    }
}
