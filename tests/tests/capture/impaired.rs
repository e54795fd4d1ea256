//! A9: a bad link, and segments that nobody sent.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use weir_tests::agent::Agent;
use weir_tests::netns::NetNs;
use weir_tests::truth::{Row, Sides};
use weir_tests::tun::{Relay, Weather, happened};
use weir_tests::wire::{Server, Wire};

const CONNECTIONS: usize = 4;
const REQUESTS: usize = 60;

/// Sizes of request and response of a connection's n-th call: small ones, and some of many segments.
fn sizes(nth: usize) -> (usize, usize) {
    (if nth % 7 == 3 { 20_000 } else { nth }, if nth % 5 == 2 { 40_000 } else { nth * 3 })
}

fn row(nth: usize) -> Row {
    let (up, down) = sizes(nth);
    Row::new("POST", &format!("/bad/{nth}"), 200, up as u64, down as u64)
}

/// One connection's calls, each answer checked byte by byte.
fn load(address: SocketAddr) -> Result<u16> {
    let mut wire = Wire::connect(address)?;
    for nth in 0..REQUESTS {
        let (up, down) = sizes(nth);
        wire.send(format!("POST /bad/{nth} HTTP/1.1\r\nHost: x\r\nContent-Length: {up}\r\nX-Down: {down}\r\n\r\n"))?;
        wire.send("u".repeat(up))?;
        let answer = wire.answer("POST")?;
        ensure!(answer.status()? == 200 && answer.body == "d".repeat(down).into_bytes(), "call {nth}");
    }
    wire.port()
}

fn check(weather: Weather) -> Result<()> {
    let (one, two) = (NetNs::new("one")?, NetNs::new("two")?);
    let relay = Relay::start(&one, &two, weather)?;
    let listener = two.inside(|| Ok(TcpListener::bind(("10.90.0.2", 0))?))?;
    let server = Server::on(listener, |mut wire| {
        while let Some(request) = wire.request()? {
            let down: usize = request.header("x-down").unwrap_or_default().parse()?;
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {down}\r\n\r\n{}", "d".repeat(down)))?;
        }
        Ok(())
    })?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let address = server.address();
    let ports = one.inside(|| {
        thread::scope(|scope| -> Result<Vec<u16>> {
            // Threads are inside the namespace that their parent is in.
            let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(move || load(address))).collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client's thread failed"))?).collect()
        })
    })?;
    server.stop()?;
    happened(weather, relay.done())?;
    let rows: Vec<Row> = (0..REQUESTS).map(row).collect();
    let calls = agent.calls(&[address.port()], 2 * CONNECTIONS * REQUESTS)?;
    for port in &ports {
        let of_one = calls.iter().filter(|call| call.client().port() == *port).cloned().collect();
        Sides::of(of_one).are(&rows)?;
    }
    ensure!(calls.len() == 2 * CONNECTIONS * REQUESTS, "{} calls", calls.len());
    agent.finish()
}

#[test]
fn a9_a_good_link_of_the_same_kind() -> Result<()> {
    check(Weather::default())
}

#[test]
fn a9_loss() -> Result<()> {
    check(Weather { seed: 1, loss: 10, ..Weather::default() })?;
    check(Weather { seed: 2, loss: 50, ..Weather::default() })
}

#[test]
fn a9_duplicates() -> Result<()> {
    check(Weather { seed: 3, duplicate: 200, ..Weather::default() })
}

#[test]
fn a9_reordering() -> Result<()> {
    check(Weather { seed: 4, reorder: 100, delay: Duration::from_millis(1), ..Weather::default() })
}

#[test]
fn a9_all_at_once() -> Result<()> {
    let all = Weather { seed: 6, loss: 20, duplicate: 20, reorder: 20, ..Weather::default() };
    check(Weather { delay: Duration::from_millis(2), ..all })
}

#[test]
fn a9_forged_segments() -> Result<()> {
    check(Weather { seed: 7, forge: true, ..Weather::default() })
}
