//! What Weir and the backends behind it show of the shop, against what its programs wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::truth::{Counts, Pair, Truth, external};
use super::{A, B, PLACES, STREET, customers_span, place, trace_of};
use crate::agent::Agent;
use crate::backends::{Backends, OTLP, PAGES};
use crate::collector::Span;
use crate::wait;

/// Until what was ordered must be shown everywhere.
const SHOW: Duration = Duration::from_secs(30);
/// When everything is looked at again: longer than what agents, Collector and Prometheus take to hand a change on.
const QUIET: Duration = Duration::from_secs(3);

/// An edge as an agent tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    protocol: String,
    port: u16,
    counts: Counts,
    failed: u64,
}

/// Waits until `found` gives what is `expected`.
fn becomes<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: impl Fn() -> Result<T>) -> Result<()> {
    let mut last = None;
    let reached = wait::until(SHOW, what, || {
        let now = found()?;
        let same = now == *expected;
        last = Some(now);
        Ok(same.then_some(()))
    });
    reached.with_context(|| format!("{what}:\nfound    {last:#?}\nexpected {expected:#?}"))?;
    Ok(())
}

/// Everything that is checked, each with a line on what was found; looked at once more after a while, since what comes late
/// or twice would come then.
#[must_use]
pub fn all(agents: [&Agent; 2], backends: &Backends, truth: &Truth) -> Vec<(&'static str, Result<String>)> {
    let first = once(agents, backends, truth);
    if first.iter().any(|(_, found)| found.is_err()) {
        return first;
    }
    std::thread::sleep(QUIET);
    once(agents, backends, truth)
}

fn once(agents: [&Agent; 2], backends: &Backends, truth: &Truth) -> Vec<(&'static str, Result<String>)> {
    vec![
        ("graph", graph(agents, truth)),
        ("both hosts count alike", alike(agents, truth)),
        ("spans", spans(backends, truth)),
        ("parents", parents(backends, truth)),
        ("Jaeger's traces", traces(backends, truth)),
        ("Jaeger's dependencies", dependencies(backends, truth)),
        ("Prometheus, off the agents' pages", service_graph(backends, PAGES, truth)),
        ("Prometheus, by OTLP", service_graph(backends, OTLP, truth)),
        ("ledger", ledger(agents)),
    ]
}

/// Edges of both agents' graphs: those told elsewhere, or the others.
fn edges(agents: [&Agent; 2], elsewhere: bool) -> Result<BTreeMap<Pair, Vec<Edge>>> {
    let mut all: BTreeMap<Pair, Vec<Edge>> = BTreeMap::new();
    for agent in agents {
        let graph = agent.json(&["graph"])?;
        ensure!(graph.get("other").is_none() && graph["unpaired"] == 0, "{graph}");
        for row in graph["edges"].as_array().context("no edges")? {
            if row["elsewhere"] != elsewhere {
                continue;
            }
            let name = |end: &str| row[end]["service.name"].as_str().unwrap_or_default().to_owned();
            let number = |key: &str| row[key].as_u64().with_context(|| format!("no {key} in {row}"));
            let counts =
                Counts { calls: number("calls")?, errors: number("errors")?, connections: number("connections")? };
            let edge = Edge {
                protocol: row["protocol"].as_str().unwrap_or_default().to_owned(),
                port: u16::try_from(number("server_port")?)?,
                counts,
                failed: number("failed_connections")? + number("aborted")?,
            };
            all.entry((name("client"), name("server"))).or_default().push(edge);
        }
    }
    Ok(all)
}

fn expected(truth: &Truth, keep: impl Fn(&Pair) -> Result<Option<Pair>>) -> Result<BTreeMap<Pair, Vec<Edge>>> {
    let mut all = BTreeMap::new();
    for (pair, counts) in &truth.edges {
        let Some(shown) = keep(pair)? else { continue };
        let protocol = if counts.calls > 0 { "http" } else { "tcp" }.to_owned();
        let port = place(&pair.1)?.port;
        all.insert(shown, vec![Edge { protocol, port, counts: *counts, failed: 0 }]);
    }
    Ok(all)
}

/// Both agents' graphs put together, without the edges that the other one tells, are the truth: each edge once, each call
/// once, and no node beside.
fn graph(agents: [&Agent; 2], truth: &Truth) -> Result<String> {
    let expected = expected(truth, |pair| Ok(Some(pair.clone())))?;
    becomes("the graph", &expected, || edges(agents, false))?;
    let mut nodes = BTreeSet::new();
    for agent in agents {
        for node in agent.json(&["graph"])?["nodes"].as_array().context("no nodes")? {
            nodes.insert(node["service.name"].as_str().unwrap_or_default().to_owned());
        }
    }
    // Each host knows the other one's clients by address.
    nodes.retain(|name| *name != external(A) && *name != external(B));
    let all = PLACES.iter().map(|place| place.name.to_owned()).chain([external(STREET)]).collect();
    ensure!(nodes == all, "nodes {nodes:?}, not {all:?}");
    Ok(format!("{} nodes, {} edges, every count exact", nodes.len(), expected.len()))
}

/// What crosses between the hosts is counted by the server's agent too, and comes to the same.
fn alike(agents: [&Agent; 2], truth: &Truth) -> Result<String> {
    let crossing = |pair: &Pair| -> Result<Option<Pair>> {
        let Ok(from) = place(&pair.0) else { return Ok(None) };
        let to = place(&pair.1)?;
        let address = external(if from.host == 0 { A } else { B });
        Ok((from.host != to.host).then(|| (address, pair.1.clone())))
    };
    let expected = expected(truth, crossing)?;
    becomes("edges that both hosts see", &expected, || edges(agents, true))?;
    Ok(format!("{} edges", expected.len()))
}

/// A span as it is compared: order's trace, service, kind.
fn keyed(span: &Span) -> (String, String, u8) {
    let service = span.resource.get("service.name").and_then(Value::as_str).unwrap_or_default();
    (span.span.trace_id.clone(), service.to_owned(), span.span.kind)
}

const SERVER: u8 = 2;
const CLIENT: u8 = 3;

/// A client's and a server's span for each call, all of an order in its customer's trace, and no other span.
fn spans(backends: &Backends, truth: &Truth) -> Result<String> {
    let mut expected: BTreeMap<_, u64> = BTreeMap::new();
    for ((order, caller), called) in &truth.called {
        *expected.entry((trace_of(*order), caller.clone(), CLIENT)).or_default() += 1;
        *expected.entry((trace_of(*order), called.clone(), SERVER)).or_default() += 1;
    }
    for order in truth.orders() {
        *expected.entry((trace_of(order), "nginx".to_owned(), SERVER)).or_default() += 1;
    }
    let total: u64 = expected.values().sum();
    let found = || -> Result<BTreeMap<_, u64>> {
        let mut found: BTreeMap<_, u64> = BTreeMap::new();
        for span in backends.collector.spans()? {
            *found.entry(keyed(&span)).or_default() += 1;
        }
        Ok(found)
    };
    let count = |spans: &BTreeMap<_, u64>| spans.values().sum::<u64>();
    let reached = wait::until(SHOW, "the spans", || Ok((count(&found()?) >= total).then_some(())));
    let found = found()?;
    let lacking: Vec<_> = expected.iter().filter(|(key, n)| found.get(key) != Some(n)).take(5).collect();
    let beside: Vec<_> = found.iter().filter(|(key, n)| expected.get(key) != Some(n)).take(5).collect();
    ensure!(found == expected, "{} spans, not {total}; lacking {lacking:?}, beside {beside:?}", count(&found));
    reached?;
    Ok(format!("{total} spans, one trace for each of {} orders", truth.orders().len()))
}

/// Every span's parent is the one that the logs tell: a server's the client that asked it; a client's the call that its
/// service was answering; the first one's its customer's.
fn parents(backends: &Backends, truth: &Truth) -> Result<String> {
    let spans = backends.collector.spans()?;
    let by_key: BTreeMap<_, &Span> = spans.iter().map(|span| (keyed(span), span)).collect();
    let id = |trace: &str, service: &str, kind: u8| {
        let span = by_key.get(&(trace.to_owned(), service.to_owned(), kind));
        span.map(|span| span.span.span_id.clone()).with_context(|| format!("no span {kind} of {service} in {trace}"))
    };
    let callers: BTreeMap<(u64, &str), &str> =
        truth.called.iter().map(|((order, caller), called)| ((*order, called.as_str()), caller.as_str())).collect();
    for order in truth.orders() {
        let trace = trace_of(order);
        for (key, span) in by_key.range((trace.clone(), String::new(), 0)..).take_while(|(key, _)| key.0 == trace) {
            let (_, service, kind) = key;
            let caller = callers.get(&(order, service.as_str()));
            let parent = match (*kind, caller) {
                (SERVER, Some(caller)) => id(&trace, caller, CLIENT)?,
                (CLIENT, _) => id(&trace, service, SERVER)?,
                _ => customers_span(order),
            };
            let is = &span.span.parent_span_id;
            ensure!(*is == parent, "the parent of {service}'s span {kind} in {trace} is {is}, not {parent}");
        }
    }
    Ok(format!("{} parents, between services and inside each", spans.len()))
}

fn traces(backends: &Backends, truth: &Truth) -> Result<String> {
    let orders = truth.orders();
    let first_and_last: Vec<u64> = orders.first().into_iter().chain(orders.last()).copied().collect();
    for order in &first_and_last {
        let calls = truth.called.keys().filter(|(of, _)| of == order).count();
        becomes("the spans of a trace", &(2 * calls + 1), || backends.spans_of(&trace_of(*order)))?;
    }
    Ok(format!("{} looked at, whole", first_and_last.len()))
}

fn dependencies(backends: &Backends, truth: &Truth) -> Result<String> {
    let mut expected = truth.inner_calls();
    expected.retain(|_, calls| *calls > 0);
    becomes("Jaeger's dependencies", &expected, || backends.dependencies())?;
    Ok(format!("equal to the graph's {} edges between services", expected.len()))
}

/// Service-graph metrics of both agents, put together by Prometheus as a panel does.
fn service_graph(backends: &Backends, job: &str, truth: &Truth) -> Result<String> {
    let calls = truth.calls();
    let errors: BTreeMap<Pair, u64> = truth
        .edges
        .iter()
        .filter(|(_, counts)| counts.calls > 0)
        .map(|(pair, counts)| (pair.clone(), counts.errors))
        .collect();
    for (family, expected) in
        [("traces_service_graph_request_total", &calls), ("traces_service_graph_request_failed_total", &errors)]
    {
        becomes(family, expected, || backends.service_graph(family, job))?;
    }
    // A duration by each end that an agent saw with both names: the customers' is not, nor is a server's on another host.
    let told = |by_client: bool| -> Result<BTreeMap<Pair, u64>> {
        let mut told = calls.clone();
        let mut here = BTreeSet::new();
        for pair in calls.keys() {
            let from = place(&pair.0).ok();
            let same = from.is_none_or(|from| place(&pair.1).is_ok_and(|to| to.host == from.host));
            if if by_client { from.is_some() } else { same } {
                here.insert(pair.clone());
            }
        }
        told.retain(|pair, _| here.contains(pair));
        Ok(told)
    };
    for (family, by_client) in [("client", true), ("server", false)] {
        let family = format!("traces_service_graph_request_{family}_seconds_count");
        becomes(&family, &told(by_client)?, || backends.service_graph(&family, job))?;
    }
    Ok(format!("{} pairs, each call once", calls.len()))
}

fn ledger(agents: [&Agent; 2]) -> Result<String> {
    for agent in agents {
        let ledger = agent.ledger()?;
        ensure!(ledger.lost() == 0, "lost: {:?}", ledger.lost);
        agent.no_errors()?;
    }
    Ok("balanced on both hosts, nothing lost".to_owned())
}
