//! Every client and every server of the list, with its own log as truth.

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::runtime::{Ask, Runtime, Serve, ask, printed, script};
use weir_tests::truth::Sides;

const ROUNDS: u64 = 30;

/// Lets `client` ask `server`, compares both ends and the processes' ids.
fn pair(agent: &Agent, client: Ask, serve: Serve) -> Result<()> {
    let server = Runtime::start(serve)?;
    let rows = script(ROUNDS);
    let (pid, lines) = ask(client, &server.url(), ROUNDS)?;
    ensure!(lines == printed(&rows), "{client:?} did not get what it should from {serve:?}");
    let logged = server.logged(rows.len())?;
    ensure!(logged.len() == rows.len(), "{serve:?} logged {} of {}", logged.len(), rows.len());
    let mut calls = agent.calls(&[server.port()], 2 * rows.len())?;
    // A client may open another connection; its requests still come one after another.
    calls.sort_by(|one, other| one.start.cmp(&other.start));
    let sides = Sides::of(calls);
    sides.are(&rows)?;
    let servers = server.servers()?;
    for call in &sides.server {
        ensure!(call.service.pid.is_some_and(|pid| servers.contains(&pid)), "not of {servers:?}: {call:?}");
    }
    for call in &sides.client {
        ensure!(call.service.pid == Some(pid), "not of {pid}: {call:?}");
    }
    Ok(())
}

/// All pairs in turn; fails with every pair that failed.
fn pairs(pairs: impl Iterator<Item = (Ask, Serve)>) -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let failed = pairs.filter_map(|(client, serve)| {
        pair(&agent, client, serve).err().map(|error| format!("{client:?} to {serve:?}: {error:#}"))
    });
    let failed: Vec<String> = failed.collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    agent.finish()
}

#[test]
fn every_client_against_go() -> Result<()> {
    pairs(Ask::ALL.into_iter().map(|client| (client, Serve::Go)))
}

#[test]
fn every_server_asked_by_requests() -> Result<()> {
    pairs(Serve::ALL.into_iter().map(|serve| (Ask::Requests, serve)))
}

#[test]
fn every_server_asked_by_its_own_kind() -> Result<()> {
    let own = [
        (Ask::Aiohttp, Serve::Aiohttp),
        (Ask::Node, Serve::Node),
        (Ask::Undici, Serve::FastApi),
        (Ask::Java, Serve::Java),
    ];
    pairs(own.into_iter())
}
