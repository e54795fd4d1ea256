//! Whoever asks for a rule over ssh can't lock himself out: a real sshd, in a network namespace of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::netns::NetNs;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::place::{self, Scratch};
use weir_tests::process::{self, Process};
use weir_tests::{wait, wire::Wire};

use super::{enforcing, from};

/// A key for both sides and a server that takes it.
fn sshd(near: &NetNs, scratch: &Scratch) -> Result<Process> {
    let key = scratch.join("key");
    let mut keygen = Command::new(place::program("ssh-keygen")?);
    process::run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key), Duration::from_secs(10))?;
    fs::copy(scratch.join("key.pub"), scratch.join("authorized"))?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o700))?;
    // Where Debian's unit makes it.
    fs::create_dir_all("/run/sshd")?;
    let path = |name: &str| scratch.join(name).display().to_string();
    let config = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n\
         ListenAddress 10.79.0.1:2222\nListenAddress [fd79::1]:2222\n",
        path("key"),
        path("authorized")
    );
    let config = scratch.write("sshd_config", config)?;
    let mut command = near.command("sshd")?;
    // `-D`: in the foreground; by its whole path, which it asks for.
    command.args(["-D", "-e", "-f"]).arg(config);
    Process::start(command, "sshd", scratch)
}

fn ssh(far: &NetNs, scratch: &Scratch, to: &str, command: &str) -> Result<Command> {
    let mut ssh = far.command("ssh")?;
    ssh.args(["-p", "2222", "-i"]).arg(scratch.join("key")).args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]);
    ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-F", "none"]);
    ssh.arg(format!("root@{to}")).arg(command);
    Ok(ssh)
}

/// The client's row of the allow-list.
fn row(agent: &Agent, address: &str) -> Result<Option<serde_json::Value>> {
    let mode = agent.json(&["mode"])?;
    let rows = mode["allow_list"].as_array().context("no allow_list")?;
    let mine = |row: &&serde_json::Value| row["address"].as_str().is_some_and(|text| text.starts_with(address));
    Ok(rows.iter().find(mine).cloned())
}

#[test]
fn who_is_logged_in_by_ssh_is_not_met() -> Result<()> {
    let (near, far) = (NetNs::new("server")?, NetNs::new("client")?);
    NetNs::cable(
        (&near, "s0", &["10.79.0.1/24", "fd79::1/64"]),
        (&far, "c0", &["10.79.0.2/24", "10.79.0.3/24", "fd79::2/64"]),
    )?;
    let scratch = Scratch::new("ssh")?;
    let _sshd = sshd(&near, &scratch)?;
    let nginx = Nginx::start(&Setup { listen: &["10.79.0.1:PORT"], netns: Some(&near), ..Setup::default() })?;
    let port = nginx.port();
    let agent = enforcing(&[])?;
    let weir = format!("WEIR_CONTROL__SOCKET={} {}", agent.socket().display(), place::weir()?.display());
    let answered = |client: &str| -> Result<bool> {
        far.inside(|| {
            let mut wire = Wire::over(from(client.parse()?, ([10, 79, 0, 1], port).into())?)?;
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            Ok(wire.answer("GET").is_ok())
        })
    };
    let limit = Duration::from_secs(20);
    wait::until(limit, "an sshd", || {
        Ok((process::say(&mut ssh(&far, &scratch, "10.79.0.1", "true")?, limit)?.code == 0).then_some(()))
    })?;
    ensure!(row(&agent, "10.79.0.2")?.is_none(), "a session that asked for nothing is on the list");

    // A rule about exactly the administrator's address is refused, one about his network passes him over.
    let add =
        |id: &str, client: &str| format!("{weir} block add --id {id} --mode enforce --reason t --client {client}");
    let said = process::say(&mut ssh(&far, &scratch, "10.79.0.1", &add("own", "10.79.0.2"))?, limit)?;
    ensure!(said.code == 1 && said.err.contains("the ssh client of who asked"), "{}", said.err);
    let wide = format!("{} && sleep 1000", add("net", "10.79.0.0/24"));
    let held = Process::start(ssh(&far, &scratch, "10.79.0.1", &wide)?, "ssh", &scratch)?;
    wait::until(limit, "a rule", || Ok((!agent.lines(&["block", "list"])?.is_empty()).then_some(())))?;
    ensure!(answered("10.79.0.2")?, "the administrator is refused");
    ensure!(!answered("10.79.0.3")?, "his neighbour is not");
    let mine = row(&agent, "10.79.0.2")?.context("he is not on the list")?;
    ensure!(mine["saved"] == 1 && mine["connections_saved"] == 1 && mine["gives_way_to_force"] == false, "{mine}");

    // As long as he is logged in.
    drop(held);
    wait::until(Duration::from_secs(40), "a shorter list", || Ok(row(&agent, "10.79.0.2")?.is_none().then_some(())))?;
    ensure!(!answered("10.79.0.2")?, "who has left is still passed over");

    // Over IPv6 too.
    let said = process::say(&mut ssh(&far, &scratch, "fd79::1", &add("six", "fd79::2"))?, limit)?;
    ensure!(said.code == 1 && said.err.contains("the ssh client of who asked"), "{}", said.err);
    ensure!(nginx.logged(1)?.len() == 1);
    agent.finish()
}

/// What the node says of itself is looked at again: a new address is on the list soon, one that is gone is not.
#[test]
fn the_list_follows_the_node() -> Result<()> {
    let agent = Agent::start(&[])?;
    let ip = |arguments: &str| {
        process::run(Command::new(place::program("ip")?).args(arguments.split(' ')), Duration::from_secs(10))
    };
    let limit = Duration::from_secs(40);
    ip("addr add 10.79.99.1/32 dev lo")?;
    let came = wait::until(limit, "a longer list", || row(&agent, "10.79.99.1"));
    ip("addr del 10.79.99.1/32 dev lo")?;
    ensure!(came?["what"] == "an address of this node");
    wait::until(limit, "a shorter list", || Ok(row(&agent, "10.79.99.1")?.is_none().then_some(())))?;
    agent.finish()
}
