//! A14: one request crosses proxies: one client and one server call on each hop, linked hop by hop.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::proxy::{self, Kind, Proxy};
use weir_tests::peers::runtime::{Ask, Runtime, Serve, ask, printed, script};
use weir_tests::truth::Sides;

const ROUNDS: u64 = 30;

fn check(behind: &Runtime, front: SocketAddr, owners: &[u32]) -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let rows = script(ROUNDS);
    let (_, lines) = ask(Ask::Go, &format!("http://{front}"), ROUNDS)?;
    assert_eq!(lines, printed(&rows));
    assert_eq!(behind.logged(rows.len())?.len(), rows.len());
    let mut calls = agent.calls(&[behind.port(), front.port()], 4 * rows.len())?;
    calls.sort_by(|one, other| one.start.cmp(&other.start));
    let (outer, inner): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.server().port() == front.port());
    let (outer, inner) = (Sides::of(outer), Sides::of(inner));
    outer.are(&rows)?;
    inner.are(&rows)?;
    for call in outer.server.iter().chain(&inner.client) {
        ensure!(call.service.pid.is_some_and(|pid| owners.contains(&pid)), "not the proxy's {owners:?}: {call:?}");
    }
    let behind = behind.servers()?;
    for call in &inner.server {
        ensure!(call.service.pid.is_some_and(|pid| behind.contains(&pid)), "not of {behind:?}: {call:?}");
    }
    agent.finish()
}

#[test]
fn a14_nginx_to_gunicorn() -> Result<()> {
    let behind = Runtime::start(Serve::Flask)?;
    let front = proxy::nginx(behind.address())?;
    check(&behind, front.address(), &front.workers()?)
}

#[test]
fn a14_haproxy_to_node() -> Result<()> {
    let behind = Runtime::start(Serve::Node)?;
    let front = Proxy::start(Kind::Haproxy, behind.address())?;
    check(&behind, front.address(), &[front.pid()])
}

#[test]
fn a14_envoy_to_go() -> Result<()> {
    let behind = Runtime::start(Serve::Go)?;
    let front = Proxy::start(Kind::Envoy, behind.address())?;
    check(&behind, front.address(), &[front.pid()])
}
