//! Traces join what the request's headers name: real curl to real nginx, in every format that Weir reads (D5).

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::call::{Call, Kind};
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::program;
use weir_tests::process;

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
const SPAN: &str = "e457b5a2e4d86bd1";

/// Sends these headers; the two calls that were seen of it, the client's first.
fn asked(agent: &Agent, nginx: &Nginx, headers: &[String], before: usize) -> Result<(Call, Call)> {
    let mut curl = Command::new(program("curl")?);
    for header in headers {
        curl.args(["-H", header]);
    }
    let url = nginx.url("/s/200");
    process::run(curl.args(["-sf", "-o", "/dev/null", &url]), Duration::from_secs(10))?;
    // A process each, so a connection each: the calls that are on no connection seen before are this request's.
    let mut calls = agent.calls(&[nginx.port()], before + 2)?;
    calls.sort_by(|one, other| one.start.cmp(&other.start));
    let (mut client, mut server) = (None, None);
    for call in calls.split_off(before) {
        match call.kind {
            Kind::Client => client = Some(call),
            Kind::Server => server = Some(call),
        }
    }
    Ok((client.context("no client call")?, server.context("no server call")?))
}

/// Requests with an ignored trace header, by each end that saw one.
fn ignored(agent: &Agent) -> Result<u64> {
    let stats = agent.json(&["stats"])?;
    let rows = stats["events"].as_array().context("no events")?;
    let row = rows.iter().find(|row| row["reason"] == "malformed_trace_context").context("no such event")?;
    row["count"].as_u64().context("no count")
}

#[test]
fn each_format_is_joined() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    let b3 = [format!("X-B3-TraceId: {TRACE}"), format!("X-B3-SpanId: {SPAN}"), "X-B3-Sampled: 1".to_owned()];
    let amazon = format!("X-Amzn-Trace-Id: Root=1-{}-{};Parent={SPAN};Sampled=1", &TRACE[..8], &TRACE[8..]);
    let other = "b3: 00000000000000aa00000000000000aa-00000000000000aa-1".to_owned();
    let rows: [&[String]; 6] = [
        &[format!("traceparent: 00-{TRACE}-{SPAN}-01")],
        &[format!("b3: {TRACE}-{SPAN}-1-05e3ac9a4f6e3b90")],
        &b3,
        std::slice::from_ref(&amazon),
        // Precedence.
        &[other, format!("traceparent: 00-{TRACE}-{SPAN}-01")],
        &[amazon.replace(SPAN, "00000000000000bb"), format!("b3: {TRACE}-{SPAN}")],
    ];
    for (at, headers) in rows.into_iter().enumerate() {
        let (client, server) = asked(&agent, &nginx, headers, 2 * at)?;
        ensure!(client.trace_id == TRACE && server.trace_id == TRACE, "{headers:?}: {client:?} {server:?}");
        ensure!(client.parent_span_id.as_deref() == Some(SPAN), "{headers:?}: {client:?}");
        ensure!(server.parent_span_id.as_ref() == Some(&client.span_id), "{headers:?}: {server:?}");
    }
    ensure!(ignored(&agent)? == 0, "{} were ignored", ignored(&agent)?);
    agent.finish()
}

#[test]
fn what_is_malformed_repeated_or_cut_joins_nothing_and_is_counted() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    let good = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let rows: [&[String]; 7] = [
        &[good.clone(), good.clone()],
        &[good.to_uppercase()],
        &[format!("b3: {TRACE}-{}", "0".repeat(16))],
        &[format!("X-B3-TraceId: {TRACE}")],
        &[format!("X-Amzn-Trace-Id: Root=1-{TRACE};Parent={SPAN}")],
        &[format!("{good}-{}", "a".repeat(300))],
        &[format!("b3: {TRACE}-{SPAN}-1-{}", "b".repeat(100))],
    ];
    let mut traces = std::collections::BTreeSet::new();
    for (at, headers) in rows.iter().enumerate() {
        let (client, server) = asked(&agent, &nginx, headers, 2 * at)?;
        // The call has a trace of its own, and its two ends still join.
        ensure!(client.trace_id != TRACE && client.trace_id == server.trace_id, "{headers:?}: {client:?} {server:?}");
        ensure!(client.parent_span_id.is_none(), "{headers:?}: {client:?}");
        ensure!(server.parent_span_id.as_ref() == Some(&client.span_id), "{headers:?}: {server:?}");
        traces.insert(client.trace_id);
    }
    ensure!(traces.len() == rows.len(), "{traces:?}");
    // Each request was seen at both ends.
    ensure!(ignored(&agent)? == 2 * rows.len() as u64, "{} were ignored", ignored(&agent)?);
    agent.finish()
}
