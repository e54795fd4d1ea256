//! The load: a small answer of nginx, asked for as fast as possible, at a constant rate, or over many connections.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    peers::nginx::{Nginx, Setup},
    place::{self, Scratch},
    process::{Process, run},
};

use crate::setup::stamp;

/// Connections of the saturating load.
const CONNECTIONS: u32 = 64;

/// A server with an answer of 345 bytes, as the example of a call has it.
pub(crate) fn server(access_log: bool) -> Result<Nginx> {
    let log = if access_log { "access_log access.log combined;" } else { "" };
    let body = "x".repeat(345);
    let server = format!("{log} location = /bench {{ return 200 \"{body}\"; }}");
    Nginx::start(&Setup { server: &server, silent: true, ..Setup::default() })
}

/// What a saturating load did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saturated {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
}

/// `wrk` on both cores.
pub(crate) fn saturate(address: SocketAddr, time: Duration) -> Result<Saturated> {
    let begin = Instant::now();
    let text = run(
        Command::new(place::program("wrk")?)
            .args(["-t", "2", "-c", &CONNECTIONS.to_string(), "-d", &format!("{}s", time.as_secs())])
            .arg(format!("http://{address}/bench")),
        time + Duration::from_secs(30),
    )?;
    ensure!(begin.elapsed() >= time, "wrk ended early: {text}");
    ensure!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "wrk met errors: {text}");
    let word = |before: &str, after: &str| -> Option<&str> {
        text.lines().find_map(|line| line.trim().split_once(after)?.0.strip_prefix(before).map(str::trim))
    };
    let requests = word("", " requests in ").and_then(|word| word.parse().ok());
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok());
    let what = || format!("wrk said {text}");
    Ok(Saturated { requests: requests.with_context(what)?, per_second: rate.with_context(what)? })
}

/// What a load at a constant rate met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Constant {
    pub(crate) per_second: f64,
    /// Microseconds, from when a request was due.
    pub(crate) p99: f64,
}

/// `vegeta` at `rate` requests a second, or at 0 as fast as 64 workers can.
pub(crate) fn constant(address: SocketAddr, rate: u64, time: Duration) -> Result<Constant> {
    let scratch = Scratch::new("vegeta")?;
    let targets = scratch.write("targets", format!("GET http://{address}/bench\n"))?;
    let results = scratch.join("results");
    let vegeta = stamp::tool("vegeta")?;
    let mut attack = Command::new(&vegeta);
    attack.args(["attack", "-rate", &rate.to_string(), "-duration", &format!("{}s", time.as_secs())]);
    if rate == 0 {
        attack.args(["-max-workers", "64"]);
    }
    attack.arg("-targets").arg(targets).arg("-output").arg(&results);
    run(&mut attack, time + Duration::from_mins(1))?;
    // Judged afterwards, so that the judging takes nothing from what is measured.
    let text = run(Command::new(vegeta).args(["report", "-type=json"]).arg(&results), Duration::from_mins(2))?;
    let report: serde_json::Value = serde_json::from_str(&text).context("reading vegeta's report")?;
    let success = report["success"].as_f64();
    ensure!(success == Some(1.0), "vegeta met errors: {}", report["errors"]);
    let number = |value: &serde_json::Value| value.as_f64().with_context(|| format!("vegeta said {text}"));
    Ok(Constant { per_second: number(&report["throughput"])?, p99: number(&report["latencies"]["99th"])? / 1000.0 })
}

/// Starts 10 000 connections with a request a second on each.
pub(crate) fn many_connections(address: SocketAddr, time: Duration, scratch: &Scratch) -> Result<Process> {
    let h2load = place::program("h2load")?;
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "ulimit -n $(ulimit -Hn) && exec '{}' --h1 -t 1 -c 10000 --rps 1 -D {} http://{address}/bench",
        h2load.display(),
        time.as_secs()
    ));
    Process::start(command, "h2load", scratch)
}

/// Requests that it counted in the end.
pub(crate) fn many_done(mut load: Process, time: Duration) -> Result<u64> {
    let text = load.succeed(time + Duration::from_mins(1))?;
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "));
    let done = line.and_then(|line| line.split(", ").find_map(|part| part.strip_suffix(" done")?.parse().ok()));
    done.with_context(|| format!("h2load said {text}"))
}
