//! The folder of rules.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::Scratch;
use weir_tests::wait;

use super::{ids, logged, not_removed, until_refused, until_source};

/// A file of one rule about one network of loopback.
fn rule(id: &str, client: &str, nginx: &Nginx) -> String {
    format!(
        "rules:\n- id: {id}\n  client: {{ address: {client} }}\n  server: {{ port: {} }}\n  mode: enforce\n  force: true\n",
        nginx.port()
    )
}

fn agent(folder: &Path, more: &str) -> Result<Agent> {
    Agent::configured(
        Some(&format!("enforce:\n  mode: enforce\n  audit: ''\n  directory: {}\n{more}", folder.display())),
        &[],
    )
}

/// Files come, change and go; one that is bad changes nothing, and is told once with its line.
#[test]
fn files_are_followed() -> Result<()> {
    let nginx = Nginx::plain()?;
    let folder = Scratch::new("rules")?;
    folder.write("a.yaml", rule("a", "127.0.5.0/24", &nginx))?;
    let agent = agent(folder.path(), "")?;
    until_refused(&nginx, "127.0.5.7", true)?;
    until_refused(&nginx, "127.0.6.7", false)?;
    folder.write("b.yml", rule("b", "127.0.6.0/24", &nginx))?;
    until_refused(&nginx, "127.0.6.7", true)?;
    // As an editor writes: a new file in the old one's place. What is no rule file is not looked at.
    folder.write("draft", rule("a", "127.0.7.0/24", &nginx))?;
    folder.write(".hidden.yaml", "no")?;
    fs::rename(folder.join("draft"), folder.join("a.yaml"))?;
    until_refused(&nginx, "127.0.7.7", true)?;
    until_refused(&nginx, "127.0.5.7", false)?;
    until_refused(&nginx, "127.0.6.7", true)?;

    for (bad, place, said) in [
        ("rules:\n- id: c\n  clint: {address: 127.0.8.0/24}\n", "c.yaml:3:3", "did you mean `client`?"),
        ("rules:\n- id: c\n  client: {address: 0.0.0.0/0}\n", "c.yaml:3:21", "more addresses"),
        ("rules:\n- id: b\n  client: {address: 127.0.8.1}\n  force: true\n", "c.yaml:2:7", "rule b exists already"),
        ("rules: [", "c.yaml:", "not YAML"),
        ("rules:\n- id: c\n- id: d\n  client: {address: 127.0.8.1}\n", "c.yaml:2:3", "no condition"),
    ] {
        // In the same moment another file changes: that is not taken either.
        folder.write("b.yml", rule("b", "127.0.9.0/24", &nginx))?;
        folder.write("c.yaml", bad)?;
        let told = until_source(&agent, "directory", "a refusal", |told| {
            told["last_error"].as_str().is_some_and(|error| error.contains(place) && error.contains(said))
        })?;
        ensure!(told["rules"] == 2, "{told}");
        ensure!(logged(&agent, said)? == 1, "said once: {}", agent.log()?);
        ensure!(ids(&agent)? == ["a", "b"]);
        until_refused(&nginx, "127.0.6.7", true)?;
        until_refused(&nginx, "127.0.9.7", false)?;
        folder.write("b.yml", rule("b", "127.0.6.0/24", &nginx))?;
        fs::remove_file(folder.join("c.yaml"))?;
        until_source(&agent, "directory", "order", |told| told["last_error"].is_null())?;
    }
    ensure!(agent.page()?.sum("weir_feed_errors_total", &[("feed", "directory")]) >= 5.0);
    not_removed(&agent, "a", "a.yaml: remove it there")?;
    fs::remove_file(folder.join("a.yaml"))?;
    until_refused(&nginx, "127.0.7.7", false)?;
    until_refused(&nginx, "127.0.6.7", true)?;
    ensure!(ids(&agent)? == ["b"]);
    // Behind a link nothing is noticed, and yet it is seen.
    let outside = Scratch::new("outside")?;
    let target = outside.write("target", rule("link", "127.0.10.0/24", &nginx))?;
    symlink(&target, folder.join("link.yaml"))?;
    until_refused(&nginx, "127.0.10.7", true)?;
    outside.write("target", rule("link", "127.0.11.0/24", &nginx))?;
    wait::until(Duration::from_secs(12), "a look", || Ok(super::get(&nginx, "127.0.11.7")?.is_err().then_some(())))?;
    // What others than root may write makes no rules.
    fs::set_permissions(&target, fs::Permissions::from_mode(0o666))?;
    folder.write("b.yml", rule("b", "127.0.12.0/24", &nginx))?;
    until_source(&agent, "directory", "a refusal", |told| told["errors"]["unsafe"].is_u64())?;
    until_refused(&nginx, "127.0.12.7", false)?;
    folder.write("b.yml", rule("b", "127.0.6.0/24", &nginx))?;
    fs::remove_file(folder.join("link.yaml"))?;
    until_source(&agent, "directory", "order", |told| told["last_error"].is_null())?;
    // The folder goes with all its files: that is no empty folder.
    fs::rename(folder.path(), folder.path().with_extension("away"))?;
    std::thread::sleep(Duration::from_millis(500));
    until_refused(&nginx, "127.0.6.7", true)?;
    fs::rename(folder.path().with_extension("away"), folder.path())?;
    agent.finish()
}

/// A ConfigMap as kubelet mounts it: files are links through `..data`, which is swapped in one step.
#[test]
fn a_config_map_is_swapped_whole() -> Result<()> {
    let nginx = Nginx::plain()?;
    let folder = Scratch::new("map")?;
    let version = |name: &str, first: &str, second: &str| -> Result<()> {
        fs::create_dir(folder.join(name))?;
        folder.write(&format!("{name}/one.yaml"), rule("one", first, &nginx))?;
        folder.write(&format!("{name}/two.yaml"), rule("two", second, &nginx))?;
        symlink(name, folder.join("..data_tmp"))?;
        Ok(fs::rename(folder.join("..data_tmp"), folder.join("..data"))?)
    };
    version("..2026_1", "127.0.5.0/24", "127.0.6.0/24")?;
    for name in ["one.yaml", "two.yaml"] {
        symlink(Path::new("..data").join(name), folder.join(name))?;
    }
    let agent = agent(folder.path(), "")?;
    until_refused(&nginx, "127.0.5.7", true)?;
    until_refused(&nginx, "127.0.6.7", true)?;
    version("..2026_2", "127.0.7.0/24", "127.0.8.0/24")?;
    fs::remove_dir_all(folder.join("..2026_1"))?;
    until_refused(&nginx, "127.0.7.7", true)?;
    until_refused(&nginx, "127.0.8.7", true)?;
    until_refused(&nginx, "127.0.5.7", false)?;
    ensure!(ids(&agent)? == ["one", "two"]);
    agent.finish()
}

/// A reload that takes the folder away takes its rules away; one that brings it brings them.
#[test]
fn a_reload_turns_it_off_and_on() -> Result<()> {
    let nginx = Nginx::plain()?;
    let folder = Scratch::new("rules")?;
    folder.write("a.yaml", rule("a", "127.0.5.0/24", &nginx))?;
    let agent = agent(folder.path(), "  rules: [{id: own, client: {address: 203.0.113.9}}]\n")?;
    until_refused(&nginx, "127.0.5.7", true)?;
    agent.rewrite("enforce:\n  mode: enforce\n  audit: ''\n  rules: [{id: own, client: {address: 203.0.113.9}}]\n")?;
    ensure!(agent.say(&["reload"])?.code == 0);
    until_refused(&nginx, "127.0.5.7", false)?;
    ensure!(ids(&agent)? == ["own"]);
    agent.rewrite(&format!("enforce:\n  mode: enforce\n  audit: ''\n  directory: {}\n", folder.path().display()))?;
    ensure!(agent.say(&["reload"])?.code == 0);
    until_refused(&nginx, "127.0.5.7", true)?;
    agent.finish()
}
