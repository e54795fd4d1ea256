//! Processes that come to their socket by fork, exec or inheritance.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::place::program;
use weir_tests::process::Process;

use crate::stage::{answered, answers_as, are, curls, peers, port, python, rows_of, scripts, start};

/// A launcher that serves itself and starts another program: each goes by its own name.
#[test]
fn what_is_forked_and_executed_is_no_part_of_its_launcher() -> Result<()> {
    const LAUNCHER: &str = r#"
listener = listen(sys.argv[1])
if os.fork() == 0:
    listener.close()
    os.execv(sys.executable, [sys.executable, os.path.join(os.path.dirname(__file__), "worker.py"), sys.argv[2]])
if os.fork() == 0:
    listener.close()
    os.execve(sys.executable, [sys.executable, os.path.join(os.path.dirname(__file__), "worker.py"), sys.argv[3]],
              {"OTEL_SERVICE_NAME": "payments", "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=prod"})
serve(listener)
"#;
    let folder = scripts(&[("launcher.py", LAUNCHER), ("worker.py", "serve(listen(sys.argv[1]))")])?;
    for older in [true, false] {
        let (own, plain, said) = (port()?, port()?, port()?);
        let launcher = || -> Result<Process> {
            let launched = start(python(&folder, "launcher.py", &[&own.0, &plain.0, &said.0])?, own.1, &folder)?;
            crate::stage::listening(plain.1)?;
            crate::stage::listening(said.1)?;
            Ok(launched)
        };
        let before = if older { Some(launcher()?) } else { None };
        let agent = Agent::start(&[])?;
        let after = if older { None } else { Some(launcher()?) };
        let pid = before.as_ref().or(after.as_ref()).map(Process::pid).context("no launcher")?;
        ensure!(answers_as(&agent, own.1, 3, "launcher", "script")? == [pid]);
        ensure!(answers_as(&agent, plain.1, 3, "worker", "script")? != [pid]);
        let named = answers_as(&agent, said.1, 3, "payments", "OTEL_SERVICE_NAME")?;
        let row = rows_of(&agent, *named.first().context("no process")?)?;
        ensure!(row.iter().all(|row| row["service"]["service.namespace"] == "prod"), "{row:?}");
        drop((before, after));
        agent.finish()?;
    }
    Ok(())
}

/// A process that hands its listening socket to the program that it becomes.
#[test]
fn a_listener_kept_over_exec_answers_as_what_runs() -> Result<()> {
    const BEFORE: &str = r#"
listener = listen(sys.argv[1])
serve(listener, 3)
os.set_inheritable(listener.fileno(), True)
after = os.path.join(os.path.dirname(__file__), "after.py")
os.execv(sys.executable, [sys.executable, after, str(listener.fileno())])
"#;
    const AFTER: &str = "serve(socket.socket(fileno=int(sys.argv[1])))";
    let folder = scripts(&[("before.py", BEFORE), ("after.py", AFTER)])?;
    let agent = Agent::start(&[])?;
    let (text, port) = port()?;
    let server = start(python(&folder, "before.py", &[&text])?, port, &folder)?;
    curls(6, port)?;
    let mut calls = answered(&agent, port, 6)?;
    calls.sort_by(|a, b| a.start.cmp(&b.start));
    let names: Vec<_> = calls.iter().map(|call| call.service.name.as_deref().unwrap_or_default()).collect();
    ensure!(names == ["before", "before", "before", "after", "after", "after"], "{names:?}");
    ensure!(calls.iter().all(|call| call.service.pid == Some(server.pid())));
    ensure!(peers(&agent, port)?.iter().map(|peer| peer.as_deref().unwrap_or_default()).eq(names));
    drop(server);
    agent.finish()
}

/// inetd's way: each connection is handed to a program of its own, which answers on it.
#[test]
fn a_connection_handed_to_a_program_is_answered_by_it() -> Result<()> {
    const SUPER: &str = r#"
listener = listen(sys.argv[1])
while True:
    wire, _ = listener.accept()
    if os.fork() == 0:
        os.dup2(wire.fileno(), 0)
        handler = os.path.join(os.path.dirname(__file__), "handler.py")
        os.execv(sys.executable, [sys.executable, handler])
    wire.close()
    os.wait()
"#;
    const HANDLER: &str = "answer(socket.socket(fileno=0))";
    let folder = scripts(&[("super.py", SUPER), ("handler.py", HANDLER)])?;
    let agent = Agent::start(&[])?;
    let (text, port) = port()?;
    let server = start(python(&folder, "super.py", &[&text])?, port, &folder)?;
    let pids = answers_as(&agent, port, 5, "handler", "script")?;
    ensure!(pids.len() == 5 && !pids.contains(&server.pid()), "{pids:?}");
    drop(server);
    agent.finish()
}

/// A manager that opens sockets for services that it starts on demand and that stays: never the one who answers.
#[test]
fn an_activated_service_is_not_its_activator() -> Result<()> {
    const MANAGER: &str = r#"
listener = listen(sys.argv[1])
import select
select.select([listener], [], [])
if os.fork() == 0:
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ["LISTEN_FDS"] = "1"
    os.environ["LISTEN_PID"] = str(os.getpid())
    activated = os.path.join(os.path.dirname(__file__), "activated.py")
    os.execv(sys.executable, [sys.executable, activated])
time.sleep(600)
"#;
    const ACTIVATED: &str = "assert os.environ['LISTEN_FDS'] == '1'\nserve(socket.socket(fileno=3))";
    let folder = scripts(&[("manager.py", MANAGER), ("activated.py", ACTIVATED)])?;
    let agent = Agent::start(&[])?;
    let (own, systemd) = (port()?, port()?);
    let manager = start(python(&folder, "manager.py", &[&own.0])?, own.1, &folder)?;
    let pids = answers_as(&agent, own.1, 5, "activated", "script")?;
    ensure!(!pids.contains(&manager.pid()), "{pids:?}");
    // systemd's own activator becomes the service by exec.
    let mut command = Command::new(program("systemd-socket-activate")?);
    command.args(["-l", &format!("127.0.0.1:{}", systemd.0)]).arg(program("python3")?).arg(folder.join("activated.py"));
    let activator = start(command, systemd.1, &folder)?;
    let pids = answers_as(&agent, systemd.1, 5, "activated", "script")?;
    ensure!(pids == [activator.pid()], "{pids:?}");
    drop((manager, activator));
    agent.finish()
}

/// `systemd-socket-activate --accept --inetd`: a process for each connection.
#[test]
fn a_service_activated_for_each_connection_answers_itself() -> Result<()> {
    let folder = scripts(&[("oneshot.py", "answer(socket.socket(fileno=0))")])?;
    let agent = Agent::start(&[])?;
    let (text, port) = port()?;
    let mut command = Command::new(program("systemd-socket-activate")?);
    command.args(["--accept", "--inetd", "-l", &format!("127.0.0.1:{text}")]);
    command.arg(program("python3")?).arg(folder.join("oneshot.py"));
    let activator = start(command, port, &folder)?;
    let pids = answers_as(&agent, port, 5, "oneshot", "script")?;
    ensure!(pids.len() == 5 && !pids.contains(&activator.pid()), "{pids:?}");
    drop(activator);
    agent.finish()
}

/// The first two of the three processes of a daemon's start are gone when it answers.
#[test]
fn a_daemon_of_two_forks_is_its_program() -> Result<()> {
    const DAEMON: &str = r#"
listener = listen(sys.argv[1])
if os.fork() > 0:
    os._exit(0)
os.setsid()
if os.fork() > 0:
    os._exit(0)
open(sys.argv[2], "w").write(str(os.getpid()))
serve(listener)
"#;
    let folder = scripts(&[("nightly.py", DAEMON)])?;
    for older in [true, false] {
        let (text, port) = port()?;
        let file = folder.join(&format!("pid-{text}"));
        let begin = || -> Result<u32> {
            let mut first =
                start(python(&folder, "nightly.py", &[&text, &file.display().to_string()])?, port, &folder)?;
            first.succeed(Duration::from_secs(10))?;
            weir_tests::wait::until(Duration::from_secs(10), "the daemon's number", || {
                Ok(std::fs::read_to_string(&file).ok().and_then(|text| text.parse().ok()))
            })
        };
        let agent = if older { None } else { Some(Agent::start(&[])?) };
        let pid = begin()?;
        let agent = match agent {
            Some(agent) => agent,
            None => Agent::start(&[])?,
        };
        curls(4, port)?;
        let named = are(&agent, &answered(&agent, port, 4)?, "nightly", "script");
        crate::stage::end(pid)?;
        ensure!(named? == [pid]);
        agent.finish()?;
    }
    Ok(())
}
