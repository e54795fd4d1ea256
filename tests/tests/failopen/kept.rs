//! Connections that are kept while the gate comes and goes: what passed unread is no reason to hold up what follows, and
//! what a rule refuses is refused with a reset.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::Nginx;
use weir_tests::rules::{enforcing, refused, rule};
use weir_tests::wire::{Server, Wire};

/// Until an answer must have come, or a reset.
const SOON: Duration = Duration::from_secs(3);

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn connect(server: SocketAddr) -> Result<Wire> {
    let wire = Wire::connect(server)?;
    wire.stream().set_read_timeout(Some(SOON))?;
    Ok(wire)
}

/// Asks for good things, one after the other.
fn good(wire: &mut Wire, count: usize, when: &str) -> Result<()> {
    for n in 0..count {
        wire.send(get("/good"))?;
        let answer = wire.answer("GET").with_context(|| format!("{when}: good request {n} on a kept connection"))?;
        ensure!(answer.status()? == 404, "{when}: {}", answer.start());
    }
    Ok(())
}

/// A refused request, after which its client is not left waiting.
fn refuse(mut wire: Wire, when: &str) -> Result<()> {
    wire.send(get("/r"))?;
    refused(&mut wire).with_context(|| when.to_owned())
}

fn mode(agent: &Agent, mode: &str) -> Result<()> {
    let said = agent.say(&["mode", mode])?;
    ensure!(said.code == 0, "{}", said.err);
    Ok(())
}

/// Rules that hold at the server, and at the client.
#[test]
fn kept_connections_outlive_changes_of_the_mode() -> Result<()> {
    let nginx = Nginx::plain()?;
    let port = nginx.port().to_string();
    let own = std::fs::read_to_string("/proc/self/comm")?;
    for at_client in [false, true] {
        let agent = enforcing(&[])?;
        let client = ["--client-process", own.trim()];
        rule(&agent, "r", &[&["--path", "/r", "--port", &port], &client[..if at_client { 2 } else { 0 }]].concat())?;
        for unread in [1, 2, 5] {
            let mut wires = [connect(nginx.address())?, connect(nginx.address())?];
            for round in 0..3 {
                let when = format!("at the client: {at_client}, {unread} unread, round {round}");
                wires.iter_mut().try_for_each(|wire| good(wire, 2, &when))?;
                mode(&agent, "monitor")?;
                good(&mut wires[0], unread, &when)?;
                // One request more lies in each segment than the mode before has seen.
                wires[1].send(get("/good").repeat(unread))?;
                for _ in 0..unread {
                    ensure!(wires[1].answer("GET")?.status()? == 404, "{when}");
                }
                mode(&agent, "enforce")?;
                wires.iter_mut().try_for_each(|wire| good(wire, 2, &when))?;
            }
            mode(&agent, "monitor")?;
            wires.iter_mut().try_for_each(|wire| good(wire, unread, "before the last"))?;
            mode(&agent, "enforce")?;
            for wire in wires {
                refuse(wire, &format!("at the client: {at_client}, {unread} unread"))?;
            }
        }
        let gate = agent.json(&["mode"])?;
        ensure!(gate["gate"]["segments_damaged"] == 0, "{gate}");
        agent.finish()?;
    }
    Ok(())
}

/// The last rule is removed, and another one added: nobody reads in between.
#[test]
fn kept_connections_outlive_a_time_without_rules() -> Result<()> {
    let nginx = Nginx::plain()?;
    let port = nginx.port().to_string();
    let agent = enforcing(&[])?;
    let mut wires = [connect(nginx.address())?, connect(nginx.address())?];
    for round in 0..3 {
        let when = format!("round {round}");
        rule(&agent, "r", &["--path", "/r", "--port", &port])?;
        wires.iter_mut().try_for_each(|wire| good(wire, 2, &when))?;
        ensure!(agent.say(&["block", "remove", "r"])?.code == 0);
        wires.iter_mut().try_for_each(|wire| good(wire, 1 + round, &when))?;
    }
    rule(&agent, "r", &["--path", "/r", "--port", &port])?;
    for wire in wires {
        refuse(wire, "after the last rule")?;
    }
    agent.finish()
}

/// What begins in one mode and ends in the other: its rest is no request of its own, whatever it looks like. Its server
/// answers what it has read whole; where one answers before, the rest can't be told from a request.
#[test]
fn a_body_that_lasts_over_a_change_is_a_body() -> Result<()> {
    let server = Server::start(|mut wire: Wire| {
        // Refused requests end with a reset.
        while matches!(wire.request(), Ok(Some(_))) {
            wire.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })?;
    let agent = enforcing(&[])?;
    rule(&agent, "r", &["--path", "/r", "--port", &server.port().to_string()])?;
    let body = get("/r");
    let head = format!("POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 2 * body.len());
    for (first, then) in [("monitor", "enforce"), ("enforce", "monitor")] {
        let mut wire = connect(server.address())?;
        mode(&agent, "enforce")?;
        good(&mut wire, 2, first)?;
        mode(&agent, first)?;
        wire.send(format!("{head}{body}"))?;
        std::thread::sleep(Duration::from_millis(50));
        mode(&agent, then)?;
        wire.send(&body)?;
        let answer = wire.answer("POST").with_context(|| format!("from {first} to {then}"))?;
        ensure!(answer.status()? == 404, "{}", answer.start());
        mode(&agent, "enforce")?;
        good(&mut wire, 1, then)?;
        refuse(wire, then)?;
    }
    agent.finish()?;
    server.stop()
}
