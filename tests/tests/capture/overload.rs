//! A11: a ring that is too small, an agent that stands still: what is missing is counted, and nothing else is missing.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use rustix::process::Signal;
use weir_tests::agent::Agent;
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::truth::{Row, Sides, unique_spans};

/// After an overload, a quiet load is seen whole again.
fn recovered(agent: &Agent, nginx: &Nginx) -> Result<()> {
    let seen = agent.calls(&[nginx.port()], 0)?.len();
    // A process a request: 64 KiB hold a few milliseconds of anything quicker, and the processors may be busy.
    load::curls(200, &nginx.url("/f/1"))?;
    let late = agent.calls(&[nginx.port()], seen + 400)?;
    let late = Sides::of(late.into_iter().filter(|call| call.attributes.path.as_deref() == Some("/f/1")).collect());
    late.are(&vec![Row::new("GET", "/f/1", 200, 0, 1); 200])
}

/// What was lost has one reason in the kernel; what the agent could not tell because of it has its own.
fn named(agent: &Agent) -> Result<u64> {
    let ledger = agent.ledger()?;
    let known = BTreeSet::from(["ring_full", "unseen_head", "unannounced"].map(str::to_owned));
    let reasons: BTreeSet<String> = ledger.lost.keys().cloned().collect();
    ensure!(reasons.is_subset(&known), "{ledger:?}");
    Ok(ledger.lost.get("ring_full").copied().unwrap_or_default())
}

#[test]
fn a11_an_agent_that_stands_still_for_five_seconds() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard", "kernel.ring=64KiB"])?;
    let url = nginx.url("/s/200");
    let requests = 200_000;
    let load = thread::scope(|scope| -> Result<_> {
        let load = scope.spawn(|| load::h2load(requests, 16, &[url]));
        thread::sleep(Duration::from_millis(500));
        agent.signal(Signal::STOP)?;
        thread::sleep(Duration::from_secs(5));
        agent.signal(Signal::CONT)?;
        load.join().map_err(|_| anyhow!("the load's thread failed"))?
    })?;
    assert_eq!((load.answered, load.errors), (requests, 0));
    assert_eq!(nginx.logged(requests as usize)?.len() as u64, requests);
    recovered(&agent, &nginx)?;
    ensure!(named(&agent)? > 0, "nothing was lost in five seconds of standing still");
    let calls: Vec<_> = agent.calls(&[nginx.port()], 0)?;
    unique_spans(calls.iter())?;
    let sides = Sides::of(calls.into_iter().filter(|call| call.attributes.path.as_deref() == Some("/s/200")).collect());
    for side in [&sides.client, &sides.server] {
        let whole = side.iter().filter(|call| call.end == "complete").count() as u64;
        ensure!((1..requests).contains(&whole), "{whole} of {requests} calls");
        ensure!(side.iter().all(|call| call.attributes.status.is_none_or(|status| status == 200)));
    }
    agent.stop_lossy()
}

#[test]
fn a11_a_small_ring_under_a_quick_load() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard", "kernel.ring=64KiB"])?;
    let load = load::h2load(100_000, 64, &[nginx.url("/s/200")])?;
    assert_eq!((load.answered, load.errors), (100_000, 0));
    recovered(&agent, &nginx)?;
    let lost = named(&agent)?;
    let calls = agent.calls(&[nginx.port()], 0)?;
    let early: Vec<_> = calls.into_iter().filter(|call| call.attributes.path.as_deref() == Some("/s/200")).collect();
    // With nothing lost all is there; with something lost something is missing.
    ensure!((early.len() == 200_000) == (lost == 0), "{} calls, {lost} records lost", early.len());
    agent.stop_lossy()
}
