//! A18: what Weir does where it can't do all: a message that names thing and remedy, the documented exit code, or less
//! of it and a word about what is missing.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use weir_tests::agent::{self, Agent};
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::{self, Scratch};
use weir_tests::process::{self, Process, Said};
use weir_tests::wait;

const LIMIT: Duration = Duration::from_secs(10);

/// Arguments of an agent of the test's own in `scratch`; gives its Prometheus port too.
fn arguments(scratch: &Scratch) -> Result<(Vec<String>, u16)> {
    let port = place::free_port()?;
    let arguments = vec![
        "run".to_owned(),
        "--output=none".to_owned(),
        format!("--set=control.socket={}", scratch.join("control.sock").display()),
        format!("--set=prometheus.listen=127.0.0.1:{port}"),
    ];
    Ok((arguments, port))
}

fn refused(said: &Said, code: i32, words: &[&str]) -> Result<()> {
    ensure!(said.code == code, "ended with {}, not {code}: {}", said.code, said.err);
    for word in words {
        ensure!(said.err.contains(word), "no word of {word}: {}", said.err);
    }
    ensure!(!said.err.contains("panicked"), "{}", said.err);
    Ok(())
}

/// The binary where any account can run it.
fn binary_for_all(scratch: &Scratch) -> Result<PathBuf> {
    let path = scratch.join("weir");
    fs::copy(place::weir()?, &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn a18_not_root() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("nobody")?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
    let mut command = Command::new(place::program("setpriv")?);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary_for_all(&scratch)?);
    let said = process::say(command.args(arguments(&scratch)?.0), LIMIT)?;
    refused(&said, 4, &["root", "CAP_BPF"])
}

#[test]
fn a18_a_second_agent() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    // With everything of its own it would count all calls twice and cost twice.
    let scratch = Scratch::new("second")?;
    let said = process::say(Command::new(place::weir()?).args(arguments(&scratch)?.0), LIMIT)?;
    refused(&said, 1, &["already", &agent.pid().to_string()])?;
    let said = process::say(
        Command::new(place::weir()?).args([
            "run",
            "--output=none",
            &format!("--set=control.socket={}", agent.socket().display()),
        ]),
        LIMIT,
    )?;
    refused(&said, 1, &["another agent", &agent.pid().to_string()])?;
    load::curls(5, &nginx.url("/s/200"))?;
    assert_eq!(agent.calls(&[nginx.port()], 10)?.len(), 10);
    agent.finish()
}

#[test]
fn a18_prometheus_port_taken() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("taken")?;
    let (arguments, port) = arguments(&scratch)?;
    let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let said = process::say(Command::new(place::weir()?).args(arguments), LIMIT)?;
    refused(&said, 1, &[&format!("127.0.0.1:{port}"), "prometheus.listen"])
}

/// A shell line in a mount namespace of its own, before `weir ARGUMENTS` takes its place.
fn in_mounts(prepare: &str, arguments: &[String]) -> Result<Command> {
    let mut command = Command::new(place::program("unshare")?);
    command.args(["--mount", "--propagation=private", "sh", "-c", &format!("{prepare} && exec \"$@\"")]);
    command.arg("sh").arg(place::weir()?).args(arguments);
    Ok(command)
}

#[test]
fn a18_read_only_folder_for_the_socket() -> Result<()> {
    let _node = Agent::none()?;
    let (scratch, nginx) = (Scratch::new("readonly")?, Nginx::plain()?);
    let (arguments, port) = arguments(&scratch)?;
    let folder = scratch.join("run");
    fs::create_dir(&folder)?;
    let mut arguments = arguments;
    arguments.push(format!("--set=control.socket={}/control.sock", folder.display()));
    let prepare = format!("mount -t tmpfs -o ro none {}", folder.display());
    let mut process = ready(in_mounts(&prepare, &arguments)?, &scratch, port)?;
    // It watches all the same.
    load::curls(10, &nginx.url("/s/204"))?;
    let seen = |labels: &str| -> Result<bool> {
        let page = load::curl(&["-f", &format!("http://127.0.0.1:{port}/metrics")])?;
        let line = |line: &str| line.contains("http_client_request_duration_seconds_count") && line.contains(labels);
        Ok(page.lines().any(|text| line(text) && text.ends_with(" 10")))
    };
    wait::until(LIMIT, "the calls", || Ok(seen("http_response_status_code=\"204\"")?.then_some(())))?;
    let output = process.output()?;
    ensure!(process.terminate(LIMIT)?.success(), "{output}");
    for word in ["run/control.sock", "control.socket"] {
        ensure!(output.contains(word), "no word of {word}:\n{output}");
    }
    Ok(())
}

/// Starts the command as an agent; gives it once it is ready, or what it said when it ended instead.
fn ready(command: Command, scratch: &Scratch, port: u16) -> Result<Process> {
    let mut process = Process::start(command, "weir", scratch)?;
    let what = "a ready agent";
    let started = wait::until(LIMIT, what, || {
        if let Some(status) = process.ended()? {
            anyhow::bail!("it ended with {status}:\n{}", process.output()?);
        }
        Ok(load::curl(&["-f", &format!("http://127.0.0.1:{port}/readyz")]).ok())
    });
    started?;
    Ok(process)
}

/// Calls to nginx that the agent at `socket` shows.
fn count(socket: &Path, port: u16) -> Result<usize> {
    let said = process::run(agent::command(socket)?.args(["calls", "--json", "--last", "1000"]), LIMIT)?;
    let call = |line: &str| serde_json::from_str::<weir_tests::call::Call>(line);
    let calls = said.lines().map(call).collect::<Result<Vec<_>, _>>()?;
    Ok(calls.iter().filter(|call| call.server().port() == port).count())
}

/// An agent started by `command` sees all of ten requests.
fn sees(command: Command, scratch: &Scratch, port: u16) -> Result<String> {
    let nginx = Nginx::plain()?;
    let mut process = ready(command, scratch, port)?;
    load::curls(10, &nginx.url("/s/200"))?;
    let socket = scratch.join("control.sock");
    let seen = wait::until(LIMIT, "the calls", || Ok(Some(count(&socket, nginx.port())?).filter(|&seen| seen >= 20)));
    let output = process.output()?;
    ensure!(process.terminate(LIMIT)?.success(), "{output}");
    assert_eq!(seen?, 20);
    Ok(output)
}

#[test]
fn a18_without_btf() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("nobtf")?;
    let (arguments, port) = arguments(&scratch)?;
    let command = in_mounts("mount -t tmpfs none /sys/kernel/btf", &arguments)?;
    let output = sees(command, &scratch, port)?;
    ensure!(output.contains("BTF"), "nothing is said about it:\n{output}");
    Ok(())
}

#[test]
fn a18_without_a_mount_of_cgroup_v2() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("nocgroup")?;
    let (arguments, port) = arguments(&scratch)?;
    let umount = "for at in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts); do umount -l $at; done";
    sees(in_mounts(umount, &arguments)?, &scratch, port).map(drop)
}

#[test]
fn a18_low_memlock_without_sys_resource() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("memlock")?;
    let (arguments, port) = arguments(&scratch)?;
    let mut command = Command::new(place::program("prlimit")?);
    command.arg("--memlock=65536:65536").arg(place::program("setpriv")?);
    command.args(["--inh-caps=-sys_resource", "--bounding-set=-sys_resource"]).arg(place::weir()?).args(arguments);
    // Kernels before 5.11 count maps against this limit; there the refusal must say so.
    match sees(command, &scratch, port) {
        Ok(_) => Ok(()),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("memlock") || said.contains("MEMLOCK"), "{said}");
            Ok(())
        }
    }
}

#[test]
fn a18_a_full_disk_for_the_store() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("full")?;
    let (mut arguments, port) = arguments(&scratch)?;
    fs::create_dir(scratch.join("disk"))?;
    let disk = scratch.join("disk").display().to_string();
    arguments.push(format!("--set=recent.disk.path={disk}/calls"));
    let prepare = format!("mount -t tmpfs -o size=256k none {disk} && head -c 250000 /dev/zero > {disk}/filler");
    let output = sees(in_mounts(&prepare, &arguments)?, &scratch, port)?;
    ensure!(output.contains(&disk), "nothing is said about it:\n{output}");
    Ok(())
}

/// A name service that never answers holds up neither start, nor reload, nor end; what has no address yet is said.
#[test]
fn a15_a_name_service_that_is_dead() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("deaf")?;
    let deaf = UdpSocket::bind("127.0.13.77:53")?;
    // The system's resolver waits longer than this test does for anything.
    let file = scratch.write("resolv.conf", "nameserver 127.0.13.77\noptions timeout:30 attempts:2\n")?;
    let (mut arguments, port) = arguments(&scratch)?;
    arguments.push("--set=otlp.endpoint=http://collector.weir.example:4317".to_owned());
    let prepare = format!("mount --bind {} /etc/resolv.conf", file.display());
    let mut process = ready(in_mounts(&prepare, &arguments)?, &scratch, port)?;
    let mut question = [0; 512];
    deaf.set_read_timeout(Some(LIMIT))?;
    let length = deaf.recv(&mut question)?;
    ensure!(question[..length].windows(9).any(|part| part == b"collector"), "another name was asked for");
    let socket = scratch.join("control.sock");
    let said = process::say(agent::command(&socket)?.arg("reload"), LIMIT)?;
    ensure!(said.code == 0, "{}", said.err);
    ensure!(load::curl(&["-f", &format!("http://127.0.0.1:{port}/healthz")]).is_ok(), "not alive");
    let ended = process.terminate(LIMIT)?;
    let output = process.output()?;
    ensure!(ended.success(), "{output}");
    ensure!(output.contains("the OTLP endpoint is not on the allow-list"), "nothing is said about it:\n{output}");
    Ok(())
}

/// Signals that come while programs are loaded interrupt the verifier, and must not keep the agent from starting or ending.
#[test]
fn a10_signals_while_it_starts() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("early")?;
    let (arguments, port) = arguments(&scratch)?;
    let mut command = Command::new(place::weir()?);
    let process = &mut Process::start(
        {
            command.args(arguments);
            command
        },
        "weir",
        &scratch,
    )?;
    let status = format!("/proc/{}/status", process.pid());
    // Bit 0 of what is caught: SIGHUP, which would end it before.
    wait::until(LIMIT, "a handler of signals", || {
        let text = fs::read_to_string(&status)?;
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
        Ok(caught.and_then(|mask| u64::from_str_radix(mask, 16).ok()).filter(|mask| mask & 1 == 1))
    })?;
    let socket = scratch.join("control.sock");
    wait::until(3 * LIMIT, "a ready agent", || {
        process.signal(Signal::HUP)?;
        Ok(process::say(agent::command(&socket)?.arg("stats"), LIMIT)?.code.eq(&0).then_some(()))
    })?;
    ensure!(load::curl(&["-f", &format!("http://127.0.0.1:{port}/healthz")]).is_ok(), "not alive");
    let ended = process.terminate(LIMIT)?;
    ensure!(ended.success(), "{}", process.output()?);
    Ok(())
}

/// What can't be recorded does not happen, but for the way out.
#[test]
fn a18_no_place_for_the_audit_log() -> Result<()> {
    let scratch = Scratch::new("audit")?;
    let log = scratch.join("audit.log");
    let agent = Agent::start(&[&format!("enforce.audit={}", log.display()), "enforce.mode=enforce"])?;
    wait::until(LIMIT, "the first line of the log", || Ok(log.exists().then_some(())))?;
    fs::remove_file(&log)?;
    fs::create_dir(&log)?;
    let path = log.display().to_string();
    let rule = ["block", "add", "--id", "x", "--client", "203.0.113.7", "--reason", "test"];
    refused(&agent.say(&rule)?, 1, &["can't be recorded", &path])?;
    assert_eq!(agent.say(&["mode", "monitor"])?.code, 0);
    assert_eq!(agent.say(&["mode"])?.out.lines().next(), Some("monitor"));
    refused(&agent.say(&["mode", "enforce"])?, 1, &["can't be recorded", &path])?;
    fs::remove_dir(&log)?;
    assert_eq!(agent.say(&rule)?.code, 0);
    assert_eq!(agent.say(&["audit", "verify", &path])?.code, 0);
    agent.finish()
}

#[test]
fn a18_no_agent_and_wrong_usage() -> Result<()> {
    let scratch = Scratch::new("none")?;
    let socket = scratch.join("nobody.sock");
    for verb in ["calls", "connections", "services", "stats"] {
        let said = process::say(agent::command(&socket)?.arg(verb), LIMIT)?;
        refused(&said, 3, &[&socket.display().to_string()])?;
        ensure!(said.out.is_empty(), "{verb}: standard output has {}", said.out);
    }
    let said = process::say(Command::new(place::weir()?).args(["calls", "--no-such-option"]), LIMIT)?;
    refused(&said, 2, &["--no-such-option"])?;
    let said = process::say(Command::new(place::weir()?).args(["run", "--set", "no.such=key"]), LIMIT)?;
    refused(&said, 2, &["no.such"])
}
