//! A11: a ring that is too small, an agent that stands still: what is missing is counted, and nothing else is missing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use rustix::process::Signal;
use weir_tests::agent::Agent;
use weir_tests::cgroup::Cgroup;
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::truth::{Row, Sides, unique_spans};

/// After an overload, a quiet load is seen whole again. `curls`: makes 200 requests for `/f/1`, a process each: 64 KiB
/// hold a few milliseconds of anything quicker, and the processors may be busy.
fn recovered(agent: &Agent, nginx: &Nginx, curls: impl FnOnce() -> Result<Vec<u32>>) -> Result<()> {
    let seen = agent.calls(&[nginx.port()], 0)?.len();
    curls()?;
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

/// Requests of a load, and its connections.
const REQUESTS: u64 = 100_000;
const CONNECTIONS: u32 = 16;

/// Loads one after another; the agent stands still from the first one's middle for five seconds, and the last one
/// begins after it goes on. Gives how many loads there were.
fn load_past_a_stop(agent: &Agent, url: &str) -> Result<u64> {
    let continued = AtomicBool::new(false);
    thread::scope(|scope| {
        let loads = scope.spawn(|| -> Result<u64> {
            for count in 1.. {
                let last = continued.load(Ordering::Acquire);
                let load = load::h2load(REQUESTS, CONNECTIONS, &[url.to_owned()])?;
                ensure!((load.answered, load.errors) == (REQUESTS, 0), "{load:?}");
                if last {
                    return Ok(count);
                }
            }
            Ok(0)
        });
        thread::sleep(Duration::from_millis(500));
        agent.signal(Signal::STOP)?;
        thread::sleep(Duration::from_secs(5));
        agent.signal(Signal::CONT)?;
        continued.store(true, Ordering::Release);
        loads.join().map_err(|_| anyhow!("the load's thread failed"))?
    })
}

/// What the load put on the wire, counted where it passes both ends: each request and each answer is a segment, and so
/// is the FIN of each end.
fn segments(requests: u64, connections: u64) -> u64 {
    4 * requests + 4 * connections
}

#[test]
fn a11_an_agent_that_stands_still_for_five_seconds() -> Result<()> {
    let cgroup = Cgroup::new("overload")?;
    let place = format!("kernel.cgroup={}", cgroup.path().display());
    let agent = Agent::start(&["privacy.level=standard", "kernel.ring=64KiB", &place])?;
    let nginx = cgroup.inside(Nginx::plain)?;
    let loads = cgroup.inside(|| load_past_a_stop(&agent, &nginx.url("/s/200")))?;
    let requests = loads * REQUESTS;
    assert_eq!(nginx.logged(requests as usize)?.len() as u64, requests);
    let at_once = agent.ledger()?;
    let url = nginx.url("/f/1");
    recovered(&agent, &nginx, || cgroup.inside(|| load::curls(200, &url)))?;
    let after = agent.ledger()?;
    println!("{requests} requests: {at_once:?}");
    // Nothing else runs in this cgroup: what was delivered and what was lost are the load, to the last segment.
    let lost = named(&agent)?;
    ensure!(lost > 0, "nothing was lost in five seconds of standing still");
    ensure!(at_once.lost() == lost && after.lost == at_once.lost, "{at_once:?} {after:?}");
    let sent = segments(requests, loads * u64::from(CONNECTIONS));
    ensure!(at_once.delivered + lost == sent, "{sent} segments: {at_once:?}");
    ensure!(after.delivered - at_once.delivered == segments(200, 200), "{at_once:?} {after:?}");
    let calls: Vec<_> = agent.calls(&[nginx.port()], 0)?;
    unique_spans(calls.iter())?;
    let sides = Sides::of(calls.into_iter().filter(|call| call.attributes.path.as_deref() == Some("/s/200")).collect());
    for side in [&sides.client, &sides.server] {
        let whole = side.iter().filter(|call| call.end == "complete").count() as u64;
        ensure!((1..requests).contains(&whole), "{whole} of {requests} calls");
        ensure!(side.iter().all(|call| call.attributes.status.is_none_or(|status| status == 200)));
        let odd = side.iter().find(|call| call.end != "complete" && call.lost_reason.as_deref() != Some("ring_full"));
        ensure!(odd.is_none(), "neither whole nor lost to the ring: {odd:?}");
    }
    agent.stop_lossy()
}

#[test]
fn a11_a_small_ring_under_a_quick_load() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard", "kernel.ring=64KiB"])?;
    let load = load::h2load(100_000, 64, &[nginx.url("/s/200")])?;
    assert_eq!((load.answered, load.errors), (100_000, 0));
    let url = nginx.url("/f/1");
    recovered(&agent, &nginx, || load::curls(200, &url))?;
    let lost = named(&agent)?;
    let calls = agent.calls(&[nginx.port()], 0)?;
    let early: Vec<_> = calls.into_iter().filter(|call| call.attributes.path.as_deref() == Some("/s/200")).collect();
    // With nothing lost all is there; with something lost something is missing.
    ensure!((early.len() == 200_000) == (lost == 0), "{} calls, {lost} records lost", early.len());
    agent.stop_lossy()
}
