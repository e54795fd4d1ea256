//! Where rules come from beside configuration, CLI and API: a watched folder, feeds of addresses, CrowdSec. What they say
//! is carried out in the kernel, and what they can't mean changes nothing.

mod crowdsec;
mod directory;
mod full;
mod lists;
mod restart;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::Nginx;
use weir_tests::{place, process, wait};

/// Until a change outside must be in force.
const SOON: Duration = Duration::from_secs(5);

/// A status, or the exit code of `curl` that got none, asking from this address.
fn get(nginx: &Nginx, client: &str) -> Result<Result<u16, i32>> {
    let mut command = Command::new(place::program("curl")?);
    command.args(["-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", "--interface", client]);
    let said = process::say(command.arg(nginx.url("/")), Duration::from_secs(20))?;
    Ok(if said.code == 0 { Ok(said.out.trim().parse().context("no status")?) } else { Err(said.code) })
}

/// Clients are refused, or not, from some moment soon on.
fn until_refused(nginx: &Nginx, client: &str, refused: bool) -> Result<()> {
    let what = format!("{client} to be {}", if refused { "refused" } else { "answered" });
    wait::until(SOON, &what, || Ok((get(nginx, client)?.is_err() == refused).then_some(())))
}

/// What `weir mode` says of a source.
fn source(agent: &Agent, name: &str) -> Result<Value> {
    let mode = agent.json(&["mode"])?;
    let sources = mode["sources"].as_array().context("no sources")?;
    sources.iter().find(|source| source["name"] == *name).cloned().with_context(|| format!("no {name} in {mode}"))
}

/// Waits until what is said of a source is as it should be.
fn until_source(agent: &Agent, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = wait::until(SOON, what, || {
        last = source(agent, name).unwrap_or_default();
        Ok(is_so(&last).then(|| last.clone()))
    });
    found.with_context(|| format!("{last}\n{}", agent.log().unwrap_or_default()))
}

/// Ids of the rules in force.
fn ids(agent: &Agent) -> Result<Vec<String>> {
    let rows = agent.lines(&["block", "list"])?;
    Ok(rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect())
}

/// A line of the log counts how often.
fn logged(agent: &Agent, text: &str) -> Result<usize> {
    Ok(agent.log()?.lines().filter(|line| line.contains(text)).count())
}

/// A change is refused with these words.
fn not_removed(agent: &Agent, id: &str, why: &str) -> Result<()> {
    let said = agent.say(&["block", "remove", id])?;
    ensure!(said.code == 1 && said.err.contains(why), "{}: {}", said.code, said.err);
    Ok(())
}
