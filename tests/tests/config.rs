//! A17: configuration: every key, mistakes, and reloads under load.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::cgroup::Cgroup;
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::{self, Scratch};
use weir_tests::process::{Said, say};
use weir_tests::wait;

fn weir(arguments: &[&str]) -> Result<Said> {
    say(Command::new(place::weir()?).args(arguments).env("NO_COLOR", "1"), Duration::from_secs(10))
}

fn shown(arguments: &[&str]) -> Result<Vec<Value>> {
    let said = weir(&[&["config", "show", "--json"], arguments].concat())?;
    ensure!(said.code == 0, "{}", said.err);
    let shown: Value = serde_json::from_str(&said.out)?;
    shown.as_array().cloned().context("no list")
}

#[test]
fn a17_each_key_can_be_set_to_what_it_is() -> Result<()> {
    let keys = shown(&[])?;
    ensure!(keys.len() > 20, "{} keys", keys.len());
    for entry in &keys {
        let key = entry["key"].as_str().context("no key")?;
        let value = match &entry["value"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let set = format!("{key}={value}");
        let again = shown(&["--set", &set])?;
        let found = again.iter().find(|again| again["key"] == key).with_context(|| format!("{set} is gone"))?;
        ensure!(found["value"] == entry["value"], "{set}: {found}");
        ensure!(found["from"] != entry["from"], "{set}: {found}");
    }
    Ok(())
}

#[test]
fn a17_mistakes_name_their_place_and_remedy() -> Result<()> {
    let scratch = Scratch::new("config")?;
    for (content, place, words) in [
        ("privacy:\n  levle: strict\n", "2:3", &["levle", "level"][..]),
        ("recent:\n  memory: lots\n", "2:11", &["memory", "lots"]),
        ("recnet:\n  memory: 1MiB\n", "1:1", &["recnet", "recent"]),
        ("prometheus: { listen: 17 }\n", "1:23", &["listen"]),
        ("otlp:\n  protocol: carrier-pigeon\n", "2:13", &["carrier-pigeon", "grpc"]),
        ("traces: { sample: 1.5 }\n", "1:19", &["sample"]),
        ("kernel:\n  ring: 1KiB\n", "2:9", &["ring", "64KiB"]),
        ("privacy: [\n", "1:10", &[]),
        // What only showed when the agent took it.
        ("enforce:\n  rules:\n    - { id: x }\n", "3:7", &["condition", "name a client"]),
        ("routes: { templates: ['/a/{'] }\n", "1:23", &["/a/{", "segment"]),
    ] {
        let path = scratch.write("bad.yaml", content)?;
        let said = weir(&["config", "check", &path.display().to_string()])?;
        ensure!(said.code == 2, "{content}: code {}", said.code);
        ensure!(said.out.is_empty(), "{content}: standard output has {}", said.out);
        ensure!(said.err.contains(place), "{content}: not at {place}: {}", said.err);
        for word in words {
            ensure!(said.err.contains(word), "{content}: no word of {word}: {}", said.err);
        }
        let said = weir(&["run", "--config", &path.display().to_string()])?;
        ensure!(said.code == 2, "{content}: weir run ended with {}: {}", said.code, said.err);
    }
    let good = scratch.write("good.yaml", "privacy: { level: standard }\n")?;
    assert_eq!(weir(&["config", "check", &good.display().to_string()])?.code, 0);
    Ok(())
}

/// What the running agent has for a key, as its own calls show it: paths are shown at `standard` only.
fn shows_paths(agent: &Agent, nginx: &Nginx, marker: &str) -> Result<bool> {
    let path = format!("/f/1?{marker}");
    let before = agent.calls(&[nginx.port()], 0)?.len();
    load::curl(&[&nginx.url(&path)])?;
    let calls = agent.calls(&[nginx.port()], before + 2)?;
    let mut newest: Vec<_> = calls.iter().collect();
    newest.sort_by(|one, other| one.start.cmp(&other.start));
    Ok(newest.last().context("no call")?.attributes.path.is_some())
}

#[test]
fn a17_reloads_take_effect_or_are_refused_whole() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::configured(Some("privacy: { level: strict }\n"), &[])?;
    assert!(!shows_paths(&agent, &nginx, "a")?);
    agent.rewrite("privacy: { level: standard }\n")?;
    let said = agent.say(&["reload"])?;
    ensure!(said.code == 0, "{}", said.err);
    assert!(shows_paths(&agent, &nginx, "b")?);
    agent.rewrite("privacy: { level: strict }\nrecnet: {}\n")?;
    let said = agent.say(&["reload"])?;
    ensure!(said.code != 0 && said.err.contains("recnet") && said.err.contains("2:1"), "{}: {}", said.code, said.err);
    assert!(shows_paths(&agent, &nginx, "c")?);
    agent.rewrite("privacy: { level: strict }\n")?;
    agent.signal(Signal::HUP)?;
    let mut serial = 0;
    wait::until(Duration::from_secs(5), "the reload by signal", || {
        serial += 1;
        Ok((!shows_paths(&agent, &nginx, &format!("d{serial}"))?).then_some(()))
    })?;
    agent.finish()
}

#[test]
fn a17_no_call_is_lost_by_reloads() -> Result<()> {
    const REQUESTS: u64 = 100_000;
    let nginx = Nginx::plain()?;
    let agent = Agent::configured(Some("{}\n"), &[])?;
    let url = nginx.url("/s/200");
    let (load, reloads) = thread::scope(|scope| -> Result<_> {
        let load = scope.spawn(|| load::h2load(REQUESTS, 16, &[url]));
        let mut reloads = 0;
        while !load.is_finished() {
            let content =
                ["privacy: { level: standard }\n", "privacy: { level: strict }\n", "recnet: {}\n"][reloads % 3];
            agent.rewrite(content)?;
            let said = agent.say(&["reload"])?;
            ensure!((said.code == 0) == (reloads % 3 != 2), "{content}: {}: {}", said.code, said.err);
            reloads += 1;
        }
        Ok((load.join().map_err(|_| anyhow!("the load's thread failed"))??, reloads))
    })?;
    assert_eq!((load.answered, load.errors), (REQUESTS, 0));
    ensure!(reloads >= 3, "{reloads} reloads");
    let calls = agent.calls(&[nginx.port()], 2 * REQUESTS as usize)?;
    ensure!(calls.len() as u64 == 2 * REQUESTS, "{} calls", calls.len());
    agent.finish()
}

/// Whose calls are shown, on which of two servers, and how many the ledger has as left out by `select`.
fn selected(rules: &str) -> Result<(Vec<String>, u64)> {
    // In a control group of their own, where nobody else makes calls that could be counted.
    let cgroup = Cgroup::new("select")?;
    let (one, other) = cgroup.inside(|| Ok((Nginx::plain()?, Nginx::plain()?)))?;
    let file = rules.replace("ONE", &one.port().to_string());
    let place = format!("kernel.cgroup={}", cgroup.path().display());
    let agent = Agent::configured(Some(&file), &[&place])?;
    for nginx in [&one, &other] {
        cgroup.inside(|| load::curls(5, &nginx.url("/s/200")))?;
    }
    let mut found = (Vec::new(), 0);
    let all = wait::until(Duration::from_secs(10), "all twenty calls", || {
        let calls = agent.calls_now(&[one.port(), other.port()])?;
        let stats = agent.json(&["stats"])?;
        let rows = stats["calls"].as_array().context("no rows")?;
        let left_out = rows.iter().find(|row| row["reason"] == "select").and_then(|row| row["count"].as_u64());
        let whose = calls.iter().map(|call| {
            let server = if call.server().port() == one.port() { "one" } else { "other" };
            format!("{server} {}", call.service.name.as_deref().unwrap_or("?"))
        });
        found = (whose.collect(), left_out.context("no row of select")?);
        Ok((found.0.len() as u64 + found.1 == 20).then_some(()))
    });
    all.with_context(|| format!("{rules}: {found:?}"))?;
    agent.finish()?;
    found.0.sort();
    found.0.dedup();
    Ok(found)
}

#[test]
fn a17_select_takes_and_leaves_out() -> Result<()> {
    for (rules, shown, left_out) in [
        ("select: []", &["one curl", "one nginx", "other curl", "other nginx"][..], 0),
        ("select: [{ port: ONE }]", &["one curl", "one nginx"], 10),
        ("select: [{ port: ONE, exclude: true }]", &["other curl", "other nginx"], 10),
        ("select: [{ service: ngi* }]", &["one nginx", "other nginx"], 10),
        ("select: [{ service: nginx, port: ONE }, { service: curl }]", &["one curl", "one nginx", "other curl"], 5),
        ("select: [{ port: ONE }, { service: curl, exclude: true }]", &["one nginx"], 15),
    ] {
        let found = selected(rules)?;
        ensure!(found == (shown.iter().map(|&text| text.to_owned()).collect(), left_out), "{rules}: {found:?}");
    }
    Ok(())
}
