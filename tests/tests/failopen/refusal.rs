//! A kernel that refuses a program of the gate: the node stays in monitor mode, and says why and what to do.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::cgroup::Cgroup;
use weir_tests::peers::nginx::Nginx;
use weir_tests::rules::rule;
use weir_tests::{bpf, wait};

use super::{answered, unharmed};

/// The row about the gate of `weir doctor`.
fn gate(agent: &Agent) -> Result<serde_json::Value> {
    let report = agent.json(&["doctor"])?;
    let rows = report["rows"].as_array().context("no rows")?;
    rows.iter().find(|row| row["subject"] == "gate").cloned().context("no row about the gate")
}

#[test]
fn a_refused_program_lets_everything_pass() -> Result<()> {
    let group = Cgroup::new("refusal")?;
    let nginx = group.inside(Nginx::plain)?;
    let agent = Agent::start(&[&format!("kernel.cgroup={}", group.path().display())])?;
    let row = gate(&agent)?;
    ensure!(
        row["standing"] == "ok" && row["detail"].as_str().is_some_and(|text| text.contains("monitor mode")),
        "{row}"
    );
    rule(&agent, "r", &["--path", "/r", "--port", &nginx.port().to_string()])?;
    let (places, _) = unharmed(&nginx, || {
        let places = bpf::crowd(group.path())?;
        ensure!(places.len() == 63, "{} places were left", places.len());
        for _ in 0..3 {
            let said = agent.say(&["mode", "enforce"])?;
            ensure!(said.code == 1 && said.err.contains("weir_gate_in was refused"), "{}", said.err);
            ensure!(said.err.contains("Argument list too long"), "{}", said.err);
        }
        ensure!(answered(&nginx, "/r")?, "a node in monitor mode refuses");
        Ok(places)
    })?;
    ensure!(agent.json(&["mode"])?["mode"] == "monitor");
    let row = gate(&agent)?;
    ensure!(
        row["standing"] == "degraded" && row["detail"].as_str().is_some_and(|text| text.contains("too long")),
        "{row}"
    );
    ensure!(row["remedy"].as_str().is_some_and(|text| text.contains("weir mode enforce")), "{row}");
    // What the rule met is told, as in any monitor mode.
    wait::until(Duration::from_secs(5), "a hit", || {
        Ok((agent.lines(&["block", "list"])?[0]["hits"] == 1).then_some(()))
    })?;
    drop(places);
    unharmed(&nginx, || {
        // Links end a moment after their last descriptor.
        wait::until(Duration::from_secs(5), "a place", || {
            Ok((agent.say(&["mode", "enforce"])?.code == 0).then_some(()))
        })?;
        ensure!(!answered(&nginx, "/r")?, "a node that enforces lets pass");
        Ok(())
    })?;
    let row = gate(&agent)?;
    ensure!(
        row["standing"] == "ok" && row["detail"].as_str().is_some_and(|text| text.starts_with("attached")),
        "{row}"
    );
    agent.finish()
}

/// The same load, and programs that the kernel takes: every message is delivered.
#[test]
fn nothing_is_lost_while_programs_load() -> Result<()> {
    let group = Cgroup::new("loading")?;
    let nginx = group.inside(Nginx::plain)?;
    let agent = Agent::start(&[&format!("kernel.cgroup={}", group.path().display())])?;
    rule(&agent, "r", &["--path", "/r", "--port", &nginx.port().to_string()])?;
    unharmed(&nginx, || {
        ensure!(agent.say(&["mode", "enforce"])?.code == 0);
        ensure!(!answered(&nginx, "/r")?, "a node that enforces lets pass");
        Ok(())
    })?;
    agent.finish()
}
