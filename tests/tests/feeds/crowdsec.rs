//! CrowdSec's own local API, the real one, as a source of bans.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::{self, Scratch};
use weir_tests::process::{self, Process};
use weir_tests::wait;

use super::{ids, until_refused, until_source};

/// A local API with a store of its own, and no way to anything outside.
struct CrowdSec {
    scratch: Scratch,
    process: Process,
}

impl CrowdSec {
    fn start(port: u16) -> Result<Self> {
        let scratch = Scratch::new("crowdsec")?;
        let at = scratch.path().display();
        for folder in ["data", "hub"] {
            fs::create_dir_all(scratch.join(folder))?;
        }
        for file in ["profiles.yaml", "simulation.yaml", "acquis.yaml"] {
            fs::copy(place::cached("crowdsec/etc/crowdsec")?.join(file), scratch.join(file))?;
        }
        scratch.write("local.yaml", "")?;
        scratch.write(
            "config.yaml",
            format!(
                "common: {{daemonize: false, log_media: stdout, log_level: info, working_dir: {at}}}\n\
                 config_paths: {{config_dir: {at}, data_dir: {at}/data, hub_dir: {at}/hub, index_path: {at}/hub/.index.json, \
                 simulation_path: {at}/simulation.yaml, notification_dir: {at}, plugin_dir: {at}}}\n\
                 crowdsec_service: {{acquisition_path: {at}/acquis.yaml}}\n\
                 cscli: {{output: raw}}\n\
                 db_config: {{type: sqlite, db_path: {at}/data/crowdsec.db, log_level: info, use_wal: false}}\n\
                 api:\n  client: {{credentials_path: {at}/local.yaml}}\n  \
                 server: {{listen_uri: \"127.0.0.1:{port}\", profiles_path: {at}/profiles.yaml, log_level: info}}\n\
                 prometheus: {{enabled: false}}\n"
            ),
        )?;
        let local = scratch.join("local.yaml").display().to_string();
        cscli(&scratch, &["machines", "add", "tests", "--password", "secret", "-f", &local])?;
        let key = cscli(&scratch, &["bouncers", "add", "weir"])?;
        scratch.write("key", key)?;
        let process = Self::launch(&scratch)?;
        wait::listening(([127, 0, 0, 1], port).into(), Duration::from_secs(20))?;
        Ok(Self { scratch, process })
    }

    fn launch(scratch: &Scratch) -> Result<Process> {
        let mut command = Command::new(place::cached("crowdsec/usr/bin/crowdsec")?);
        command.arg("-c").arg(scratch.join("config.yaml")).arg("-no-cs");
        Process::start(command, "crowdsec", scratch)
    }

    fn say(&self, arguments: &[&str]) -> Result<String> {
        cscli(&self.scratch, arguments)
    }
}

fn cscli(scratch: &Scratch, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(place::cached("crowdsec/usr/bin/cscli")?);
    command.arg("-c").arg(scratch.join("config.yaml")).args(arguments);
    let said = process::say(&mut command, Duration::from_secs(30))?;
    ensure!(said.code == 0, "cscli {arguments:?}: {}{}", said.out, said.err);
    Ok(said.out)
}

/// Bans come, go and end by themselves; while the API refuses or is gone, they hold for as long as they were told to.
#[test]
fn bans_are_carried_out() -> Result<()> {
    let nginx = Nginx::plain()?;
    let port = place::free_port()?;
    let mut api = CrowdSec::start(port)?;
    api.say(&["decisions", "add", "--ip", "127.0.5.7", "--duration", "1h"])?;
    api.say(&["decisions", "add", "--range", "127.0.6.0/24", "--duration", "1h"])?;
    api.say(&["decisions", "add", "--scope", "Country", "--value", "XX", "--duration", "1h"])?;
    let key = api.scratch.join("key");
    let agent = Agent::configured(
        Some(&format!(
            "enforce:\n  mode: enforce\n  audit: ''\n  feeds:\n  - {{name: cs, format: crowdsec, url: 'http://127.0.0.1:{port}/', key_file: {}, \
             refresh: 1s, mode: enforce, force: true, server: {{port: {}}}}}\n",
            key.display(),
            nginx.port()
        )),
        &[],
    )?;
    until_refused(&nginx, "127.0.5.7", true)?;
    until_refused(&nginx, "127.0.6.200", true)?;
    until_refused(&nginx, "127.0.5.8", false)?;
    let told = until_source(&agent, "cs", "two bans", |told| told["entries"] == 2)?;
    ensure!(told["rules"] == 1 && ids(&agent)? == ["feed-cs"], "{told}");
    // One more, which ends by itself, and one that is taken back.
    api.say(&["decisions", "add", "--ip", "127.0.7.7", "--duration", "6s"])?;
    until_refused(&nginx, "127.0.7.7", true)?;
    api.say(&["decisions", "delete", "--ip", "127.0.5.7"])?;
    until_refused(&nginx, "127.0.5.7", false)?;
    wait::until(Duration::from_secs(9), "the end of a ban", || {
        Ok(super::get(&nginx, "127.0.7.7")?.is_ok().then_some(()))
    })?;
    until_refused(&nginx, "127.0.6.1", true)?;

    // A key that is not known: what was told stays, and is made good when the key is.
    let good = fs::read_to_string(&key)?;
    fs::write(&key, "wrong")?;
    until_source(&agent, "cs", "a refusal", |told| told["errors"]["forbidden"].is_u64())?;
    api.say(&["decisions", "add", "--ip", "127.0.8.7", "--duration", "8s"])?;
    until_refused(&nginx, "127.0.6.1", true)?;
    fs::write(&key, good)?;
    until_refused(&nginx, "127.0.8.7", true)?;
    // Gone altogether: bans go on, and end when they should.
    api.process.terminate(Duration::from_secs(10))?;
    until_source(&agent, "cs", "nobody there", |told| told["errors"]["unreachable"].is_u64())?;
    wait::until(Duration::from_secs(12), "the end of a ban", || {
        Ok(super::get(&nginx, "127.0.8.7")?.is_ok().then_some(()))
    })?;
    until_refused(&nginx, "127.0.6.1", true)?;
    // It comes back, and has forgotten nothing.
    api.process = CrowdSec::launch(&api.scratch)?;
    until_source(&agent, "cs", "order", |told| told["last_error"].is_null() && told["entries"] == 1)?;
    until_refused(&nginx, "127.0.6.1", true)?;
    let log = agent.log()?;
    ensure!(!log.contains(fs::read_to_string(&key)?.trim()), "the key is in the log");
    agent.finish()
}
