//! Drop rules by CLI, API and configuration: what they meet, what is refused, and the record of every change.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::call::Kind;
use weir_tests::peers::{load, nginx::Nginx};
use weir_tests::place::Scratch;
use weir_tests::process;

/// What the agent said to `weir block add` with these arguments.
fn add(agent: &Agent, arguments: &[&str]) -> Result<process::Said> {
    agent.say(&[&["block", "add", "--reason", "a test"], arguments].concat())
}

fn refused(agent: &Agent, arguments: &[&str], why: &str) -> Result<()> {
    let said = add(agent, arguments)?;
    ensure!(said.code == 1 && said.err.contains(why), "{arguments:?} ended with {}: {}", said.code, said.err);
    Ok(())
}

fn row(agent: &Agent, id: &str) -> Result<Value> {
    let rows = agent.lines(&["block", "list"])?;
    rows.into_iter().find(|row| row["id"] == *id).with_context(|| format!("no rule {id}"))
}

/// Monitor: what a rule meets is told as `would_drop` and counted, and the application answers all of it.
#[test]
fn a_rule_meets_its_calls_and_no_others() -> Result<()> {
    let nginx = Nginx::plain()?;
    let scratch = Scratch::new("audit")?;
    let log = scratch.join("audit.log");
    let agent = Agent::start(&[&format!("enforce.audit={}", log.display())])?;
    let port = nginx.port().to_string();
    let said = add(&agent, &["--id", "login", "--port", &port, "--path", "/login", "--method", "GET", "--force"])?;
    ensure!(said.code == 0, "{}", said.err);
    let said = add(&agent, &["--id", "saved", "--port", &port, "--path", "/other"])?;
    ensure!(said.code == 0, "{}", said.err);

    load::curls(20, &nginx.url("/login/{}"))?;
    load::curls(5, &nginx.url("//%6Cogin/{}"))?;
    load::curls(7, &nginx.url("/loginx/{}"))?;
    load::curls(6, &nginx.url("/other/{}"))?;
    load::curl(&["-X", "POST", &nginx.url("/login")])?;
    let calls = agent.calls(&[nginx.port()], 2 * 39)?;
    let met = |kind| calls.iter().filter(|call| call.kind == kind && call.verdict == "would_drop").count();
    ensure!((met(Kind::Server), met(Kind::Client)) == (25, 0), "{calls:#?}");
    ensure!(calls.iter().filter(|call| call.verdict == "allowed").count() == 2 * 39 - 25, "{calls:#?}");
    ensure!(nginx.logged(39)?.len() == 39, "all were answered");

    let told = row(&agent, "login")?;
    ensure!(told["hits"] == 25 && told["effective_mode"] == "monitor", "{told}");
    ensure!(told["top_clients"][0]["client"] == "127.0.0.1" && told["top_clients"][0]["calls"] == 25, "{told}");
    // The allow-list saves loopback from a rule that is not forced, and says so.
    ensure!(row(&agent, "saved")?["hits"] == 0);
    let mode = agent.json(&["mode"])?;
    let saved = mode["allow_list"].as_array().context("no allow_list")?.iter().filter_map(|row| row["saved"].as_u64());
    ensure!(mode["mode"] == "monitor" && saved.sum::<u64>() == 6, "{mode}");
    let page = agent.page()?;
    let counted: Vec<_> =
        page.samples("weir_blocked_total").map(|(labels, value)| (format!("{labels:?}"), value)).collect();
    ensure!(counted.len() == 1 && counted[0].0.contains("login") && (counted[0].1 - 25.0).abs() < 0.5, "{counted:?}");

    // The blast radius over what is kept: at privacy strict no target is.
    let rehearsed = add(&agent, &["--port", &port, "--path", "/login", "--dry-run"])?;
    let rehearsed: Value = serde_json::from_str(&rehearsed.out)?;
    ensure!(rehearsed["calls_met"] == 0 && rehearsed["calls_undecided"] == 39, "{rehearsed}");
    let rehearsed = add(&agent, &["--port", &port, "--method", "POST", "--dry-run"])?;
    let rehearsed: Value = serde_json::from_str(&rehearsed.out)?;
    ensure!(rehearsed["calls_met"] == 1 && rehearsed["calls_undecided"] == 0, "{rehearsed}");
    ensure!(agent.lines(&["block", "list"])?.len() == 2, "a rehearsal adds nothing");

    ensure!(agent.say(&["block", "remove", "login"])?.code == 0);
    load::curls(3, &nginx.url("/login/{}"))?;
    let calls = agent.calls(&[nginx.port()], 2 * 42)?;
    ensure!(calls.iter().filter(|call| call.verdict == "would_drop").count() == 25, "{calls:#?}");

    let file = log.display().to_string();
    let said = agent_less(&["audit", "verify", &file])?;
    ensure!(said.code == 0 && said.out.starts_with("3 lines"), "{} {}", said.out, said.err);
    let text = fs::read_to_string(&log)?;
    fs::write(&log, text.replacen("\"id\":\"saved\"", "\"id\":\"saver\"", 1))?;
    let said = agent_less(&["audit", "verify", &file])?;
    ensure!(said.code == 1 && said.err.contains("line 2"), "{} {}", said.out, said.err);
    agent.finish()
}

fn agent_less(arguments: &[&str]) -> Result<process::Said> {
    let mut command = std::process::Command::new(weir_tests::place::weir()?);
    process::say(command.args(arguments), std::time::Duration::from_secs(10))
}

/// What would be an outage, or can't be meant, is refused with the reason; every refusal is recorded.
#[test]
fn dangerous_rules_are_refused() -> Result<()> {
    let scratch = Scratch::new("audit")?;
    let log = scratch.join("audit.log");
    let agent = Agent::start(&[&format!("enforce.audit={}", log.display())])?;
    let own = agent.metrics().port().to_string();
    refused(&agent, &["--client", "0.0.0.0/0"], "more addresses")?;
    refused(&agent, &["--client", "::/0"], "more addresses")?;
    refused(&agent, &["--client", "127.0.0.1"], "loopback")?;
    refused(&agent, &["--port", &own], "Weir's own Prometheus endpoint")?;
    refused(&agent, &["--port", &own, "--force"], "Weir's own Prometheus endpoint")?;
    refused(&agent, &[], "no condition")?;
    refused(&agent, &["--client", "203.0.113.1/24"], "203.0.113.0/24")?;
    refused(&agent, &["--client", "203.0.113.1", "--path", "login"], "must start with '/'")?;
    ensure!(add(&agent, &["--id", "one", "--client", "203.0.113.1"])?.code == 0);
    refused(&agent, &["--id", "one", "--client", "203.0.113.2"], "exists already")?;
    let said = agent.say(&["block", "remove", "two"])?;
    ensure!(said.code == 1 && said.err.contains("no rule two"), "{}", said.err);
    ensure!(agent.lines(&["block", "list"])?.len() == 1, "only what was taken is there");
    let text = fs::read_to_string(&log)?;
    ensure!(text.lines().filter(|line| line.contains("\"what\":\"refuse\"")).count() == 8, "{text}");
    agent.finish()
}

/// Rules of the configuration are all taken or none; a reload puts others in their place; their time ends.
#[test]
fn rules_of_the_configuration_follow_a_reload() -> Result<()> {
    let scratch = Scratch::new("audit")?;
    let log = scratch.join("audit.log");
    let rules = |id: &str| {
        format!("enforce:\n  audit: {}\n  rules:\n  - id: {id}\n    client: {{address: 203.0.113.9}}\n", log.display())
    };
    let agent = Agent::configured(Some(&rules("first")), &[])?;
    ensure!(row(&agent, "first")?["source"] == "config");
    let said = agent.say(&["block", "remove", "first"])?;
    ensure!(said.code == 1 && said.err.contains("is of the configuration"), "{}", said.err);
    ensure!(add(&agent, &["--id", "mine", "--client", "203.0.113.8", "--ttl", "2s"])?.code == 0);
    agent.rewrite(&rules("second"))?;
    ensure!(agent.say(&["reload"])?.code == 0);
    ensure!(row(&agent, "first").is_err() && row(&agent, "second").is_ok());
    // Who asked for the reload, what was there before and what is there now.
    let text = fs::read_to_string(&log)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let line = lines.last().context("no line")?;
    ensure!(
        line["what"] == "replace" && line["who"].as_str().is_some_and(|who| who.starts_with("uid 0 pid")),
        "{line}"
    );
    ensure!(line["before"][0]["id"] == "first" && line["after"][0]["id"] == "second", "{line}");
    ensure!(lines[0]["what"] == "replace" && lines[0]["who"] == "config" && lines[0]["before"].is_null(), "{text}");
    agent.rewrite(&(rules("third") + "  - id: third\n    client: {address: 203.0.113.7}\n"))?;
    let said = agent.say(&["reload"])?;
    ensure!(said.code == 1 && said.err.contains("third exists already"), "{}", said.err);
    ensure!(row(&agent, "second").is_ok(), "a refused reload changes nothing");
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    ensure!(row(&agent, "mine").is_err(), "its time is over");
    agent.finish()
}
