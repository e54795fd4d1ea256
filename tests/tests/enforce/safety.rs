//! E4: who is never refused, which rule wins, and what a change leaves alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::call::Kind;
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;

use super::{RESET, curl, enforcing, of, rule};

/// Loopback and this node's own addresses are on the allow-list, in the kernel too: counted, not refused.
#[test]
fn the_allow_list_comes_first() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    let said = agent
        .say(&["block", "add", "--reason", "t", "--mode", "enforce", "--id", "soft", "--port", &port, "--path", "/"])?;
    ensure!(said.code == 0, "{}", said.err);
    load::curls(5, &nginx.url("/{}"))?;
    let calls = agent.calls(&[nginx.port()], 10)?;
    ensure!(of(&calls, Kind::Server, "allowed").len() == 5, "{calls:#?}");
    let mode = agent.json(&["mode"])?;
    let rows = mode["allow_list"].as_array().context("no allow_list")?;
    let saved: u64 = rows.iter().filter_map(|row| row["saved"].as_u64()).sum();
    ensure!(saved == 5 && nginx.logged(5)?.len() == 5, "{mode}");
    agent.finish()
}

/// Rules that contradict each other: the documented order decides, and `explain` names the winner.
#[test]
fn the_documented_order_decides() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&["privacy.level=standard"])?;
    let port = nginx.port().to_string();
    rule(&agent, "all", &["--client", "127.0.5.0/24", "--port", &port])?;
    rule(&agent, "health", &["--client", "127.0.5.0/24", "--port", &port, "--action", "allow", "--path", "/health"])?;
    rule(&agent, "never", &["--port", &port, "--path", "/health/secret", "--priority", "1"])?;
    let get = |client: &str, path: &str| curl(&["--interface", client, &nginx.url(path)]);
    ensure!(get("127.0.5.1", "/health")? == Ok(404));
    ensure!(get("127.0.5.1", "/")?.is_err());
    ensure!(get("127.0.5.1", "/health/secret")?.is_err() && get("127.0.6.1", "/health/secret")?.is_err());
    ensure!(get("127.0.6.1", "/")? == Ok(404));
    ensure!(nginx.logged(2)?.len() == 2);
    let calls = agent.calls(&[nginx.port()], 10)?;
    ensure!(of(&calls, Kind::Server, "dropped").len() == 3, "{calls:#?}");
    agent.finish()
}

/// From `block add` to the first drop, and from `remove` to the first answer: at once.
#[test]
fn a_change_counts_at_once() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    for n in 0..20 {
        let id = format!("b{n}");
        rule(&agent, &id, &["--port", &port, "--path", "/x"])?;
        let added = Instant::now();
        ensure!(
            matches!(curl(&[&nginx.url("/x")])?, Err(code) if RESET.contains(&code)),
            "after {:?}",
            added.elapsed()
        );
        ensure!(curl(&[&nginx.url("/y")])? == Ok(404));
        ensure!(agent.say(&["block", "remove", &id])?.code == 0);
        ensure!(curl(&[&nginx.url("/x")])? == Ok(404), "a removed rule refuses");
    }
    agent.finish()
}

/// A load beside rules that meet none of it loses nothing, while rules change.
#[test]
fn a_load_that_no_rule_meets_is_untouched() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    rule(&agent, "path", &["--port", &port, "--path", "/admin"])?;
    rule(&agent, "net", &["--client", "127.0.5.0/24", "--port", &port])?;
    let load = std::thread::scope(|scope| -> Result<load::Load> {
        let load = scope.spawn(|| load::wrk(Duration::from_secs(6), 32, nginx.address(), &["/100", "/4096", "/0"]));
        for n in 0..60 {
            let id = format!("c{n}");
            rule(&agent, &id, &["--port", &port, "--path", &format!("/admin/{n}")])?;
            ensure!(agent.say(&["block", "remove", &id])?.code == 0);
        }
        load.join().map_err(|_| anyhow::anyhow!("wrk's thread failed"))?
    })?;
    ensure!(load.errors == 0 && load.answered > 1000, "{load:?}");
    let mode = agent.json(&["mode"])?;
    ensure!(mode["gate"]["segments_damaged"] == 0 && mode["gate"]["verdicts_lost"] == 0, "{mode}");
    ensure!(curl(&[&nginx.url("/admin")])?.is_err());
    drop(agent);
    Ok(())
}

/// A rule that refuses most of a service's clients goes back to monitor mode by itself, and says why; one that refuses
/// one client often does not.
#[test]
fn a_rule_that_refuses_most_clients_trips() -> Result<()> {
    let scratch = weir_tests::place::Scratch::new("audit")?;
    let log = scratch.join("audit.log");
    let nginx = Nginx::plain()?;
    let agent = enforcing(&["enforce.breaker.clients=10", &format!("enforce.audit={}", log.display())])?;
    let port = nginx.port().to_string();
    rule(&agent, "attacker", &["--client", "127.0.8.1", "--port", &port])?;
    rule(&agent, "mistake", &["--client", "127.0.9.0/24", "--port", &port])?;
    let get = |client: &str| curl(&["--interface", client, &nginx.url("/")]);
    for _ in 0..30 {
        ensure!(get("127.0.8.1")?.is_err());
    }
    ensure!(get("127.0.0.1")? == Ok(404));
    // Twelve ask at most: ten are enough, and when between them it is looked is the machine's.
    let mut refused = 0;
    while refused < 12 && get(&format!("127.0.9.{}", refused + 1))?.is_err() {
        refused += 1;
    }
    ensure!(refused >= 10, "it tripped after {refused} clients");
    let tripped = weir_tests::wait::until(Duration::from_secs(3), "a tripped rule", || {
        Ok(agent.lines(&["block", "list"])?.into_iter().find(|row| row["tripped"].is_string()))
    })?;
    ensure!(tripped["id"] == "mistake" && tripped["effective_mode"] == "monitor", "{tripped}");
    ensure!(get("127.0.9.1")? == Ok(404) && get("127.0.8.1")?.is_err());
    let text = std::fs::read_to_string(&log)?;
    let line = text.lines().find(|line| line.contains("\"what\":\"breaker\"")).context("no audit line")?;
    let told = |refused: u32| line.contains(&format!("{refused} of {} clients", refused + 2));
    ensure!((10..=refused).any(told), "{line}");
    let warned = agent.log()?;
    ensure!(warned.contains("circuit breaker"), "{warned}");
    agent.finish()
}
