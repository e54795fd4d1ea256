//! A12: ten thousand connections with slow clients: bounded memory, and every call.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::wait;

const CONNECTIONS: usize = 10_000;
/// What 10 000 connections with both ends on the node may cost: the budget of 64 MiB with a store of 16 MiB
/// (`cargo xtask bench memory`), and 8 MiB more for the store of 24 MiB that holds every call of this test.
const RESIDENT: u64 = 72 << 20;

#[test]
fn a12_ten_thousand_slow_clients() -> Result<()> {
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(CONNECTIONS as u64 + 2000), maximum: Some(20_000) },
    )
    .context("10 000 sockets need a limit of open files above that")?;
    let nginx = Nginx::start(&Setup { http: "client_header_timeout 600s;", ..Setup::default() })?;
    let agent = Agent::start(&["recent.memory=24MiB"])?;
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
    // What a burst took for a moment is given back within seconds.
    let mut resident = 0;
    let small = wait::until(Duration::from_secs(25), "memory within its budget", || {
        resident = agent.resident()?;
        Ok((resident <= RESIDENT).then_some(()))
    });
    small.with_context(|| format!("{} MiB resident", resident >> 20))?;
    drop(streams);
    let log = nginx.logged(2 * CONNECTIONS)?;
    ensure!(log.len() == 2 * CONNECTIONS);
    let calls = agent.calls(&[nginx.port()], 4 * CONNECTIONS)?;
    ensure!(calls.len() == 4 * CONNECTIONS, "{} calls", calls.len());
    ensure!(calls.iter().all(|call| call.attributes.status == Some(200) && call.end == "complete"));
    agent.finish()
}
