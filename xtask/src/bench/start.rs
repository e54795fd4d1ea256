//! How long from starting the agent to its first call, on a node that is busy.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::place::{self, Scratch};

use super::load;

/// Seconds until the agent wrote its first call.
pub(crate) fn first_call() -> Result<f64> {
    let server = load::server(false)?;
    let address = server.address();
    let scratch = Scratch::new("first-call")?;
    let load = thread::spawn(move || load::constant(address, Some(200), Duration::from_secs(4)));
    thread::sleep(Duration::from_secs(1));
    let begin = Instant::now();
    let mut agent = Command::new(place::weir()?)
        .args(["run", "--output", "json", "--set", "prometheus.listen=off", "--set"])
        .arg(format!("control.socket={}", scratch.join("control.sock").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the agent")?;
    let mut line = String::new();
    let read = agent
        .stdout
        .take()
        .context("no output")
        .and_then(|stdout| BufReader::new(stdout).read_line(&mut line).context("reading the first call"));
    let taken = begin.elapsed();
    agent.kill().context("ending the agent")?;
    agent.wait()?;
    drop(load.join());
    read?;
    ensure!(line.starts_with('{'), "the agent wrote no call but {line:?}");
    Ok(taken.as_secs_f64())
}
