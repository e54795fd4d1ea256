//! A restart of the agent opens no door: the last good list of a feed holds on, for as long as it would have, and times to
//! live go on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::Scratch;
use weir_tests::wait;

use super::{get, ids, until_refused, until_source};

/// The feed is gone when the agent starts again, once in order and once killed.
#[test]
fn the_last_good_list_holds_over_a_restart() -> Result<()> {
    let nginx = Nginx::plain()?;
    let folder = Scratch::new("feed")?;
    let path = folder.write("list.txt", "127.0.5.7\n127.0.6.0/24\n")?;
    let feed = format!(
        "enforce:\n  mode: enforce\n  audit: ''\n  feeds:\n  - {{name: list, path: {}, mode: enforce, force: true, keep: 1h, server: {{port: {}}}}}\n",
        path.display(),
        nginx.port()
    );
    let mut agent = Agent::configured(Some(&feed), &[])?;
    until_refused(&nginx, "127.0.5.7", true)?;
    let kept = agent.scratch().join("state/feeds/list.list");
    ensure!(fs::metadata(&kept)?.permissions().mode() & 0o777 == 0o600);
    fs::remove_file(&path)?;
    for killed in [false, true] {
        if killed {
            agent.kill()?;
        } else {
            agent.stop()?;
        }
        agent.again()?;
        until_refused(&nginx, "127.0.5.7", true)?;
        ensure!(get(&nginx, "127.0.6.9")?.is_err() && get(&nginx, "127.0.5.8")?.is_ok());
        let told = until_source(&agent, "list", "a failure", |told| told["last_error"].is_string())?;
        ensure!(told["entries"] == 2 && told["rules"] == 1, "{told}");
    }
    // Its age counts: of an hour, 10 s are left.
    let aged = |seconds: u64| -> Result<()> {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        Ok(fs::File::options().write(true).open(&kept)?.set_modified(then)?)
    };
    agent.stop()?;
    aged(3590)?;
    agent.again()?;
    until_refused(&nginx, "127.0.5.7", true)?;
    let told = until_source(&agent, "list", "an age", |told| told["age_seconds"].is_f64())?;
    ensure!(told["age_seconds"].as_f64().is_some_and(|age| (3589.0..3600.0).contains(&age)), "{told}");
    wait::until(Duration::from_secs(40), "its end", || Ok(get(&nginx, "127.0.5.7")?.is_ok().then_some(())))?;
    // Too old, or not as it was written: not used, with the reason.
    agent.stop()?;
    aged(3601)?;
    agent.again()?;
    until_source(&agent, "list", "a failure", |told| told["last_error"].is_string() && told["entries"] == 0)?;
    ensure!(get(&nginx, "127.0.5.7")?.is_ok() && ids(&agent)?.is_empty());
    agent.stop()?;
    let text = fs::read_to_string(&kept)?;
    fs::write(&kept, text.replace("127.0.5.7", "127.0.5.9"))?;
    agent.again()?;
    until_source(&agent, "list", "a refusal", |told| told["errors"]["state"] == 1 && told["entries"] == 0)?;
    ensure!(agent.log()?.contains("it is damaged"), "{}", agent.log()?);
    ensure!(get(&nginx, "127.0.5.9")?.is_ok() && ids(&agent)?.is_empty());
    // It comes back, and is kept anew.
    fs::write(&path, "127.0.5.7\n")?;
    until_refused(&nginx, "127.0.5.7", true)?;
    ensure!(!fs::read_to_string(&kept)?.contains("127.0.5.9"));
    agent.stop_lossy()
}

/// A rule's time to live begins with the rule: of a file, of the configuration.
#[test]
fn a_restart_does_not_prolong_a_rule() -> Result<()> {
    let folder = Scratch::new("rules")?;
    let rule = |id: &str, ttl: &str| format!("{{id: {id}, client: {{address: 203.0.113.9}}, ttl: {ttl}}}");
    folder.write("a.yaml", format!("rules:\n- {}\n- {}\n", rule("filed", "1h"), rule("brief", "1s")))?;
    let file = format!(
        "enforce:\n  audit: ''\n  directory: {}\n  rules:\n  - {}\n",
        folder.path().display(),
        rule("configured", "2h")
    );
    let mut agent = Agent::configured(Some(&file), &[])?;
    until_source(&agent, "directory", "rules", |told| told["rules"].as_u64().is_some_and(|count| count >= 1))?;
    let ends = |agent: &Agent| -> Result<Vec<(String, Value)>> {
        let rows = agent.lines(&["block", "list"])?;
        let told = |row: &Value| (row["id"].as_str().unwrap_or_default().to_owned(), row["until"].clone());
        Ok(rows.iter().map(told).filter(|(id, _)| id != "brief").collect())
    };
    let before = ends(&agent)?;
    ensure!(before.len() == 2 && before.iter().all(|(_, end)| end.is_string()), "{before:?}");
    std::thread::sleep(Duration::from_millis(1100));
    agent.stop()?;
    agent.again()?;
    until_source(&agent, "directory", "rules", |told| told["rules"] == 1)?;
    ensure!(ends(&agent)? == before, "{:?} and before {before:?}", ends(&agent)?);
    ensure!(!ids(&agent)?.contains(&"brief".to_owned()), "what was over has begun anew");
    // Written otherwise it is another rule, with a time of its own.
    folder.write("a.yaml", format!("rules:\n- {}\n- {}\n", rule("filed", "3h"), rule("brief", "30m")))?;
    until_source(&agent, "directory", "both", |told| told["rules"] == 2)?;
    agent.finish()
}
