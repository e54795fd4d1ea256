//! Chains inside processes (D6): applications write down which of their calls caused which; every parent that is told must
//! be the true one, and how many are told is printed and has a floor by runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::call::{Call, Kind};
use weir_tests::cgroup::Cgroup;
use weir_tests::peers::chain::{Chain, Leaf, Middle, drive};
use weir_tests::wait;

/// What the driver asks for: chains, of so many calls each, so many at a time, with these headers.
#[derive(Clone, Copy, Debug)]
struct Load {
    count: usize,
    fan: usize,
    at_once: usize,
    headers: &'static str,
}

/// How many parents were told, of how many that there are; calls of timers, which have none.
#[derive(Debug)]
struct Told {
    right: usize,
    all: usize,
    timers: usize,
}

fn path(call: &Call) -> &str {
    call.attributes.path.as_deref().unwrap_or_default()
}

/// Calls by path, of one end of those to one port.
fn by_path<'a>(calls: &'a [Call], kind: Kind, port: u16, prefix: &str) -> Result<BTreeMap<&'a str, &'a Call>> {
    let mut found = BTreeMap::new();
    for call in calls.iter().filter(|call| call.kind == kind && call.server().port() == port) {
        if path(call).starts_with(prefix) {
            ensure!(found.insert(path(call), call).is_none(), "twice: {call:?}");
        }
    }
    Ok(found)
}

/// Runs the load through one application and compares each of its calls' parents with the truth. Errors on a parent that
/// is not the true one, and on ends of a call or of a chain that are not in the same trace.
fn run(agent: &Agent, middle: Middle, load: Load) -> Result<Told> {
    let leaf = Leaf::start()?;
    let chain = Chain::start(middle, &leaf.url())?;
    through(agent, middle, &leaf, chain, load)
}

/// The same, through one that runs.
fn through(agent: &Agent, middle: Middle, leaf: &Leaf, chain: Chain, load: Load) -> Result<Told> {
    drive(&chain.url(), load.count, load.at_once, load.fan, load.headers)
        .with_context(|| format!("{middle:?}: {}", chain.output().unwrap_or_default()))?;
    let all = load.count * load.fan;
    let log = wait::until(Duration::from_secs(30), "what was left for later", || {
        let log = chain.logged()?;
        let caused = |line: &&String| !line.starts_with("bg ") && !line.starts_with("span ");
        Ok(Some(log.iter().filter(caused).cloned().collect::<BTreeSet<_>>()).filter(|caused| caused.len() == all))
    })?;
    let ports = [leaf.port(), chain.port()];
    // Ends the timer too.
    drop(chain);
    let asked = ports[1];
    let calls = wait::until(Duration::from_secs(40), "every call", || {
        let calls = agent.calls_now(&ports)?;
        let of = |kind, port, prefix| {
            calls
                .iter()
                .filter(|call| call.kind == kind && call.server().port() == port && path(call).starts_with(prefix))
                .count()
        };
        let there = of(Kind::Server, asked, "/in/") == load.count
            && of(Kind::Client, leaf.port(), "/out/") == all
            && of(Kind::Server, leaf.port(), "/out/") == all;
        Ok(there.then_some(calls))
    })?;
    let incoming = by_path(&calls, Kind::Server, asked, "/in/")?;
    let outgoing = by_path(&calls, Kind::Client, leaf.port(), "/out/")?;
    let answered = by_path(&calls, Kind::Server, leaf.port(), "/")?;
    let mut right = 0;
    for (path, call) in &outgoing {
        let mut words = path.split('/').skip(2);
        let (who, k) = (words.next().context("no id")?, words.next().context("no number")?);
        ensure!(log.contains(&format!("{who} {k}")), "{middle:?} did not call {path}");
        let cause = incoming.get(format!("/in/{who}/{}", load.fan).as_str()).context("no cause")?;
        if let Some(parent) = &call.parent_span_id {
            ensure!(
                *parent == cause.span_id,
                "{middle:?} {load:?}: {call:?}\nis no child of {parent} but of {cause:?}"
            );
            ensure!(
                call.trace_id == cause.trace_id,
                "{middle:?} {load:?}: {call:?}\nis in another trace than {cause:?}"
            );
            right += 1;
        }
        let other = answered.get(path).context("no other end")?;
        ensure!(other.parent_span_id.as_ref() == Some(&call.span_id), "{middle:?}: {other:?} of {call:?}");
        ensure!(other.trace_id == call.trace_id, "{middle:?} {load:?}: two ends, two traces: {call:?}\n{other:?}");
    }
    let timers = by_path(&calls, Kind::Client, leaf.port(), "/bg/")?;
    for call in timers.values() {
        ensure!(call.parent_span_id.is_none(), "{middle:?} {load:?}: a timer's call has a parent: {call:?}");
    }
    println!(
        "{middle:?}, {} header, {} at a time, {} calls each: precision 1.000, recall {:.3} ({right} of {all}), {} calls of timers",
        load.headers,
        load.at_once,
        load.fan,
        right as f64 / all as f64,
        timers.len()
    );
    Ok(Told { right, all, timers: timers.len() })
}

/// Calls by proof and reason.
fn counted(agent: &Agent) -> Result<BTreeMap<String, u64>> {
    let stats = agent.json(&["stats"])?;
    let rows = stats["chains"].as_array().context("no chains")?.iter().map(|row| {
        let text = |key: &str| row[key].as_str().context("no text").map(str::to_owned);
        let name = if row["reason"] == "" { text("stage")? } else { text("reason")? };
        Ok((name, row["count"].as_u64().context("no count")?))
    });
    Ok(rows.collect::<Result<BTreeMap<_, _>>>()?.into_iter().filter(|(_, count)| *count > 0).collect())
}

fn start(group: &Cgroup) -> Result<Agent> {
    Agent::start(&["privacy.level=standard", &format!("kernel.cgroup={}", group.path().display())])
}

/// Runs every load; the floor is a share of the parents that there are.
fn runs(middle: Middle, loads: &[(Load, f64)]) -> Result<BTreeMap<String, u64>> {
    let group = Cgroup::new("chains")?;
    group.inside(|| within(&group, middle, loads))
}

/// The same, watched by an agent that sees nothing else of the machine.
fn within(group: &Cgroup, middle: Middle, loads: &[(Load, f64)]) -> Result<BTreeMap<String, u64>> {
    let agent = start(group)?;
    for (load, floor) in loads {
        let told = run(&agent, middle, *load)?;
        let recall = told.right as f64 / told.all as f64;
        ensure!(recall >= *floor, "{middle:?} {load:?}: {told:?} is less than {floor}; {:?}", counted(&agent)?);
        if *floor == 0.0 {
            ensure!(told.right == 0, "{middle:?} {load:?}: {told:?}, of which nothing is proven");
        }
        ensure!(told.timers > 0, "{middle:?}: no timer's call");
    }
    let counted = counted(&agent)?;
    println!("{middle:?}: {counted:?}");
    agent.finish()?;
    Ok(counted)
}

const fn load(headers: &'static str, at_once: usize, fan: usize) -> Load {
    Load { count: 200, fan, at_once, headers }
}

/// With headers that are passed on, each kind of them.
const CARRIED: [(Load, f64); 6] = [
    (load("traceparent", 32, 1), 1.0),
    (load("traceparent", 100, 3), 1.0),
    (load("b3", 8, 1), 1.0),
    (load("b3-multi", 8, 1), 1.0),
    (load("amazon", 8, 1), 1.0),
    (load("request-id", 32, 3), 1.0),
];

/// Calls without any header by [`all`].
const BARE: u64 = 200 * 3 + 200 * 2;

/// Without any header, with this floor, and with headers that are passed on.
fn all(middle: Middle, at_once: usize, floor: f64) -> Result<BTreeMap<String, u64>> {
    let bare = [(load("none", at_once, 3), floor), (load("none", 1, 2), floor)];
    let carried = [(load("traceparent", 100, 3), 1.0), (load("request-id", 32, 1), 1.0)];
    runs(middle, &[bare, carried].concat())
}

#[test]
fn a_thread_for_each_connection() -> Result<()> {
    let counted = all(Middle::PythonThreads, 16, 1.0)?;
    runs(Middle::PythonThreads, &CARRIED)?;
    ensure!(counted["thread"] == BARE && counted["idle_thread"] > 0, "{counted:?}");
    Ok(())
}

#[test]
fn synchronous_workers() -> Result<()> {
    let counted = all(Middle::Flask, 8, 1.0)?;
    ensure!(counted["thread"] == BARE, "{counted:?}");
    Ok(())
}

#[test]
fn java_threads_that_read_and_call() -> Result<()> {
    // The server's dispatcher may still wait for a connection that one of its threads reads.
    all(Middle::Java, 16, 0.01).map(drop)
}

#[test]
fn calls_that_other_threads_make() -> Result<()> {
    let counted = all(Middle::PythonPool, 16, 0.0)?;
    ensure!(counted["idle_thread"] >= BARE && !counted.contains_key("thread"), "{counted:?}");
    let counted = all(Middle::JavaPool, 16, 0.0)?;
    ensure!(counted["idle_thread"] >= BARE && !counted.contains_key("thread"), "{counted:?}");
    Ok(())
}

#[test]
fn calls_that_a_thread_makes_later_for_many() -> Result<()> {
    let bare = [(load("none", 16, 1), 0.0), (load("none", 1, 3), 0.0)];
    // The ids are a request's own for a second after its answer.
    let counted = runs(Middle::PythonBatch, &[bare.as_slice(), &[(load("traceparent", 1, 1), 0.1)]].concat())?;
    ensure!(!counted.contains_key("thread"), "{counted:?}");
    Ok(())
}

#[test]
fn event_loops_of_asyncio() -> Result<()> {
    let counted = all(Middle::Aiohttp, 100, 0.0)?;
    ensure!(counted["event_loop"] >= BARE && !counted.contains_key("thread"), "{counted:?}");
    Ok(())
}

#[test]
fn event_loops_that_wait_with_poll() -> Result<()> {
    let counted = all(Middle::AiohttpPoll, 100, 0.0)?;
    ensure!(!counted.contains_key("thread") && counted["nonblocking_socket"] > 0, "{counted:?}");
    Ok(())
}

#[test]
fn threads_of_gevent() -> Result<()> {
    let counted = all(Middle::Gevent, 32, 0.0)?;
    ensure!(!counted.contains_key("thread"), "{counted:?}");
    Ok(())
}

#[test]
fn event_loops_of_node() -> Result<()> {
    let counted = all(Middle::Node, 100, 0.0)?;
    ensure!(counted["event_loop"] >= BARE && !counted.contains_key("thread"), "{counted:?}");
    Ok(())
}

#[test]
fn goroutines_that_answer_and_call() -> Result<()> {
    for middle in [Middle::Go, Middle::GoStripped, Middle::GoAnywhere, Middle::GoDirect] {
        let counted = all(middle, 100, 0.99)?;
        ensure!(counted["goroutine"] > 0 && !counted.contains_key("thread"), "{middle:?}: {counted:?}");
    }
    Ok(())
}

#[test]
fn goroutines_that_call_for_others() -> Result<()> {
    for middle in [Middle::GoFan, Middle::GoPool, Middle::GoBatch, Middle::GoLate] {
        let counted = all(middle, 100, 0.0)?;
        let none = !counted.contains_key("thread") && !counted.contains_key("goroutine");
        ensure!(none && counted["idle_thread"] >= BARE, "{middle:?}: {counted:?}");
    }
    Ok(())
}

#[test]
fn goroutines_older_than_the_agent() -> Result<()> {
    let group = Cgroup::new("chains")?;
    group.inside(|| {
        let leaf = Leaf::start()?;
        let chain = Chain::start(Middle::GoStripped, &leaf.url())?;
        let load = load("none", 32, 3);
        drive(&chain.url(), 8, 8, 3, "none")?;
        let agent = start(&group)?;
        wait::until(Duration::from_secs(10), "the Go program", || {
            let report = agent.json(&["doctor"])?;
            let rows = report["rows"].as_array().context("no rows")?;
            let row = rows.iter().find(|row| row["subject"] == "Go programs");
            let told = row.and_then(|row| row["detail"].as_str());
            Ok(told.filter(|told| !told.starts_with("0 ")).map(drop))
        })?;
        let told = through(&agent, Middle::GoStripped, &leaf, chain, load)?;
        ensure!(told.right as f64 >= told.all as f64 * 0.99, "{told:?}: {:?}", counted(&agent)?);
        agent.finish()
    })
}

#[test]
fn ids_that_several_requests_have_prove_nothing() -> Result<()> {
    let group = Cgroup::new("chains")?;
    group.inside(|| {
        let agent = start(&group)?;
        let told = run(&agent, Middle::Aiohttp, load("same", 32, 1))?;
        let counted = counted(&agent)?;
        println!("the same header in every request: {told:?} {counted:?}");
        ensure!(counted["several_requests"] as usize + told.right == told.all, "{counted:?} {told:?}");
        agent.finish()
    })
}
