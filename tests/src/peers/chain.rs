//! Applications that call others to answer, in many runtimes, which write down which call caused which
//! (`tests/peers/chain/chain.py`).

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::runtime::{go_as, java, node, python};
use crate::place::{self, Scratch};
use crate::process::Process;
use crate::wait;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Middle {
    /// Python `ThreadingHTTPServer`, a thread a connection, which calls with `urllib`.
    PythonThreads,
    /// The same, but a pool of threads calls.
    PythonPool,
    /// The same, but a thread calls later, for several requests at a time.
    PythonBatch,
    /// The same, with the OpenTelemetry SDK.
    Instrumented,
    /// gunicorn with two synchronous workers; Flask and requests.
    Flask,
    /// The same with a worker of gevent: threads that are none for the kernel.
    Gevent,
    /// aiohttp at both ends, one thread.
    Aiohttp,
    /// The same, waiting with `poll` rather than `epoll`.
    AiohttpPoll,
    /// Node `http` at both ends.
    Node,
    /// Go `net/http` at both ends; the goroutine calls that answers.
    Go,
    /// The same, without symbols.
    GoStripped,
    /// The same, which may lie anywhere in memory.
    GoAnywhere,
    /// As `Go`, but a goroutine that the handler starts for it makes each call.
    GoFan,
    /// As `Go`, but goroutines call that the first request starts and that serve all.
    GoPool,
    /// As `Go`, but a goroutine calls later, for several requests at a time.
    GoBatch,
    /// As `Go`, but the handler runs under a time limit, in another goroutine than answers.
    GoLate,
    /// As `Go`, but without its HTTP client: the goroutine writes itself.
    GoDirect,
    /// `com.sun.net.httpserver` with a pool of threads, which call with `HttpURLConnection`.
    Java,
    /// The same, but a second pool of threads calls.
    JavaPool,
}

impl Middle {
    /// How `go/chain.go` calls; `None`: it is none.
    fn kind_of_go(self) -> Option<&'static str> {
        Some(match self {
            Self::Go | Self::GoStripped | Self::GoAnywhere => "same",
            Self::GoFan => "fan",
            Self::GoPool => "pool",
            Self::GoBatch => "batch",
            Self::GoLate => "late",
            Self::GoDirect => "direct",
            _ => return None,
        })
    }
}

/// A running one.
#[derive(Debug)]
pub struct Chain {
    process: Process,
    port: u16,
    log: PathBuf,
    _scratch: Scratch,
}

impl Chain {
    /// Starts it on a free port of 127.0.0.1, waits until it listens. `up`: base URL of what it calls.
    pub fn start(middle: Middle, up: &str) -> Result<Self> {
        let scratch = Scratch::new("chain")?;
        let port = place::free_port()?;
        let log = scratch.write("chain.log", "")?;
        let chain = |kind: &str| -> Result<Command> {
            let mut command = python("chain/chain.py")?;
            command.arg(kind);
            Ok(command)
        };
        let mut command = match middle {
            Middle::PythonThreads => chain("threads")?,
            Middle::PythonPool => chain("pool")?,
            Middle::PythonBatch => chain("batch")?,
            Middle::Instrumented => chain("sdk")?,
            Middle::Aiohttp => chain("aiohttp")?,
            Middle::AiohttpPoll => chain("aiohttp-poll")?,
            Middle::Node => node("chain/chain.mjs")?,
            Middle::GoStripped => go_as("stripped", "chain")?,
            Middle::GoAnywhere => go_as("anywhere", "chain")?,
            Middle::Go | Middle::GoFan | Middle::GoPool | Middle::GoBatch | Middle::GoLate | Middle::GoDirect => {
                go_as("peer", "chain")?
            }
            Middle::Java | Middle::JavaPool => java("Chain")?,
            Middle::Flask | Middle::Gevent => {
                let mut command = Command::new(place::cached("venv/bin/gunicorn")?);
                let workers =
                    if middle == Middle::Flask { ["-w", "2", "-k", "sync"] } else { ["-w", "1", "-k", "gevent"] };
                command.args(workers).args(["-b", &format!("127.0.0.1:{port}"), "flask_chain:app"]);
                command.current_dir(place::sources().join("peers/chain"));
                command.env("CHAIN_LOG", &log).env("CHAIN_UP", up).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
        };
        let last = match middle {
            Middle::Java => Some("same"),
            Middle::JavaPool => Some("pool"),
            _ => middle.kind_of_go(),
        };
        if !matches!(middle, Middle::Flask | Middle::Gevent) {
            command.arg(port.to_string()).arg(&log).arg(up).args(last);
        }
        let process = Process::start(command, "chain", &scratch)?;
        let started = Self { process, port, log, _scratch: scratch };
        wait::listening(address(port), Duration::from_secs(20))
            .with_context(|| format!("{middle:?}: {}", started.process.output().unwrap_or_default()))?;
        Ok(started)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it says it called so far: `ID K` by the request that caused it, `bg I` by a timer.
    pub fn logged(&self) -> Result<BTreeSet<String>> {
        Ok(fs::read_to_string(&self.log)?.lines().map(str::to_owned).collect())
    }

    /// What it printed.
    pub fn output(&self) -> Result<String> {
        self.process.output()
    }
}

/// The end of chains: answers anything after a few milliseconds.
#[derive(Debug)]
pub struct Leaf {
    _process: Process,
    port: u16,
    _scratch: Scratch,
}

impl Leaf {
    /// Starts it on a free port of 127.0.0.1, waits until it listens.
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new("leaf")?;
        let port = place::free_port()?;
        let mut command = python("chain/leaf.py")?;
        command.arg(port.to_string());
        let process = Process::start(command, "leaf", &scratch)?;
        wait::listening(address(port), Duration::from_secs(20))
            .with_context(|| process.output().unwrap_or_default())?;
        Ok(Self { _process: process, port, _scratch: scratch })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Asks `base` for `count` chains of `fan` calls each, `at_once` at a time; `headers` as of `drive.py`.
pub fn drive(base: &str, count: usize, at_once: usize, fan: usize, headers: &str) -> Result<()> {
    let scratch = Scratch::new("drive")?;
    let mut command = python("chain/drive.py")?;
    command.arg(base).args([count, at_once, fan].map(|number| number.to_string())).arg(headers);
    Process::start(command, "drive", &scratch)?.succeed(Duration::from_mins(2)).map(drop)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
