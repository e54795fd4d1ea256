//! A12: ten and thirty thousand connections with slow clients: bounded memory, and every call.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::crowd::{self, Crowd};
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::wait;

const CONNECTIONS: usize = 10_000;
const MIB: u64 = 1 << 20;
/// What the agent may take with 10 000 connections, both ends on the node, and a store of [`STORE`] (as in
/// `cargo xtask bench memory`).
const RESIDENT: u64 = 64 * MIB;
const STORE: u64 = 16 * MIB;
/// What 30 000 connections may take beside the store: measured are 65 MiB, 1 KiB an end.
const CROWDED: u64 = 96 * MIB;
/// Kernel memory of the maps, whatever the number of connections.
const MAPS: u64 = 32 * MIB;

/// Resident memory beside the store of recent calls, and what the store takes, bytes.
fn memory(agent: &Agent) -> Result<(u64, u64)> {
    let stats = agent.json(&["stats"])?;
    let store = stats.pointer("/recent/bytes").and_then(serde_json::Value::as_u64).context("no /recent/bytes")?;
    Ok((agent.resident()?.saturating_sub(store), store))
}

/// Waits until resident memory beside the store is within its bound: what a burst took for a moment is given back
/// within seconds.
fn settled(agent: &Agent, bound: u64) -> Result<()> {
    let mut last = (0, 0);
    let small = wait::until(Duration::from_secs(25), "memory within its bound", || {
        last = memory(agent)?;
        Ok((last.0 <= bound).then_some(()))
    });
    let (beside, store) = (last.0 / MIB, last.1 / MIB);
    println!("{beside} MiB resident beside a store of {store} MiB");
    small.with_context(|| format!("{beside} MiB resident beside the store, {} are allowed", bound / MIB))
}

#[test]
fn a12_ten_thousand_slow_clients() -> Result<()> {
    crowd::raise_open_files()?;
    let nginx = Nginx::start(&Setup { http: "client_header_timeout 600s;", ..Setup::default() })?;
    let agent = Agent::start(&["recent.memory=32MiB"])?;
    let mut streams = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(nginx.address())?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let request = b"GET /s/200 HTTP/1.1\r\nHost: x\r\n\r\n";
    // Two requests each; the first comes in pieces of a byte, then of ten bytes.
    for (round, size) in [(0, 1), (1, 10)] {
        for piece in request.chunks(size) {
            for stream in &mut streams {
                stream.write_all(piece)?;
            }
        }
        for stream in &mut streams {
            let mut answer = [0; 512];
            let count = stream.read(&mut answer)?;
            ensure!(answer.starts_with(b"HTTP/1.1 200 ") && count > 100, "round {round}");
        }
    }
    let live = agent.lines(&["connections"])?.len();
    ensure!(live >= 2 * CONNECTIONS, "{live} live connections");
    settled(&agent, RESIDENT - STORE)?;
    drop(streams);
    let log = nginx.logged(2 * CONNECTIONS)?;
    ensure!(log.len() == 2 * CONNECTIONS);
    let calls = agent.calls(&[nginx.port()], 4 * CONNECTIONS)?;
    ensure!(calls.len() == 4 * CONNECTIONS, "{} calls, {:?}", calls.len(), agent.ledger()?);
    ensure!(calls.iter().all(|call| call.attributes.status == Some(200) && call.end == "complete"));
    agent.finish()
}

#[test]
fn a12_thirty_thousand_connections() -> Result<()> {
    const EACH: usize = 10_000;
    const ALL: usize = 3 * EACH;
    crowd::raise_open_files()?;
    let listen = &["0.0.0.0:PORT reuseport backlog=4096"];
    let nginx = Nginx::start(&Setup { listen, workers: 4, ..Setup::default() })?;
    let agent = Agent::start(&["recent.memory=96MiB"])?;
    let crowd = Crowd::connect(3, EACH, nginx.port())?;
    println!("{} MiB resident with {ALL} connections that have said nothing", agent.resident()? / MIB);
    // A tenth of the clients send a byte a second.
    let crowd = crowd.ask(EACH / 10)?;
    let log = nginx.logged(ALL)?;
    ensure!(log.len() == ALL, "{} requests", log.len());
    settled(&agent, CROWDED)?;
    let maps = agent.map_memory()?;
    println!("{} MiB of maps", maps / MIB);
    ensure!(maps <= MAPS, "{maps} bytes of maps");
    let live = agent.lines(&["connections"])?.len();
    ensure!(live >= 2 * ALL, "{live} live connections");
    crowd.close()?;
    let left = agent.connections(nginx.port())?;
    ensure!(left.is_empty(), "{} connections left: {:?}", left.len(), left.first());
    let calls = agent.calls(&[nginx.port()], 2 * ALL)?;
    ensure!(calls.len() == 2 * ALL, "{} calls, {:?}", calls.len(), agent.ledger()?);
    ensure!(calls.iter().all(|call| call.attributes.status == Some(200) && call.end == "complete"));
    agent.finish()
}
