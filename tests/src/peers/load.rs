//! Load tools and clients, with what they counted.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::place::{self, Scratch};
use crate::process::{self, Process};

/// What a load tool counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its process id.
    pub pid: u32,
    /// Requests that were answered.
    pub answered: u64,
    /// Answers by hundreds of their status: 1xx, 2xx, 3xx, 4xx, 5xx; zeros where the tool does not say.
    pub classes: [u64; 5],
    /// Errors of any kind that the tool counted.
    pub errors: u64,
}

/// Longest that a load may take.
const LIMIT: Duration = Duration::from_mins(2);

/// `h2load --h1`: exactly `requests` HTTP/1.1 requests over `connections` connections, going round `urls`.
pub fn h2load(requests: u64, connections: u32, urls: &[String]) -> Result<Load> {
    let scratch = Scratch::new("h2load")?;
    let list = scratch.write("urls", urls.join("\n"))?;
    let mut command = Command::new(place::program("h2load")?);
    command.args(["--h1", "-t", "1", "-n", &requests.to_string(), "-c", &connections.to_string(), "-i"]).arg(list);
    let mut process = Process::start(command, "h2load", &scratch)?;
    let text = process.succeed(LIMIT)?;
    let numbers = |head: &str| -> Result<Vec<u64>> {
        let line =
            text.lines().find_map(|line| line.strip_prefix(head)).with_context(|| format!("no {head} in {text}"))?;
        Ok(line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect())
    };
    let counts = numbers("requests: ")?;
    let [total, _started, done, _succeeded, failed, errored, timeout] = counts.as_slice() else {
        anyhow::bail!("h2load said {text}")
    };
    ensure!(*total == requests && *done == requests, "h2load said {text}");
    // A status of 4xx or 5xx counts as failed there, which is no error here.
    let codes = text.lines().find_map(|line| line.strip_prefix("status codes: ")).context("no status codes")?;
    let codes: Vec<u64> = codes.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [two, three, four, five] = codes.as_slice() else { anyhow::bail!("h2load said {text}") };
    ensure!(*failed == four + five + errored, "h2load said {text}");
    Ok(Load {
        pid: process.pid(),
        answered: *done,
        classes: [0, *two, *three, *four, *five],
        errors: errored + timeout,
    })
}

/// `wrk` for `time` over `connections` keep-alive connections, each going round `paths`.
pub fn wrk(time: Duration, connections: u32, address: SocketAddr, paths: &[&str]) -> Result<Load> {
    let scratch = Scratch::new("wrk")?;
    let list = format!("\"{}\"", paths.join("\",\""));
    let script = scratch.write(
        "paths.lua",
        format!("local paths = {{{list}}}\nlocal at = 0\nrequest = function()\n  at = at % #paths + 1\n  return wrk.format(\"GET\", paths[at])\nend\n"),
    )?;
    let mut command = Command::new(place::program("wrk")?);
    command.args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{}s", time.as_secs()), "-s"]);
    command.arg(script).arg(format!("http://{address}"));
    let mut process = Process::start(command, "wrk", &scratch)?;
    let text = process.succeed(time + LIMIT)?;
    let answered = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let errors = text.lines().find_map(|line| line.trim().strip_prefix("Socket errors: ")).unwrap_or_default();
    Ok(Load {
        pid: process.pid(),
        answered: answered.with_context(|| format!("wrk said {text}"))?,
        classes: [0; 5],
        errors: errors.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum(),
    })
}

/// `ab`: exactly `requests` requests with `concurrency` at once; without `keep_alive` a connection for each.
pub fn ab(requests: u64, concurrency: u32, keep_alive: bool, url: &str) -> Result<Load> {
    let scratch = Scratch::new("ab")?;
    let mut command = Command::new(place::program("ab")?);
    command.args(["-q", "-n", &requests.to_string(), "-c", &concurrency.to_string()]);
    if keep_alive {
        command.arg("-k");
    }
    command.arg(url);
    let mut process = Process::start(command, "ab", &scratch)?;
    let text = process.succeed(LIMIT)?;
    let number = |head: &str| text.lines().find_map(|line| line.strip_prefix(head)?.trim().parse::<u64>().ok());
    Ok(Load {
        pid: process.pid(),
        answered: number("Complete requests:").with_context(|| format!("ab said {text}"))?,
        classes: [0; 5],
        errors: number("Failed requests:").with_context(|| format!("ab said {text}"))?,
    })
}

/// `curl ARGUMENTS`, silent; gives what it wrote to standard output.
pub fn curl(arguments: &[&str]) -> Result<String> {
    process::run(Command::new(place::program("curl")?).arg("-s").args(arguments), Duration::from_mins(1))
}

/// One `curl` process after another, `count` of them, the serial in place of `{}` in the URL; gives their ids.
pub fn curls(count: u32, url: &str) -> Result<Vec<u32>> {
    let curl = place::program("curl")?;
    let mut ids = Vec::new();
    for serial in 0..count {
        let mut command = Command::new(&curl);
        command.args(["-s", "-o", "/dev/null", &url.replace("{}", &serial.to_string())]);
        let mut child = command.spawn()?;
        ids.push(child.id());
        let status = child.wait()?;
        ensure!(status.success(), "curl {serial} ended with {status}");
    }
    Ok(ids)
}
