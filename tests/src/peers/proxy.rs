//! Proxies in front of another server.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::nginx::{Nginx, Setup};
use crate::netns::NetNs;
use crate::place::{self, Scratch};
use crate::process::Process;
use crate::wait;

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `HAProxy` in HTTP mode.
    Haproxy,
    /// `HAProxy` in TCP mode with splice in both directions.
    Splice,
    /// Envoy's HTTP connection manager.
    Envoy,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    port: u16,
    _scratch: Scratch,
}

impl Proxy {
    /// Starts it in front of `upstream` on a free port of 127.0.0.1, waits until it listens.
    pub fn start(kind: Kind, upstream: SocketAddr) -> Result<Self> {
        let scratch = Scratch::new("proxy")?;
        let port = place::free_port()?;
        let command = match kind {
            Kind::Haproxy => haproxy(&scratch, &http(port, upstream))?,
            Kind::Splice => haproxy(&scratch, &splice(port, upstream))?,
            Kind::Envoy => return Self::envoy("", upstream, "", None),
        };
        Self::run(command, port, scratch, None)
    }

    /// Envoy in front of `upstream`: further lines of its connection manager and of its cluster, each with its indent.
    pub fn envoy(manager: &str, upstream: SocketAddr, cluster: &str, netns: Option<&NetNs>) -> Result<Self> {
        let scratch = Scratch::new("proxy")?;
        let port = place::free_port()?;
        let text = envoy(port, upstream).replace("MANAGER", manager) + cluster;
        let path = scratch.write("envoy.yaml", text)?;
        let mut command = Command::new(place::cached("venv/bin/envoy")?);
        command.arg("-c").arg(path).args(["--concurrency", "2", "--disable-hot-restart", "-l", "warning"]);
        Self::run(command, port, scratch, netns)
    }

    /// `HAProxy` in front of `upstream`: further lines of its defaults, further words of its server.
    pub fn haproxy(defaults: &str, upstream: SocketAddr, server: &str) -> Result<Self> {
        Self::haproxy_inside(defaults, upstream, server, None)
    }

    /// The same inside a namespace.
    pub fn haproxy_inside(defaults: &str, upstream: SocketAddr, server: &str, netns: Option<&NetNs>) -> Result<Self> {
        let scratch = Scratch::new("proxy")?;
        let port = place::free_port()?;
        let text = format!(
            "{HAPROXY}  {defaults}\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s {upstream} {server}\n"
        );
        Self::run(haproxy(&scratch, &text)?, port, scratch, netns)
    }

    fn run(command: Command, port: u16, scratch: Scratch, netns: Option<&NetNs>) -> Result<Self> {
        let command = match netns {
            Some(netns) => netns.enter(&command)?,
            None => command,
        };
        let process = Process::start(command, "proxy", &scratch)?;
        let proxy = Self { process, port, _scratch: scratch };
        let listening = || wait::listening(proxy.address(), Duration::from_secs(10));
        netns
            .map_or_else(listening, |netns| netns.inside(listening))
            .with_context(|| proxy.process.output().unwrap_or_default())?;
        Ok(proxy)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// nginx as a proxy in front of `upstream`, keep-alive towards it.
pub fn nginx(upstream: SocketAddr) -> Result<Nginx> {
    Nginx::start(&Setup {
        http: &format!("upstream behind {{ server {upstream}; keepalive 8; }}"),
        server: "location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection \"\"; }",
        ..Setup::default()
    })
}

fn haproxy(scratch: &Scratch, configuration: &str) -> Result<Command> {
    let path = scratch.write("haproxy.cfg", configuration)?;
    let mut command = Command::new(place::program("haproxy")?);
    command.arg("-db").arg("-f").arg(path);
    Ok(command)
}

const HAPROXY: &str =
    "global\n  maxconn 4000\ndefaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n";

fn http(port: u16, upstream: SocketAddr) -> String {
    format!(
        "{HAPROXY}  mode http\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s {upstream}\n"
    )
}

fn splice(port: u16, upstream: SocketAddr) -> String {
    format!(
        "{HAPROXY}  mode tcp\n  option splice-request\n  option splice-response\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s {upstream}\n"
    )
}

fn envoy(port: u16, upstream: SocketAddr) -> String {
    let (address, behind) = (upstream.ip(), upstream.port());
    format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          generate_request_id: false
MANAGER          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes: [ {{ match: {{ prefix: / }}, route: {{ cluster: behind }} }} ]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: behind
    type: STATIC
    load_assignment:
      cluster_name: behind
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: \"{address}\", port_value: {behind} }} }} }}
"
    )
}

/// Envoy with its own tracing by OpenTelemetry: `/order` on `port` is `/s/200` of `upstream`, spans go to `collector` by gRPC.
/// Both are URLs.
pub(super) fn tracing(port: u16, upstream: &str, collector: &str) -> Result<Command> {
    let end = |url: &str| -> Result<SocketAddr> {
        url.trim_end_matches('/').trim_start_matches("http://").parse().with_context(|| url.to_owned())
    };
    let cluster = |name: &str, at: SocketAddr| {
        json!({
            "name": name, "type": "STATIC", "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{
                "endpoint": { "address": { "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } } },
            }] }] },
        })
    };
    let kind = |name: &str| format!("type.googleapis.com/envoy.{name}");
    let mut receiver = cluster("collector", end(collector)?);
    receiver["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": kind("extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http2_protocol_options": {} },
    } });
    let manager = json!({
        "@type": kind("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "front",
        "tracing": {
            "spawn_upstream_span": true,
            "provider": { "name": "envoy.tracers.opentelemetry", "typed_config": {
                "@type": kind("config.trace.v3.OpenTelemetryConfig"), "service_name": "sdk",
                "grpc_service": { "envoy_grpc": { "cluster_name": "collector" }, "timeout": "5s" },
            } },
        },
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [{
            "match": { "prefix": "/order" }, "route": { "cluster": "behind", "prefix_rewrite": "/s/200" },
        }] }] },
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
            "@type": kind("extensions.filters.http.router.v3.Router"),
        } }],
    });
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let settings = json!({
        "layered_runtime": { "layers": [{ "name": "static", "static_layer": {
            "tracing.opentelemetry.min_flush_spans": 1, "tracing.opentelemetry.flush_interval_ms": 100,
        } }] },
        "static_resources": {
            "listeners": [{ "address": address, "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] }],
            "clusters": [cluster("behind", end(upstream)?), receiver],
        },
    });
    let mut command = Command::new(place::cached("venv/bin/envoy")?);
    command.args([
        "--config-yaml",
        &settings.to_string(),
        "--concurrency",
        "2",
        "--disable-hot-restart",
        "-l",
        "warning",
    ]);
    Ok(command)
}
