//! The load: a small answer of nginx, asked for as fast as possible, at a constant rate, or over many connections.

use std::{
    fs,
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
    /// Microseconds, from sending a request to the end of its answer.
    pub(crate) p99: f64,
}

/// Connections of the load at a constant rate.
const PACED: u64 = 16;

/// `h2load` at about `rate` requests a second, each connection sending by its own clock; without one, as fast as it can.
pub(crate) fn constant(address: SocketAddr, rate: Option<u64>, time: Duration) -> Result<Constant> {
    let scratch = Scratch::new("constant")?;
    let log = scratch.join("requests.log");
    let mut command = Command::new(place::program("h2load")?);
    command.args(["--h1", "-t", "1", "-c", &PACED.to_string()]);
    if let Some(rate) = rate {
        command.args(["--rps", &(rate / PACED).max(1).to_string()]);
    }
    command
        .args(["-D", &time.as_secs().to_string()])
        .arg("--log-file")
        .arg(&log)
        .arg(format!("http://{address}/bench"));
    run(&mut command, time + Duration::from_mins(1))?;
    let text = fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
    p99(&text, time)
}

/// Reads lines of start, status and duration in microseconds.
fn p99(log: &str, time: Duration) -> Result<Constant> {
    let mut durations = Vec::new();
    for line in log.lines() {
        let mut words = line.split_ascii_whitespace().skip(1);
        ensure!(words.next() == Some("200"), "h2load met an error: {line}");
        durations.push(words.next().and_then(|word| word.parse::<u64>().ok()).with_context(|| line.to_owned())?);
    }
    durations.sort_unstable();
    let p99 = durations.get(durations.len() * 99 / 100).context("h2load sent nothing")?;
    Ok(Constant { per_second: durations.len() as f64 / time.as_secs_f64(), p99: *p99 as f64 })
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::p99;

    #[test]
    fn the_99th_of_100_durations_is_read() {
        let log: Vec<String> = (0..100).rev().map(|n| format!("179571574244{n}\t200\t{n}")).collect();
        let read = p99(&log.join("\n"), Duration::from_secs(2)).unwrap();
        assert!((read.p99 - 99.0).abs() < 1e-9 && (read.per_second - 50.0).abs() < 1e-9);
        assert!(p99("1\t500\t3\n", Duration::from_secs(1)).is_err());
        assert!(p99("", Duration::from_secs(1)).is_err());
    }
}
