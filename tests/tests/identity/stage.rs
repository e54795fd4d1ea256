//! Programs that answer, and the question that every case ends with: who was it, and which rule said so.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::call::{Call, Kind};
use weir_tests::place::{self, Scratch, program};
use weir_tests::process::{self, Process};
use weir_tests::wait;

/// Until a program must listen.
pub(crate) const START: Duration = Duration::from_secs(20);

/// A Python module that scripts of the tests import: one answer a connection.
const SERVE: &str = r#"
import os, socket, sys, time

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def listen(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(port)))
    listener.listen(64)
    return listener


def ask(wire):
    head = b""
    while b"\r\n\r\n" not in head:
        more = wire.recv(65536)
        if not more:
            return False
        head += more
    return True


def answer(wire):
    if ask(wire):
        wire.sendall(ANSWER)
    wire.close()


def serve(listener, count=-1):
    while count != 0:
        wire, _ = listener.accept()
        answer(wire)
        count -= 1
"#;

/// A folder with the module `serve` and scripts that import it.
pub(crate) fn scripts(scripts: &[(&str, &str)]) -> Result<Scratch> {
    let scratch = Scratch::new("identity")?;
    scratch.write("serve.py", SERVE)?;
    for (name, body) in scripts {
        scratch.write(name, format!("from serve import *\n{body}\n"))?;
    }
    Ok(scratch)
}

/// `python3 SCRIPT ARGUMENTS`, the script by its whole path.
pub(crate) fn python(folder: &Scratch, script: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("python3")?);
    command.arg(folder.join(script)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// Starts a server and waits until it listens at `port`. No connection is made for that: a server that answers only
/// once would be used up.
pub(crate) fn start(command: Command, port: u16, folder: &Scratch) -> Result<Process> {
    let mut process = Process::start(command, &format!("server-{port}"), folder)?;
    wait::until(START, &format!("a listener at port {port}"), || {
        if let Some(status) = process.ended()?
            && !status.success()
        {
            anyhow::bail!("it ended with {status}");
        }
        Ok(listens(port)?.then_some(()))
    })
    .with_context(|| process.output().unwrap_or_default())?;
    Ok(process)
}

/// Whether a socket of this network namespace listens at `port` (`proc_net_tcp`: state 0A).
fn listens(port: u16) -> Result<bool> {
    // Java's sockets are of the other family, whatever they are bound to.
    let text =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string).into_iter().collect::<Result<String, _>>()?;
    let end = format!(":{port:04X}");
    Ok(text.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&end)) && words.nth(1) == Some("0A")
    }))
}

/// `count` curls at `port`, one after the other.
pub(crate) fn curls(count: u32, port: u16) -> Result<()> {
    let mut answer = Command::new(program("curl")?);
    // A program that nobody is left of must fail the test, not keep it waiting.
    answer.args(["-s", "-f", "-m", "20", "-o", "/dev/null", &format!("http://127.0.0.1:{port}/fixed/1")]);
    (0..count).try_for_each(|_| process::run(&mut answer, START).map(drop))
}

/// The calls that were answered at `port`, once there are `count`.
pub(crate) fn answered(agent: &Agent, port: u16, count: usize) -> Result<Vec<Call>> {
    let mut calls = agent.calls(&[port], 2 * count)?;
    calls.retain(|call| call.kind == Kind::Server);
    ensure!(calls.len() == count, "{} calls were answered at port {port}, expected {count}", calls.len());
    Ok(calls)
}

/// Rows of `weir services` that hold `pid`.
pub(crate) fn rows_of(agent: &Agent, pid: u32) -> Result<Vec<Value>> {
    let mut rows = agent.lines(&["services"])?;
    rows.retain(|row| row["pids"].as_array().is_some_and(|pids| pids.iter().any(|it| *it == pid)));
    Ok(rows)
}

/// Who answers at `port`: asked `count` times, each call is `name`'s on both ends, and `weir services` knows the
/// processes by that name alone, found `by` that rule. Gives the processes that answered, each once.
pub(crate) fn answers_as(agent: &Agent, port: u16, count: u32, name: &str, by: &str) -> Result<Vec<u32>> {
    curls(count, port)?;
    let calls = answered(agent, port, count as usize)?;
    are(agent, &calls, name, by)
}

/// These calls are `name`'s, found `by` that rule.
pub(crate) fn are(agent: &Agent, calls: &[Call], name: &str, by: &str) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for call in calls {
        ensure!(call.service.name.as_deref() == Some(name), "{:?} instead of {name}", call.service);
        let pid = call.service.pid.with_context(|| format!("no process in {:?}", call.service))?;
        if !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    for &pid in &pids {
        let rows = rows_of(agent, pid)?;
        let told: Vec<_> =
            rows.iter().map(|row| (row["service"]["service.name"].as_str(), row["evidence"].as_str())).collect();
        ensure!(told == [(Some(name), Some(by))], "process {pid}: {told:?}, expected {name} by {by}");
    }
    Ok(pids)
}

/// The peer that each client saw behind `port`, in the order of their calls.
pub(crate) fn peers(agent: &Agent, port: u16) -> Result<Vec<Option<String>>> {
    let mut calls = agent.calls_now(&[port])?;
    calls.sort_by(|a, b| a.start.cmp(&b.start));
    let clients = calls.into_iter().filter(|call| call.kind == Kind::Client);
    Ok(clients.map(|call| call.peer.and_then(|peer| peer.name)).collect())
}

/// A free port as text, and as number.
pub(crate) fn port() -> Result<(String, u16)> {
    let port = place::free_port()?;
    Ok((port.to_string(), port))
}

/// Waits until somebody listens at `port`.
pub(crate) fn listening(port: u16) -> Result<()> {
    wait::until(START, &format!("a listener at port {port}"), || Ok(listens(port)?.then_some(())))
}

/// Ends a process that a test's program left behind on purpose.
pub(crate) fn end(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(pid.cast_signed()).context("process id 0")?;
    Ok(kill_process(pid, Signal::KILL)?)
}
