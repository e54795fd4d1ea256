//! A9: a bad link, and segments that nobody sent.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use weir_tests::agent::Agent;
use weir_tests::netns::NetNs;
use weir_tests::truth::{Row, Sides};
use weir_tests::tun::{Relay, TWO, TWO_V6, Weather, happened};
use weir_tests::wire::{Server, Wire};

const CONNECTIONS: usize = 4;
const REQUESTS: usize = 60;

/// A connection's n-th call: small ones, and some of many segments; requests of one segment, and of more.
struct Ask {
    method: &'static str,
    path: String,
    status: u16,
    up: usize,
    down: usize,
}

impl Ask {
    fn nth(nth: usize) -> Self {
        let up = if nth % 7 == 3 { 20_000 } else { nth * (nth % 2) };
        Self {
            method: if up == 0 { "GET" } else { "POST" },
            path: format!("/bad/{nth}"),
            status: [200, 201, 404][nth % 3],
            up,
            down: if nth % 5 == 2 { 40_000 } else { nth * 3 },
        }
    }

    fn head(&self) -> String {
        let Self { method, path, status, up, down } = self;
        let length = if *up == 0 { String::new() } else { format!("Content-Length: {up}\r\n") };
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{length}X-Status: {status}\r\nX-Down: {down}\r\n\r\n")
    }

    fn row(&self) -> Row {
        Row::new(self.method, &self.path, self.status, self.up as u64, self.down as u64)
    }
}

/// One connection's calls, each answer checked byte by byte.
fn load(address: SocketAddr) -> Result<u16> {
    let mut wire = Wire::connect(address)?;
    for nth in 0..REQUESTS {
        let ask = Ask::nth(nth);
        wire.send(ask.head())?;
        wire.send("u".repeat(ask.up))?;
        let answer = wire.answer(ask.method)?;
        ensure!(answer.status()? == ask.status && answer.body == "d".repeat(ask.down).into_bytes(), "call {nth}");
    }
    wire.port()
}

fn check(weather: Weather) -> Result<()> {
    over(weather, IpAddr::V4(TWO))
}

fn over(weather: Weather, address: IpAddr) -> Result<()> {
    let (one, two) = (NetNs::new("one")?, NetNs::new("two")?);
    let relay = Relay::start(&one, &two, weather)?;
    let listener = two.inside(|| Ok(TcpListener::bind((address, 0))?))?;
    let server = Server::on(listener, |mut wire| {
        while let Some(request) = wire.request()? {
            let down: usize = request.header("x-down").unwrap_or_default().parse()?;
            let status = request.header("x-status").unwrap_or_default();
            wire.send(format!("HTTP/1.1 {status} X\r\nContent-Length: {down}\r\n\r\n{}", "d".repeat(down)))?;
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
    let rows: Vec<Row> = (0..REQUESTS).map(|nth| Ask::nth(nth).row()).collect();
    let calls = agent.calls(&[address.port()], 2 * CONNECTIONS * REQUESTS)?;
    for port in &ports {
        let of_one = calls.iter().filter(|call| call.client().port() == *port).cloned().collect();
        Sides::of(of_one).are(&rows)?;
    }
    ensure!(calls.len() == 2 * CONNECTIONS * REQUESTS, "{} calls", calls.len());
    let dropped = agent.page()?.sum("weir_messages_total", &[("reason", "checksum")]);
    ensure!((dropped > 0.0) == (weather.corrupt > 0 || weather.mask), "{dropped} segments with a wrong checksum");
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

/// Segments that TCP drops for their checksum behind the hook, and that come again.
#[test]
fn a9_corrupt_checksums() -> Result<()> {
    check(Weather { seed: 8, corrupt: 10, ..Weather::default() })?;
    check(Weather { seed: 9, corrupt: 100, ..Weather::default() })
}

#[test]
fn a9_corrupt_checksums_of_ipv6() -> Result<()> {
    over(Weather { seed: 10, corrupt: 50, ..Weather::default() }, IpAddr::V6(TWO_V6))
}

#[test]
fn a9_corrupt_checksums_and_all_else() -> Result<()> {
    let all = Weather { seed: 11, corrupt: 30, loss: 10, duplicate: 20, reorder: 20, ..Weather::default() };
    check(Weather { delay: Duration::from_millis(1), ..all })
}

#[test]
fn a9_all_at_once() -> Result<()> {
    let all = Weather { seed: 6, loss: 20, duplicate: 20, reorder: 20, ..Weather::default() };
    check(Weather { delay: Duration::from_millis(2), ..all })
}

#[test]
fn a9_forged_segments_with_wrong_checksums() -> Result<()> {
    check(Weather { seed: 12, mask: true, ..Weather::default() })
}

#[test]
fn a9_forged_segments() -> Result<()> {
    check(Weather { seed: 7, forge: true, ..Weather::default() })
}
