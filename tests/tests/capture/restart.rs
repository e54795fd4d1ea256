//! A10: connections older than the agent, and an agent that dies under load.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place;
use weir_tests::process;
use weir_tests::truth::{Row, Sides, unique_spans};
use weir_tests::wait;
use weir_tests::wire::{Server, Wire};

/// One request on a keep-alive connection.
fn get(wire: &mut Wire, path: &str, status: u16) -> Result<Row> {
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))?;
    let answer = wire.answer("GET")?;
    ensure!(answer.status()? == status, "{path}: {}", answer.start());
    Ok(Row::new("GET", path, status, 0, answer.body.len() as u64))
}

#[test]
fn a10_connections_older_than_the_agent() -> Result<()> {
    let nginx = Nginx::plain()?;
    let mut wires: Vec<Wire> = (0..20).map(|_| Wire::connect(nginx.address())).collect::<Result<_>>()?;
    for wire in wires.iter_mut().skip(10) {
        get(wire, "/s/200", 200)?;
    }
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut truth = BTreeMap::new();
    for wire in &mut wires {
        let rows = [("/s/404", 404), ("/f/100", 200), ("/s/503", 503)].map(|(path, status)| get(wire, path, status));
        truth.insert(wire.port()?, rows.into_iter().collect::<Result<Vec<_>>>()?);
    }
    let calls = agent.calls(&[nginx.port()], 2 * 60)?;
    ensure!(calls.len() == 120, "{} calls", calls.len());
    let (own, workers) = (std::process::id(), nginx.workers()?);
    for (port, rows) in &truth {
        let sides = Sides::of(calls.iter().filter(|call| call.client().port() == *port).cloned().collect());
        sides.are(rows)?;
        for call in &sides.server {
            ensure!(call.service.pid.is_some_and(|pid| workers.contains(&pid)), "not of {workers:?}: {call:?}");
        }
        for call in &sides.client {
            ensure!(call.service.pid == Some(own), "not of {own}: {call:?}");
        }
    }
    agent.finish()
}

/// A server whose answers come in a few bytes at a time, on a connection that is older than the agent.
#[test]
fn a10_an_older_connection_answered_in_pieces() -> Result<()> {
    let server = Server::start(|mut wire| {
        // The agent starts between two requests, which takes what it takes.
        wire.stream().set_read_timeout(None)?;
        for nth in 0..4 {
            wire.request()?;
            wire.send_by(5, format!("HTTP/1.1 20{nth} Yes\r\nContent-Length: 2\r\n\r\nok").as_bytes())?;
        }
        wire.read_to_end().map(drop)
    })?;
    let mut wire = Wire::connect(server.address())?;
    get(&mut wire, "/0", 200)?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let rows = [1, 2, 3].map(|nth| get(&mut wire, &format!("/{nth}"), 200 + nth));
    drop(wire);
    let rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
    Sides::of(agent.calls(&[server.port()], 6)?).are(&rows)?;
    server.stop()?;
    agent.finish()
}

/// Ids of all programs, maps and links of Weir's that are in the kernel now.
fn in_kernel() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for kind in ["prog", "map"] {
        let mut command = std::process::Command::new(place::program("bpftool")?);
        let list = process::run(command.args([kind, "show"]), Duration::from_secs(10))?;
        found.extend(list.lines().filter(|line| line.contains("name weir")).map(|line| format!("{kind} {line}")));
    }
    Ok(found)
}

#[test]
fn a10_killed_twenty_times_under_load() -> Result<()> {
    let nginx = Nginx::plain()?;
    let before = in_kernel()?;
    let mut agent = Agent::start(&["privacy.level=standard"])?;
    let over = AtomicBool::new(false);
    let address = nginx.address();
    let (sent, last) = thread::scope(|scope| -> Result<_> {
        let load: Vec<_> = (0..4)
            .map(|_| {
                let over = &over;
                scope.spawn(move || -> Result<u64> {
                    let (mut wire, mut count) = (Wire::connect(address)?, 0);
                    while !over.load(Ordering::Acquire) {
                        get(&mut wire, "/s/200", 200)?;
                        count += 1;
                        thread::sleep(Duration::from_millis(1));
                    }
                    Ok(count)
                })
            })
            .collect();
        for round in 0..20 {
            thread::sleep(Duration::from_millis(100));
            agent.kill()?;
            agent.again().with_context(|| format!("round {round}"))?;
        }
        // All that is sent on these connections from here on is seen, whatever happened before.
        let mut wire = Wire::connect(address)?;
        let rows = (0..50).map(|_| get(&mut wire, "/s/404", 404)).collect::<Result<Vec<_>>>()?;
        let last = (wire.port()?, rows);
        over.store(true, Ordering::Release);
        let mut sent = 0;
        for thread in load {
            sent += thread.join().map_err(|_| anyhow::anyhow!("a client's thread failed"))??;
        }
        Ok((sent, last))
    })?;
    assert_eq!(nginx.logged(sent as usize + 50)?.len() as u64, sent + 50);
    let calls = agent.calls(&[nginx.port()], 100)?;
    unique_spans(calls.iter())?;
    let late = Sides::of(calls.iter().filter(|call| call.client().port() == last.0).cloned().collect());
    late.are(&last.1)?;
    agent.stop()?;
    let mut after = Vec::new();
    // The kernel frees programs and maps a moment after their last reference has gone.
    let freed = wait::until(Duration::from_secs(5), "the kernel to be as before", || {
        after = in_kernel()?;
        Ok((after == before).then_some(()))
    });
    freed.with_context(|| format!("{after:#?}"))?;
    Ok(())
}
