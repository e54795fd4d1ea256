//! Servers and clients of other protocols.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::place::{self, Scratch};
use crate::process::{self, Process};
use crate::wait;

/// Longest that a server may take to start, or a client to do its work.
const LIMIT: Duration = Duration::from_mins(1);

/// A running server of another protocol.
#[derive(Debug)]
pub struct Foreign {
    process: Process,
    port: u16,
    scratch: Scratch,
}

impl Foreign {
    fn start(command: Command, port: u16, scratch: Scratch) -> Result<Self> {
        let process = Process::start(command, "server", &scratch)?;
        let started = Self { process, port, scratch };
        wait::listening(started.address(), LIMIT).with_context(|| started.process.output().unwrap_or_default())?;
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

    /// Redis, without persistence.
    pub fn redis() -> Result<Self> {
        let (scratch, port) = (Scratch::new("redis")?, place::free_port()?);
        let mut command = Command::new(place::program("redis-server")?);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(scratch.path());
        Self::start(command, port, scratch)
    }

    /// `redis-benchmark`: this many SETs and GETs, and values that look like HTTP.
    pub fn redis_load(&self, count: u32) -> Result<()> {
        let port = self.port.to_string();
        let mut command = Command::new(place::program("redis-benchmark")?);
        command.args(["-q", "-p", &port, "-n", &count.to_string(), "-t", "set,get", "-c", "8"]);
        process::run(&mut command, LIMIT)?;
        let value = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let client = || -> Result<Command> {
            let mut command = Command::new(place::program("redis-cli")?);
            command.args(["-p", &port]);
            Ok(command)
        };
        process::run(client()?.args(["set", "request", value]), LIMIT)?;
        let back = process::run(client()?.args(["get", "request"]), LIMIT)?;
        ensure!(back.trim_end() == value.trim_end(), "redis gave back {back:?}");
        Ok(())
    }

    /// `PostgreSQL` in a cluster of its own, as the account `postgres`.
    pub fn postgres() -> Result<Self> {
        let (scratch, port) = (Scratch::new("postgres")?, place::free_port()?);
        let folder = scratch.join("data");
        let prepare = |command: &mut Command| process::run(command, LIMIT).map(drop);
        prepare(Command::new("chown").arg("postgres").arg(scratch.path()))?;
        prepare(as_postgres("initdb")?.args(["-A", "trust", "--no-sync", "-D"]).arg(&folder))?;
        let mut command = as_postgres("postgres")?;
        command.arg("-D").arg(&folder).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-c", "fsync=off", "-k"]);
        command.arg(scratch.path());
        let started = Self::start(command, port, scratch)?;
        wait::until(LIMIT, "PostgreSQL", || Ok(started.sql("select 1").ok()))?;
        Ok(started)
    }

    /// Runs a statement over TCP, gives its one value.
    pub fn sql(&self, statement: &str) -> Result<String> {
        let mut command = Command::new(place::program("psql")?);
        command.args([
            "-X",
            "-t",
            "-A",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &self.port.to_string(),
            "-c",
            statement,
        ]);
        process::run(&mut command, LIMIT).map(|out| out.trim().to_owned())
    }

    /// `pgbench`: this many transactions.
    pub fn postgres_load(&self, count: u32) -> Result<()> {
        for arguments in [vec!["-i", "-q"], vec!["-c", "4", "-t", &(count / 4).to_string()]] {
            let mut command = as_postgres("pgbench")?;
            command
                .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()])
                .args(arguments)
                .arg("postgres");
            process::run(&mut command, LIMIT)?;
        }
        Ok(())
    }

    /// `openssl s_server -www`, a TLS server that speaks HTTP inside.
    pub fn tls() -> Result<Self> {
        let (scratch, port) = (Scratch::new("tls")?, place::free_port()?);
        let (key, certificate) = (scratch.join("key.pem"), scratch.join("cert.pem"));
        let openssl = place::program("openssl")?;
        let mut command = Command::new(&openssl);
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        command.args(["-subj", "/CN=localhost", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
        process::run(&mut command, LIMIT)?;
        let mut command = Command::new(openssl);
        command.args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-key"]);
        command.arg(&key).arg("-cert").arg(&certificate);
        Self::start(command, port, scratch)
    }

    /// `count` requests of curl over TLS.
    pub fn tls_load(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            let answer = super::load::curl(&["-k", &format!("https://127.0.0.1:{}/", self.port)])?;
            ensure!(answer.contains("s_server"), "the TLS server said {answer}");
        }
        Ok(())
    }

    /// `iperf3 -s`.
    pub fn iperf() -> Result<Self> {
        let (scratch, port) = (Scratch::new("iperf")?, place::free_port()?);
        let mut command = Command::new(place::program("iperf3")?);
        command.args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()]);
        Self::start(command, port, scratch)
    }

    /// Sends this much to `iperf3`; gives bits per second as the receiver counted.
    pub fn iperf_load(&self, gigabytes: u32) -> Result<f64> {
        let mut command = Command::new(place::program("iperf3")?);
        command.args(["-c", "127.0.0.1", "-J", "-p", &self.port.to_string(), "-n", &format!("{gigabytes}G")]);
        // The server takes one client at a time, and the look whether it listens was one: the next is told that it is
        // busy, or reset.
        for _ in 0..20 {
            let said = process::say(&mut command, LIMIT)?;
            let report: serde_json::Value = serde_json::from_str(&said.out).with_context(|| said.err.clone())?;
            let figure = report.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
            if let Some(figure) = figure {
                return Ok(figure);
            }
            ensure!(["busy", "reset by peer"].iter().any(|why| said.out.contains(why)), "iperf3 said {}", said.out);
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("iperf3 stays busy")
    }

    /// gRPC by grpcio: a unary echo.
    pub fn grpc() -> Result<Self> {
        let (scratch, port) = (Scratch::new("grpc")?, place::free_port()?);
        let mut command = grpc()?;
        command.args(["server", &port.to_string()]);
        Self::start(command, port, scratch)
    }

    /// `count` unary calls.
    pub fn grpc_load(&self, count: u32) -> Result<()> {
        process::run(grpc()?.args(["client", &self.port.to_string(), &count.to_string()]), LIMIT).map(drop)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

fn grpc() -> Result<Command> {
    let mut command = Command::new(place::cached("venv/bin/python")?);
    command.arg(place::sources().join("peers/python/grpc_echo.py"));
    Ok(command)
}

/// A program of `PostgreSQL`, which does not run as root.
pub(crate) fn as_postgres(program: &str) -> Result<Command> {
    let mut command = Command::new(place::program("setpriv")?);
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(place::program(program)?).current_dir("/tmp");
    Ok(command)
}
