//! What the rows share.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::wait;

/// Calls and clients by client, server and port.
pub(crate) type Edge = (String, String, u16, u64);

/// `client.address` of the calls that the server at this port answered, in order, once there are `count`; `-`: none.
pub(crate) fn clients(agent: &Agent, port: u16, count: usize) -> Result<Vec<String>> {
    let tail = format!(":{port}");
    let mut last = Vec::new();
    let reached = wait::until(Duration::from_secs(15), &format!("{count} calls to port {port}"), || {
        let mut calls = agent.lines(&["calls", "--last", "10000"])?;
        let here = |call: &Value| call["connection"]["local"].as_str().is_some_and(|local| local.ends_with(&tail));
        calls.retain(|call| call["kind"] == "server" && here(call));
        calls.sort_by_key(|call| call["start"].as_str().map(str::to_owned));
        let told = calls.iter().map(|call| call["attributes"]["client.address"].as_str().unwrap_or("-").to_owned());
        last = told.collect::<Vec<_>>();
        Ok((last.len() >= count).then_some(()))
    });
    reached.with_context(|| format!("found {last:?}"))?;
    Ok(last)
}

/// How often an event was counted.
pub(crate) fn counted(agent: &Agent, reason: &str) -> Result<u64> {
    let stats = agent.json(&["stats"])?;
    let rows = stats["events"].as_array().context("no events")?;
    rows.iter().find(|row| row["reason"] == reason).and_then(|row| row["count"].as_u64()).context("no such row")
}

fn edges(agent: &Agent, ports: &[u16]) -> Result<Vec<Edge>> {
    let graph = agent.json(&["graph"])?;
    let mut found = Vec::new();
    for row in graph["edges"].as_array().context("no edges")? {
        let name = |end: &str| row[end]["service.name"].as_str().map(str::to_owned).context("no name");
        let port = row["server_port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("no port")?;
        if ports.contains(&port) {
            found.push((name("client")?, name("server")?, port, row["calls"].as_u64().context("no calls")?));
        }
    }
    found.sort();
    Ok(found)
}

/// By what names the calls of the edge to `port` came, with how many each.
pub(crate) fn via(agent: &Agent, port: u16) -> Result<Vec<(String, u64)>> {
    let graph = agent.json(&["graph"])?;
    let edges = graph["edges"].as_array().context("no edges")?;
    let edge = edges.iter().find(|edge| edge["server_port"] == port).context("no edge")?;
    let Some(rows) = edge["via"].as_array() else { return Ok(Vec::new()) };
    let row = |row: &Value| Some((row["service.name"].as_str()?.to_owned(), row["calls"].as_u64()?));
    rows.iter().map(|it| row(it).with_context(|| it.to_string())).collect()
}

/// The graph has exactly these edges to `ports`.
pub(crate) fn are(agent: &Agent, ports: &[u16], expected: &[(&str, &str, u16, u64)]) -> Result<()> {
    let mut expected: Vec<Edge> =
        expected.iter().map(|(from, to, port, calls)| ((*from).to_owned(), (*to).to_owned(), *port, *calls)).collect();
    expected.sort();
    let mut found = Vec::new();
    wait::until(Duration::from_secs(15), "the edges", || {
        found = edges(agent, ports)?;
        Ok((found == expected).then_some(()))
    })
    .with_context(|| format!("found    {found:#?}\nexpected {expected:#?}"))?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(edges(agent, ports)? == expected, "{:#?}", edges(agent, ports)?);
    Ok(())
}
