//! SIGKILL in the middle of changes, under load: what the kernel holds then is the rules before a change or those after it,
//! never a part of either, and nobody else is harmed (acceptance row E3).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use weir_tests::agent::{Agent, ask};
use weir_tests::cgroup::Cgroup;
use weir_tests::peers::nginx::Nginx;
use weir_tests::wait;
use weir_tests::wire::Wire;

use super::{answered, gates, unharmed};

/// Rules of a set. They differ in what they need in the kernel half: paths, methods, hosts.
const RULES: usize = 4;
/// Until when the answer to a request that is let pass has come, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// As long as nothing is answered, what is refused is told from what is slow.
const MOMENT: Duration = Duration::from_millis(300);

/// The configuration with one of two sets of rules. They have an end, so that they outlive the agent.
fn configuration(set: char, port: u16) -> String {
    let fixed = format!("mode: enforce, force: true, ttl: 1h, server: {{port: {port}}}");
    format!(
        "enforce:\n  mode: enforce\n  audit: ''\n  rules:\n\
         \x20 - {{id: {set}0, {fixed}, path: =/{set}/0}}\n\
         \x20 - {{id: {set}1, {fixed}, path: /{set}/1}}\n\
         \x20 - {{id: {set}2, {fixed}, method: [X{set}]}}\n\
         \x20 - {{id: {set}3, mode: enforce, force: true, ttl: 1h, server: {{port: {port}, host: '{set}.test'}}}}\n"
    )
}

/// What each rule of a set would refuse.
fn requests(set: char) -> [String; RULES] {
    let request = |method: &str, path: &str, host: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    [
        request("GET", &format!("/{set}/0"), "t"),
        request("GET", &format!("/{set}/1/x"), "t"),
        request(&format!("X{set}"), "/x", "t"),
        request("GET", "/y", &format!("{set}.test")),
    ]
}

/// Which set is in force, by what is answered: all of the other one, and nothing of this one.
fn in_force(nginx: &Nginx) -> Result<char> {
    let wires = |set| -> Result<Vec<Wire>> {
        let send = |request: &String| -> Result<Wire> {
            let mut wire = Wire::connect(nginx.address())?;
            wire.stream().set_read_timeout(Some(Duration::from_millis(20)))?;
            wire.send(request)?;
            Ok(wire)
        };
        requests(set).iter().map(send).collect()
    };
    let mut sets = [('a', wires('a')?, [false; RULES]), ('b', wires('b')?, [false; RULES])];
    let start = Instant::now();
    let mut whole = None;
    while whole.is_none_or(|at: Instant| at.elapsed() < MOMENT) {
        for (_, wires, answered) in &mut sets {
            for (wire, answered) in wires.iter_mut().zip(answered) {
                // Its first byte is enough; a wire that was reset has none.
                *answered |= wire.stream().peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
            }
        }
        if whole.is_none() && sets.iter().any(|(_, _, answered)| answered.iter().all(|one| *one)) {
            whole = Some(Instant::now());
        }
        let told: Vec<_> = sets.iter().map(|(set, _, answered)| (*set, *answered)).collect();
        ensure!(whole.is_some() || start.elapsed() < PATIENCE, "no set is answered whole: {told:?}");
    }
    match &sets {
        [(_, _, a), (set, _, b)] if a.iter().all(|one| *one) && !b.contains(&true) => Ok(*set),
        [(set, _, a), (_, _, b)] if b.iter().all(|one| *one) && !a.contains(&true) => Ok(*set),
        [(_, _, a), (_, _, b)] => anyhow::bail!("parts of sets are in force: answered of a {a:?}, of b {b:?}"),
    }
}

/// Changes rules until the agent is gone: both sets in turn, and single rules beside them. Gives how many were made.
fn change(agent: &Agent, port: u16, changes: &AtomicU64) -> Result<()> {
    let socket = agent.socket();
    for n in 0_u64.. {
        agent.rewrite(&configuration(if n % 2 == 0 { 'b' } else { 'a' }, port))?;
        match ask(&socket, "POST", "/v1/reload", "") {
            Ok((status, text)) => ensure!(status == 200, "{status}: {text}"),
            // It was killed.
            Err(_) => break,
        }
        let rule = serde_json::json!({
            "id": "single", "mode": "enforce", "force": true, "reason": "t", "path": format!("/single/{n}"),
            "client": {"address": format!("127.0.9.{}", n % 200)},
        });
        for (method, path, body) in
            [("POST", "/v1/blocks", rule.to_string()), ("DELETE", "/v1/blocks/single", String::new())]
        {
            match ask(&socket, method, path, &body) {
                Ok((status, text)) => ensure!(status == 200, "{status}: {text}"),
                Err(_) => return Ok(()),
            }
        }
        changes.fetch_add(3, Ordering::Relaxed);
    }
    Ok(())
}

fn killed(times: u32) -> Result<()> {
    let group = Cgroup::new("killed")?;
    let nginx = group.inside(Nginx::plain)?;
    let port = nginx.port();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    let place = format!("kernel.cgroup={}", group.path().display());
    // The gate of this cgroup's agent, whoever else watches others.
    let pins = Path::new("/sys/fs/bpf").join(format!("weir-{}", fs::metadata(group.path())?.ino()));
    let others = gates()?;
    let mut agent = Agent::configured(Some(&configuration('a', port)), &[&place])?;
    let changes = AtomicU64::new(0);
    let mut found = [0_u32; 2];
    let ((), count) = unharmed(&nginx, || {
        for kill in 0..times {
            let before = changes.load(Ordering::Relaxed);
            let pause = Duration::from_micros(random(120_000));
            thread::scope(|scope| {
                let changing = scope.spawn(|| change(&agent, port, &changes));
                // At work it is killed, not before.
                let begun = wait::until(PATIENCE, "changes", || {
                    Ok((changes.load(Ordering::Relaxed) > before || changing.is_finished()).then_some(()))
                });
                sleep(pause);
                let killed = agent.signal(Signal::KILL);
                let changed = changing.join().map_err(|_| anyhow::anyhow!("the changing thread failed"))?;
                begun.and(killed).and(changed)
            })?;
            agent.kill()?;
            let set = in_force(&nginx).with_context(|| format!("kill {kill}, after {pause:?}"))?;
            found[usize::from(set == 'b')] += 1;
            ensure!(pins.exists(), "kill {kill}: nothing is pinned");
            agent.again().with_context(|| format!("start after kill {kill}"))?;
            let set = in_force(&nginx).with_context(|| format!("start after kill {kill}"))?;
            let rows = agent.lines(&["block", "list"])?;
            let ids: Vec<_> = rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect();
            let own: Vec<_> = (0..RULES).map(|n| format!("{set}{n}")).collect();
            ensure!(ids == own, "start after kill {kill}: {ids:?}, and set {set} is met");
            ensure!(pins.exists(), "start after kill {kill}: nothing is pinned");
            let ended = || Ok((gates()? == others + 2).then_some(()));
            wait::until(PATIENCE, "the end of the killed agent's gate", ended)?;
        }
        Ok(())
    })?;
    let changes = changes.into_inner();
    println!(
        "{times} kills in {changes} changes, set a {} times, b {} times, {count} good requests",
        found[0], found[1]
    );
    ensure!(changes >= u64::from(times) && count > 1000, "{changes} changes, {count} good requests");
    let mode = agent.json(&["mode"])?;
    ensure!(mode["gate"]["segments_damaged"] == 0, "{mode}");
    agent.stop()?;
    for path in ["/a/0", "/b/0", "/good"] {
        ensure!(answered(&nginx, path)?, "{path} is refused with no agent");
    }
    wait::until(PATIENCE, "nothing left behind", || Ok((!pins.exists() && gates()? == others).then_some(())))
}

#[test]
fn an_agent_killed_amid_changes_leaves_them_whole() -> Result<()> {
    killed(5)
}

/// `cargo xtask test failopen -- --ignored`.
#[test]
#[ignore = "takes more than a minute"]
fn an_agent_killed_amid_changes_thirty_times_leaves_them_whole() -> Result<()> {
    killed(30)
}
