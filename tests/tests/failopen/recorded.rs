//! Many who change rules at once: each change is in the audit log before it is answered, and they wait for the disk together.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, ask};
use weir_tests::peers::nginx::Nginx;
use weir_tests::rules::{enforcing, rule};
use weir_tests::wait;

use super::{answered, unharmed};

/// Who asks at once.
const CLIENTS: usize = 16;

/// What one client was answered: rules that came and rules that went, each with its answer.
type Made = Vec<(&'static str, String)>;

/// Adds and removes rules until `done` or until nobody answers.
fn client(socket: &Path, name: &str, done: &AtomicBool) -> Result<Made> {
    let mut made = Made::new();
    for n in 0.. {
        let id = format!("{name}-{n}");
        let body = json!({
            "id": id, "mode": "enforce", "force": true, "reason": "storm", "path": "/storm",
            "client": {"address": format!("127.1.{}.{}", n / 250 % 250, n % 250)},
        });
        for (what, method, path, body) in [
            ("add", "POST", "/v1/blocks".to_owned(), body.to_string()),
            ("remove", "DELETE", format!("/v1/blocks/{id}"), String::new()),
        ] {
            if done.load(Ordering::Relaxed) {
                return Ok(made);
            }
            // It may have been killed.
            let Ok((status, text)) = ask(socket, method, &path, &body) else { return Ok(made) };
            ensure!(status == 200, "{status} {text}");
            made.push((what, id.clone()));
        }
    }
    Ok(made)
}

/// Changes rules from several clients while `act` runs. Gives what they were answered.
fn changing(agent: &Agent, clients: usize, round: u32, act: impl FnOnce() -> Result<()>) -> Result<Made> {
    let (done, socket) = (AtomicBool::new(false), agent.socket());
    thread::scope(|scope| {
        let all: Vec<_> = (0..clients)
            .map(|n| {
                let (done, socket) = (&done, &socket);
                scope.spawn(move || client(socket, &format!("r{round}c{n}"), done))
            })
            .collect();
        let result = act();
        done.store(true, Ordering::Relaxed);
        let mut made = Made::new();
        for client in all {
            made.extend(client.join().map_err(|_| anyhow::anyhow!("a client's thread failed"))??);
        }
        result.map(|()| made)
    })
}

/// The log's lines: what and which rule.
fn lines(agent: &Agent) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(agent.scratch().join("audit.log"))?;
    let line = |line: &str| -> Result<(String, String)> {
        let line: Value = serde_json::from_str(line)?;
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        Ok((text("what"), text("rule")))
    };
    text.lines().map(line).collect()
}

fn verified(agent: &Agent) -> Result<()> {
    let said = agent.say(&["audit", "verify", &agent.scratch().join("audit.log").display().to_string()])?;
    ensure!(said.code == 0, "{}", said.err);
    Ok(())
}

/// How long the disk takes for one line, where each has its own.
fn one(folder: &Path) -> Result<Duration> {
    let path = folder.join("probe");
    let mut file = File::options().create(true).append(true).open(&path)?;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..20 {
            file.write_all(&[b'x'; 700])?;
            file.sync_data()?;
        }
        best = best.min(start.elapsed() / 20);
    }
    fs::remove_file(path)?;
    Ok(best)
}

#[test]
fn many_who_change_rules_wait_for_the_disk_together() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    rule(&agent, "stays", &["--path", "/stays", "--port", &nginx.port().to_string()])?;
    let time = Duration::from_secs(5);
    let disk = one(agent.scratch().path())?;
    let ((alone, many), count) = unharmed(&nginx, || {
        let alone = changing(&agent, 1, 0, || {
            sleep(time);
            Ok(())
        })?;
        let many = changing(&agent, CLIENTS, 1, || {
            let start = Instant::now();
            while start.elapsed() < time {
                ensure!(!answered(&nginx, "/stays")?, "a rule that was not touched lets pass");
            }
            Ok(())
        })?;
        Ok((alone, many))
    })?;
    let rate = |made: &Made| made.len() as f64 / time.as_secs_f64();
    let least = 1.0 / disk.as_secs_f64();
    println!(
        "a line of its own takes the disk {disk:?} ({least:.0}/s); {:.0} changes/s by one client, {:.0}/s by {CLIENTS}, beside {count} good requests",
        rate(&alone),
        rate(&many)
    );
    // In memory the disk is no matter.
    ensure!(disk < Duration::from_micros(500) || rate(&many) > 1.2 * least, "each waits for the disk alone");
    verified(&agent)?;
    let mut told = lines(&agent)?;
    told.retain(|(what, id)| ["add", "remove"].contains(&what.as_str()) && id != "stays");
    let told: BTreeSet<_> = told.into_iter().collect();
    let asked: BTreeSet<_> = alone.into_iter().chain(many).map(|(what, id)| (what.to_owned(), id)).collect();
    let missing: Vec<_> = told.symmetric_difference(&asked).collect();
    ensure!(missing.is_empty(), "not both in the log and answered: {missing:?}");
    let mode = agent.json(&["mode"])?;
    ensure!(mode["gate"]["segments_damaged"] == 0, "{mode}");
    agent.stop_lossy()
}

/// What was answered is in the log, whenever the agent is killed; the next one goes on with the same chain.
#[test]
fn what_was_answered_outlives_a_kill() -> Result<()> {
    let mut agent = enforcing(&[])?;
    let mut asked = BTreeSet::new();
    for kill in 0..6_u32 {
        let made = changing(&agent, CLIENTS, kill, || {
            sleep(Duration::from_millis(u64::from(100 + 37 * kill)));
            agent.signal(Signal::KILL)
        })?;
        ensure!(made.len() > CLIENTS, "kill {kill}: {} changes", made.len());
        asked.extend(made.into_iter().map(|(what, id)| (what.to_owned(), id)));
        agent.kill()?;
        agent.again()?;
        // The gate's programs take their time to load on a busy machine.
        wait::until(Duration::from_mins(1), "enforce mode", || {
            Ok(agent.say(&["mode", "enforce"]).is_ok_and(|said| said.code == 0).then_some(()))
        })?;
        verified(&agent).with_context(|| format!("kill {kill}"))?;
        let told: BTreeSet<_> = lines(&agent)?.into_iter().collect();
        let missing: Vec<_> = asked.difference(&told).collect();
        ensure!(missing.is_empty(), "kill {kill}: answered and not in the log: {missing:?}");
    }
    println!("{} changes", asked.len());
    agent.stop_lossy()
}
