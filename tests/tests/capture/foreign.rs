//! A13: other protocols on neighbouring ports make no HTTP call.

use std::io::{Read, Write};

use anyhow::{Result, ensure};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use weir_tests::agent::Agent;
use weir_tests::peers::foreign::Foreign;
use weir_tests::peers::load::curls;
use weir_tests::peers::nginx::Nginx;
use weir_tests::wire::{Server, Wire};

#[test]
fn a13_foreign_protocols_are_no_http() -> Result<()> {
    let servers = [Foreign::redis()?, Foreign::postgres()?, Foreign::tls()?, Foreign::grpc()?, Foreign::iperf()?];
    let agent = Agent::start(&[])?;
    let [redis, postgres, tls, grpc, iperf] = &servers;
    redis.redis_load(20_000)?;
    postgres.postgres_load(400)?;
    tls.tls_load(20)?;
    grpc.grpc_load(200)?;
    iperf.iperf_load(4)?;
    let random = noise()?;
    let ports: Vec<u16> = servers.iter().map(Foreign::port).chain([random]).collect();
    let calls = agent.calls(&ports, 0)?;
    ensure!(calls.is_empty(), "{} calls: {calls:#?}", calls.len());
    agent.finish()
}

/// A raw socket gets a copy of each segment that this host receives, and is no connection.
#[test]
fn a13_raw_sockets_make_no_call() -> Result<()> {
    let nginx = Nginx::plain()?;
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::TCP))?;
    let agent = Agent::start(&[])?;
    curls(20, &nginx.url("/"))?;
    agent.calls(&[nginx.port()], 40)?;
    // What has no remote end has port 0.
    let [calls, open] = [agent.lines(&["calls", "--last", "1000"])?, agent.lines(&["connections"])?];
    let copies: Vec<_> = calls.iter().chain(&open).filter(|line| line.to_string().contains("0.0.0.0:0\"")).collect();
    ensure!(calls.len() >= 40 && copies.is_empty(), "{copies:#?}");
    drop(raw);
    agent.finish()
}

/// 4 MB of random bytes each way, like a shell session over an encrypted channel; gives the port.
fn noise() -> Result<u16> {
    let server = Server::start(|wire| Ok(std::io::copy(&mut wire.stream(), &mut wire.stream()).map(drop)?))?;
    let mut random = std::fs::File::open("/dev/urandom")?;
    let wire = Wire::connect(server.address())?;
    let (mut out, mut back) = ([0; 1000], [0; 1000]);
    for at in 0..4000 {
        let size = 1 + at % out.len();
        let (out, back) = (&mut out[..size], &mut back[..size]);
        random.read_exact(out)?;
        wire.stream().write_all(out)?;
        wire.stream().read_exact(back)?;
        ensure!(out == back, "other bytes came back");
    }
    drop(wire);
    let port = server.port();
    server.stop()?;
    Ok(port)
}
