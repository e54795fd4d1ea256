//! Ends of rules are those of the node's own monotonic clock: steps of the wall clock do not reach it, and an agent in a
//! time namespace, whose clocks are elsewhere, tells the kernel half the same times.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::Nginx;
use weir_tests::rules::rule;
use weir_tests::{place, process, wait};

use super::{answered, unharmed};

fn in_another_time(offset: &str) -> Result<()> {
    let nginx = Nginx::plain()?;
    let wrapper = ["unshare", "--time", "--fork", "--kill-child", "--monotonic", offset];
    let mut agent = Agent::under(&wrapper, &[])?;
    let own = agent.json(&["stats"])?["pid"].as_u64().context("no pid")?;
    ensure!(agent.say(&["mode", "enforce"])?.code == 0);
    let port = nginx.port().to_string();
    rule(&agent, "forever", &["--path", "/forever", "--ttl", "never", "--port", &port])?;
    let added = Instant::now();
    rule(&agent, "ends", &["--path", "/ends", "--ttl", "6s", "--port", &port])?;
    let latest = Instant::now() + Duration::from_secs(6);
    let ((), _) = unharmed(&nginx, || {
        // Longer than an agent whose heartbeat is from another time would be believed.
        sleep(Duration::from_millis(4_500));
        let held = !answered(&nginx, "/forever")? && !answered(&nginx, "/ends")?;
        ensure!(held || added.elapsed() > Duration::from_secs(6), "{offset}: a rule ended too early");
        sleep((latest + Duration::from_millis(500)).saturating_duration_since(Instant::now()));
        ensure!(answered(&nginx, "/ends")?, "{offset}: a rule holds longer than its time");
        ensure!(!answered(&nginx, "/forever")?, "{offset}: the agent is taken for dead");
        agent.no_errors()?;
        agent.kill()?;
        sleep(Duration::from_millis(3_700));
        ensure!(answered(&nginx, "/forever")?, "{offset}: a dead agent is taken for alive");
        Ok(())
    })?;
    // The next agent needs its place.
    wait::until(Duration::from_secs(5), "the agent's end", || {
        Ok((!std::path::Path::new(&format!("/proc/{own}")).exists()).then_some(()))
    })
}

/// Time namespaces, a day ahead and a minute behind.
#[test]
fn clocks_of_another_time_namespace_move_no_end() -> Result<()> {
    let mut tried = Command::new(place::program("unshare")?);
    let said = process::say(tried.args(["--time", "--fork", "true"]), Duration::from_secs(5))?;
    if said.code != 0 {
        println!("no time namespaces on this kernel: {}", said.err);
        return Ok(());
    }
    in_another_time("86400")?;
    in_another_time("-60")
}
