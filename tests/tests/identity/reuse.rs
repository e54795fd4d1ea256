//! Process ids that are given to another process within a millisecond.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, getpgid};
use weir_tests::agent::Agent;
use weir_tests::call::Kind;
use weir_tests::place::program;
use weir_tests::process;
use weir_tests::wait;

use crate::stage::{self, answered, are, curls, port, python, rows_of, scripts, start};

/// Starts `command` as number `pid`, which must be free: the kernel counts on from what it is told, and others may
/// count with us, so several tries may be needed (`ns_last_pid`, `CONFIG_CHECKPOINT_RESTORE`).
fn as_number(command: &mut Command, pid: u32) -> Result<Child> {
    for _ in 0..200 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).context("writing ns_last_pid")?;
        let mut child = command.stdin(Stdio::null()).spawn()?;
        if child.id() == pid {
            return Ok(child);
        }
        child.kill()?;
        child.wait()?;
    }
    bail!("number {pid} was never to be had")
}

/// Short-lived clients that take turns under one number, each ending before the next begins.
#[test]
fn clients_of_one_number_keep_their_own_names() -> Result<()> {
    const ROUNDS: usize = 12;
    let folder = scripts(&[("counter.py", "serve(listen(sys.argv[1]))")])?;
    for name in ["ask-red", "ask-green", "ask-blue"] {
        fs::copy(program("curl")?, folder.join(name))?;
    }
    let agent = Agent::start(&[])?;
    let (text, port) = port()?;
    let server = start(python(&folder, "counter.py", &[&text])?, port, &folder)?;
    let mut first = Command::new(folder.join("ask-red")).args(["-s", "-o", "/dev/null", &url(port)]).spawn()?;
    let pid = first.id();
    ensure!(first.wait()?.success());
    let mut expected = vec!["ask-red".to_owned()];
    for name in ["ask-green", "ask-blue", "ask-red"].into_iter().cycle().take(ROUNDS) {
        let mut command = Command::new(folder.join(name));
        let mut child = as_number(command.args(["-s", "-o", "/dev/null", &url(port)]), pid)?;
        ensure!(child.wait()?.success());
        expected.push(name.to_owned());
    }
    let mut calls = agent.calls(&[port], 2 * expected.len())?;
    calls.sort_by(|a, b| a.start.cmp(&b.start));
    // A try under another number may have asked as well, before it was ended.
    let of_number = |call: &&weir_tests::call::Call| call.kind == Kind::Client && call.service.pid == Some(pid);
    let clients: Vec<String> = calls.iter().filter(of_number).filter_map(|call| call.service.name.clone()).collect();
    ensure!(clients == expected, "{clients:?}\nexpected {expected:?}");
    for call in calls.iter().filter(|call| call.kind == Kind::Server) {
        let client = calls.iter().find(|it| it.kind == Kind::Client && it.connection.local == call.connection.remote);
        let (seen, own) =
            (call.peer.as_ref().and_then(|peer| peer.name.as_ref()), client.and_then(|it| it.service.name.as_ref()));
        ensure!(seen.is_some() && seen == own, "the server saw {seen:?}, it was {own:?}");
    }
    drop(server);
    agent.finish()
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

/// A server ends and its number is another's before the agent hears of it; and a child that goes on with the listener
/// of a parent whose number is another program's now.
#[test]
fn a_number_that_was_given_away_names_nobody_else() -> Result<()> {
    const PARENT: &str = r"
listener = listen(sys.argv[1])
if os.fork() > 0:
    time.sleep(600)
# As the number of its group, the parent's would still be in use.
os.setsid()
serve(listener)
";
    let folder = scripts(&[
        ("first.py", "serve(listen(sys.argv[1]))"),
        ("second.py", "serve(listen(sys.argv[1]))"),
        ("parent.py", PARENT),
    ])?;
    let agent = Agent::start(&[])?;
    let (one, two, inherited, three) = (port()?, port()?, port()?, port()?);
    let mut server = start(python(&folder, "first.py", &[&one.0])?, one.1, &folder)?;
    let pid = server.pid();
    curls(3, one.1)?;
    server.signal(rustix::process::Signal::KILL)?;
    server.wait(Duration::from_secs(5))?;
    let mut second = as_number(&mut python(&folder, "second.py", &[&two.0])?, pid)?;
    let told = (|| {
        stage::listening(two.1)?;
        curls(3, two.1)?;
        let old = answered(&agent, one.1, 3)?;
        let new = answered(&agent, two.1, 3)?;
        for (calls, name) in [(&old, "first"), (&new, "second")] {
            ensure!(calls.iter().all(|call| call.service.name.as_deref() == Some(name)), "{calls:?}");
            ensure!(calls.iter().all(|call| call.service.pid == Some(pid)), "{calls:?}");
        }
        // Both are listed, each under its own name.
        let rows = rows_of(&agent, pid)?;
        let mut names: Vec<_> = rows.iter().filter_map(|row| row["service"]["service.name"].as_str()).collect();
        names.sort_unstable();
        ensure!(names == ["first", "second"], "{names:?}");
        Ok(())
    })();
    second.kill()?;
    second.wait()?;
    told?;

    let mut parent = start(python(&folder, "parent.py", &[&inherited.0])?, inherited.1, &folder)?;
    let child = wait::until(stage::START, "a child in a session of its own", || {
        let children = process::children(parent.pid())?;
        let alone = |pid: &u32| {
            let pid = Pid::from_raw(pid.cast_signed());
            pid.is_some_and(|pid| getpgid(Some(pid)).is_ok_and(|group| group == pid))
        };
        Ok(Some(children).filter(|children| children.len() == 1 && children.iter().all(alone)))
    })?;
    parent.signal(rustix::process::Signal::KILL)?;
    parent.wait(Duration::from_secs(5))?;
    let mut thief = as_number(&mut python(&folder, "second.py", &[&three.0])?, parent.pid())?;
    let told = (|| {
        stage::listening(three.1)?;
        curls(4, inherited.1)?;
        let pids = are(&agent, &answered(&agent, inherited.1, 4)?, "parent", "script")?;
        ensure!(pids == child, "{pids:?} answered, the child is {child:?}");
        Ok(())
    })();
    thief.kill()?;
    thief.wait()?;
    child.iter().try_for_each(|pid| stage::end(*pid))?;
    told?;
    agent.finish()
}
