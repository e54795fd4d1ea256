//! The same small server and client in many runtimes (`tests/peers/README.md`).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::proxy;
use crate::place::{self, Scratch};
use crate::process::{self, Process, children};
use crate::truth::Row;
use crate::wait;

/// Servers, by runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve {
    /// Python `http.server`.
    PythonHttp,
    /// gunicorn with Flask, two worker processes.
    Flask,
    /// uvicorn with `FastAPI`.
    FastApi,
    /// aiohttp.
    Aiohttp,
    /// Node `http`.
    Node,
    /// Go `net/http`.
    Go,
    /// Java `com.sun.net.httpserver`.
    Java,
}

impl Serve {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::PythonHttp, Self::Flask, Self::FastApi, Self::Aiohttp, Self::Node, Self::Go, Self::Java];
}

/// Clients, by runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Python requests.
    Requests,
    /// aiohttp.
    Aiohttp,
    /// Node `http`.
    Node,
    /// undici.
    Undici,
    /// Go `net/http`.
    Go,
    /// Java `java.net.http`.
    Java,
}

impl Ask {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Requests, Self::Aiohttp, Self::Node, Self::Undici, Self::Go, Self::Java];
}

/// What one client run asks for: rows in order, with the paths.
#[must_use]
pub fn script(count: u64) -> Vec<Row> {
    const STATUSES: [u16; 6] = [200, 404, 500, 503, 204, 304];
    (0..count)
        .zip(STATUSES.into_iter().cycle())
        .flat_map(|(i, status)| {
            let answer = if matches!(status, 204 | 304) { 0 } else { 3 };
            [
                Row::new("GET", &format!("/fixed/{i}"), 200, 0, i),
                Row::new("GET", &format!("/chunked/{i}"), 200, 0, i),
                Row::new("POST", "/echo", 200, i + 1, i + 1),
                Row::new("GET", &format!("/status/{status}"), status, 0, answer),
            ]
        })
        .collect()
}

/// The lines that a client prints for [`script`].
#[must_use]
pub fn printed(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let (status, size) = (row.status.unwrap_or_default(), row.response.unwrap_or_default());
        format!("{} {} {status} {size}\n", row.method, row.path)
    };
    rows.iter().map(line).collect()
}

/// A running server of one runtime.
#[derive(Debug)]
pub struct Runtime {
    process: Process,
    port: u16,
    log: PathBuf,
    forks: bool,
    _scratch: Scratch,
}

impl Runtime {
    /// Starts it on a free port of 127.0.0.1, waits until it listens.
    pub fn start(serve: Serve) -> Result<Self> {
        let scratch = Scratch::new("runtime")?;
        let port = place::free_port()?;
        let log = scratch.write("requests.log", "")?;
        let (module, listen) = (place::sources().join("peers/python"), format!("127.0.0.1:{port}"));
        let mut command = match serve {
            Serve::PythonHttp => python("python/http_server.py")?,
            Serve::Aiohttp => python("python/aiohttp_server.py")?,
            Serve::Flask => {
                let mut command = Command::new(place::cached("venv/bin/gunicorn")?);
                command.args(["-w", "2", "--threads", "4", "-b", &listen, "flask_app:app"]);
                command
            }
            Serve::FastApi => {
                let mut command = Command::new(place::cached("venv/bin/uvicorn")?);
                command.args(["--log-level", "warning", "--port", &port.to_string(), "fastapi_app:app"]);
                command
            }
            Serve::Node => node("node/server.mjs")?,
            Serve::Go => go("server")?,
            Serve::Java => java("Server")?,
        };
        if matches!(serve, Serve::Flask | Serve::FastApi) {
            command.current_dir(module).env("PEER_LOG", &log).env("PYTHONDONTWRITEBYTECODE", "1");
        } else {
            command.arg(port.to_string()).arg(&log);
        }
        let process = Process::start(command, "server", &scratch)?;
        let forks = serve == Serve::Flask;
        let started = Self { process, port, log, forks, _scratch: scratch };
        let limit = Duration::from_secs(20);
        wait::listening(started.address(), limit)
            .and_then(|()| {
                wait::until(limit, "its workers", || {
                    Ok((started.servers()?.len() == if forks { 2 } else { 1 }).then_some(()))
                })
            })
            .with_context(|| format!("{serve:?}: {}", started.process.output().unwrap_or_default()))?;
        Ok(started)
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

    /// Ids of the processes that answer.
    pub fn servers(&self) -> Result<Vec<u32>> {
        if self.forks { children(self.process.pid()) } else { Ok(vec![self.process.pid()]) }
    }

    /// Lines of its log, `METHOD PATH STATUS CLIENT_PORT`, once there are `count`.
    pub fn logged(&self, count: usize) -> Result<Vec<String>> {
        wait::until(Duration::from_secs(5), &format!("{count} lines in the server's log"), || {
            let text = fs::read_to_string(&self.log)?;
            Ok(Some(text.lines().map(str::to_owned).collect::<Vec<_>>()).filter(|lines| lines.len() >= count))
        })
    }
}

/// Runs a client to its end; gives its process id and what it printed.
pub fn ask(client: Ask, base: &str, count: u64) -> Result<(u32, String)> {
    let scratch = Scratch::new("client")?;
    let mut command = self::client(client)?;
    command.arg(base).arg(count.to_string());
    let mut process = Process::start(command, "client", &scratch)?;
    let printed = process.succeed(Duration::from_mins(1)).with_context(|| format!("{client:?}"))?;
    Ok((process.pid(), printed))
}

/// The command of a client; it takes a base URL and a number of rounds.
pub fn client(client: Ask) -> Result<Command> {
    Ok(match client {
        Ask::Requests => python("python/requests_client.py")?,
        Ask::Aiohttp => python("python/aiohttp_client.py")?,
        Ask::Node => node("node/http_client.mjs")?,
        Ask::Undici => node("node/undici_client.mjs")?,
        Ask::Go => go("client")?,
        Ask::Java => java("Client")?,
    })
}

pub(super) fn python(script: &str) -> Result<Command> {
    let mut command = Command::new(place::cached("venv/bin/python")?);
    command.arg(place::sources().join("peers").join(script)).env("PYTHONUNBUFFERED", "1");
    Ok(command)
}

pub(super) fn node(script: &str) -> Result<Command> {
    let mut command = Command::new(place::program("node")?);
    command.arg(place::sources().join("peers").join(script)).env("NODE_PATH", place::cached("node/node_modules")?);
    Ok(command)
}

pub(super) fn go(mode: &str) -> Result<Command> {
    go_as("peer", mode)
}

/// How the Go peer is built: as usual; without symbols; to lie anywhere in memory, without symbols.
const GO_WAYS: [(&str, &[&str]); 3] =
    [("peer", &[]), ("stripped", &["-ldflags=-s -w"]), ("anywhere", &["-ldflags=-s -w", "-buildmode=pie"])];

pub(super) fn go_as(way: &str, mode: &str) -> Result<Command> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        build("peers/go", |source, to| {
            let go = |(name, ways): (&str, &[&str])| -> Result<Command> {
                let mut command = Command::new(place::program("go")?);
                command.current_dir(source).arg("build").args(ways).arg("-o").arg(to.join(name)).arg(".");
                command.env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "0");
                Ok(command)
            };
            for way in &GO_WAYS[1..] {
                let status = go(*way)?.status()?;
                anyhow::ensure!(status.success(), "go build: {status}");
            }
            go(GO_WAYS[0])
        })
        .map_err(|error| format!("{error:#}"))
    });
    let folder = built.as_ref().map_err(|error| anyhow!("building the Go peer: {error}"))?;
    let mut command = Command::new(folder.join(way));
    command.arg(mode);
    Ok(command)
}

/// Calls a second that a Go client with 16 goroutines makes of a URL, as fast as it can.
pub fn go_load(url: &str, time: Duration) -> Result<f64> {
    let seconds = time.as_secs().max(1);
    let text = process::run(go("load")?.arg(url).arg(seconds.to_string()), time + Duration::from_secs(30))?;
    let answered: u64 = text.trim().parse().with_context(|| format!("the Go client said {text}"))?;
    Ok(answered as f64 / seconds as f64)
}

pub(super) fn java(class: &str) -> Result<Command> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        build("peers/java", |source, to| {
            let mut command = Command::new(place::program("javac")?);
            command.current_dir(source).arg("-d").arg(to).args([
                "Server.java",
                "Client.java",
                "Chain.java",
                "Instrumented.java",
            ]);
            Ok(command)
        })
        .map_err(|error| format!("{error:#}"))
    });
    let folder = built.as_ref().map_err(|error| anyhow!("building the Java peers: {error}"))?;
    let mut command = Command::new(place::program("java")?);
    command.args(["-XX:TieredStopAtLevel=1", "-Xmx128m", "-cp"]).arg(folder).arg(class);
    Ok(command)
}

/// Applications that tell their calls themselves, with OpenTelemetry's own SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrumented {
    /// Flask and requests; exports each span before it goes on.
    Python,
    /// `net/http`; exports each span before it goes on.
    Go,
    /// `com.sun.net.httpserver` and `java.net.http` under the agent for Java; exports what has come every 100 ms.
    Java,
    /// Envoy, which passes `/order` on; exports by gRPC what has come every 100 ms.
    Envoy,
}

impl Instrumented {
    /// Whether a request's spans are exported before its answer is sent.
    #[must_use]
    pub fn exports_first(self) -> bool {
        matches!(self, Self::Python | Self::Go)
    }
}

/// The command of an application that is instrumented: it listens on `port`, answers `/order` with what `upstream` says of
/// `/s/200`, and exports to `collector` by gRPC or HTTP.
pub fn instrumented(which: Instrumented, port: u16, upstream: &str, collector: &str, grpc: bool) -> Result<Command> {
    let mut command = match which {
        Instrumented::Python => python("python/instrumented.py")?,
        Instrumented::Go => {
            let folder = build("peers/otel", |source, to| {
                let mut command = Command::new(place::program("go")?);
                command.current_dir(source).args(["build", "-mod=readonly", "-o"]).arg(to.join("otel")).arg(".");
                command.env("GOWORK", "off").env("CGO_ENABLED", "0");
                Ok(command)
            })?;
            Command::new(folder.join("otel"))
        }
        Instrumented::Java => {
            let mut command = java("Instrumented")?;
            let agent = place::cached("java/opentelemetry-javaagent-2.20.1.jar")?;
            command.env("JAVA_TOOL_OPTIONS", format!("-javaagent:{}", agent.display()));
            let protocol = if grpc { "grpc" } else { "http/protobuf" };
            for (key, value) in [
                ("OTEL_SERVICE_NAME", "sdk"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_METRICS_EXPORTER", "none"),
                ("OTEL_LOGS_EXPORTER", "none"),
                ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ] {
                command.env(key, value);
            }
            command
        }
        Instrumented::Envoy => return proxy::tracing(port, upstream, collector),
    };
    command.args([&port.to_string(), upstream]);
    if which.exports_first() {
        command.args([collector, if grpc { "grpc" } else { "http" }]);
    }
    Ok(command)
}

/// Builds the folder `name` of `tests` into the cache, unless that holds the outcome of the same sources.
pub(crate) fn build(name: &str, command: impl Fn(&Path, &Path) -> Result<Command>) -> Result<PathBuf> {
    let source = place::sources().join(name);
    let to = place::cache()?.join(name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&source)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut now = String::new();
    for file in files {
        now += &fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    }
    let stamp = to.join("built-from");
    if fs::read_to_string(&stamp).is_ok_and(|then| then == now) {
        return Ok(to);
    }
    fs::create_dir_all(&to)?;
    process::run(&mut command(&source, &to)?, Duration::from_mins(5))?;
    fs::write(&stamp, now)?;
    Ok(to)
}
