//! A1, A2: every call of a load, one by one, against the server's own log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::call::Call;
use weir_tests::peers::apache::{Apache, Mpm};
use weir_tests::peers::load;
use weir_tests::peers::nginx::{Access, Nginx, STATUSES};
use weir_tests::truth::{Sides, same, unique_spans};

/// Calls of one side in the terms of an access log; sizes as Weir knows them.
fn accesses(calls: &[Call]) -> Result<Vec<Access>> {
    let mut serials: BTreeMap<u64, u32> = BTreeMap::new();
    let one = |call: &Call| {
        let nth = serials.entry(call.connection.cookie).or_default();
        *nth += 1;
        ensure!(call.end == "complete", "not complete: {call:?}");
        Ok(Access {
            port: call.client().port(),
            nth: *nth,
            method: call.method().to_owned(),
            status: call.attributes.status.with_context(|| format!("no status: {call:?}"))?,
            sent: call.attributes.response_body.with_context(|| format!("no size: {call:?}"))?,
            target: call.attributes.path.clone().unwrap_or_default(),
        })
    };
    let mut lines = calls.iter().map(one).collect::<Result<Vec<_>>>()?;
    lines.sort();
    Ok(lines)
}

fn sorted(mut log: Vec<Access>) -> Vec<Access> {
    log.sort();
    log
}

/// Every call's process is one of `pids` and named `name`.
fn owned(calls: &[Call], pids: &[u32], name: &str) -> Result<()> {
    for call in calls {
        let service = &call.service;
        ensure!(service.pid.is_some_and(|pid| pids.contains(&pid)), "not a process of {name} {pids:?}: {call:?}");
        ensure!(service.name.as_deref() == Some(name), "not named {name}: {call:?}");
    }
    Ok(())
}

#[test]
fn a1_h2load_100_000_over_64_connections() -> Result<()> {
    const REQUESTS: usize = 100_000;
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let urls: Vec<String> = STATUSES.iter().map(|status| nginx.url(&format!("/s/{status}"))).collect();
    let load = load::h2load(REQUESTS as u64, 64, &urls)?;
    assert_eq!((load.answered, load.errors), (REQUESTS as u64, 0));
    let log = sorted(nginx.logged(REQUESTS)?);
    let sides = Sides::of(agent.calls(&[nginx.port()], 2 * REQUESTS)?);
    same("the server's end", &accesses(&sides.server)?, &log)?;
    same("the client's end", &accesses(&sides.client)?, &log)?;
    sides.linked()?;
    owned(&sides.server, &nginx.workers()?, "nginx")?;
    owned(&sides.client, &[load.pid], "h2load")?;
    agent.finish()
}

#[test]
fn a1_wrk_until_it_stops() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let load = load::wrk(Duration::from_secs(3), 64, nginx.address(), &["/s/200", "/s/404", "/s/503"])?;
    assert_eq!(load.errors, 0);
    let log = nginx.logged(load.answered as usize)?;
    let sides = Sides::of(agent.calls(&[nginx.port()], 2 * log.len())?);
    unique_spans(sides.client.iter().chain(&sides.server))?;
    // wrk stops with a request in flight on each connection. Such a request may have been answered or not, logged or
    // not: all others are whole, and each one is in the log.
    let log: BTreeSet<Access> = log.into_iter().collect();
    for side in [&sides.client, &sides.server] {
        let mut cut = 0;
        let whole: Vec<Call> = side.iter().filter(|call| call.end == "complete").cloned().collect();
        cut += side.len() - whole.len();
        assert!(cut <= 64, "{cut} calls were cut on 64 connections");
        let whole: BTreeSet<Access> = accesses(&whole)?.into_iter().collect();
        let unlogged = whole.difference(&log).count();
        let unseen = log.difference(&whole).count();
        assert_eq!((unlogged, unseen.saturating_sub(cut)), (0, 0), "{cut} cut");
    }
    owned(&sides.server, &nginx.workers()?, "nginx")?;
    owned(&sides.client, &[load.pid], "wrk")?;
    agent.finish()
}

#[test]
fn a2_ab_20_000_connections() -> Result<()> {
    const REQUESTS: usize = 20_000;
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let load = load::ab(REQUESTS as u64, 32, false, &nginx.url("/f/100"))?;
    assert_eq!((load.answered, load.errors), (REQUESTS as u64, 0));
    let log = sorted(nginx.logged(REQUESTS)?);
    let sides = Sides::of(agent.calls(&[nginx.port()], 2 * REQUESTS)?);
    same("the server's end", &accesses(&sides.server)?, &log)?;
    same("the client's end", &accesses(&sides.client)?, &log)?;
    sides.linked()?;
    let cookies: BTreeSet<u64> = sides.client.iter().map(|call| call.connection.cookie).collect();
    assert_eq!(cookies.len(), REQUESTS);
    owned(&sides.server, &nginx.workers()?, "nginx")?;
    owned(&sides.client, &[load.pid], "ab")?;
    assert_eq!(agent.connections(nginx.port())?, Vec::<serde_json::Value>::new());
    agent.finish()
}

#[test]
fn a2_a_thousand_curls_are_named_although_gone() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let url = nginx.url("/f/100?{}");
    let pids = load::curls(1000, &url)?;
    let sides = Sides::of(agent.calls(&[nginx.port()], 2000)?);
    assert_eq!((sides.client.len(), sides.server.len()), (1000, 1000));
    sides.linked()?;
    let curl = weir_tests::place::program("curl")?;
    let found: BTreeMap<u32, (Option<String>, Option<String>)> = sides
        .client
        .iter()
        .map(|call| {
            (call.service.pid.unwrap_or_default(), (call.service.name.clone(), call.service.command_line.clone()))
        })
        .collect();
    let expected = pids.iter().enumerate().map(|(serial, pid)| {
        let line = format!("{} -s -o /dev/null {}", curl.display(), url.replace("{}", &serial.to_string()));
        (*pid, (Some("curl".to_owned()), Some(line)))
    });
    let expected: BTreeMap<_, _> = expected.collect();
    same("who called", &found.into_iter().collect::<Vec<_>>(), &expected.into_iter().collect::<Vec<_>>())?;
    assert_eq!(agent.connections(nginx.port())?, Vec::<serde_json::Value>::new());
    agent.finish()
}

#[test]
fn a1_apache_prefork_and_event() -> Result<()> {
    for mpm in [Mpm::Prefork, Mpm::Event] {
        let apache = Apache::start(mpm)?;
        let agent = Agent::start(&["privacy.level=standard"])?;
        let load = load::ab(5000, 16, true, &format!("http://127.0.0.1:{}/f/4096", apache.port()))?;
        assert_eq!((load.answered, load.errors), (5000, 0));
        let mut log = apache.logged(5000)?;
        // httpd counts the requests of a connection from 0.
        for line in &mut log {
            line.nth += 1;
        }
        let log = sorted(log);
        let sides = Sides::of(agent.calls(&[apache.port()], 10_000)?);
        same("the server's end", &accesses(&sides.server)?, &log)?;
        same("the client's end", &accesses(&sides.client)?, &log)?;
        sides.linked()?;
        let workers = weir_tests::process::children(apache.pid())?;
        owned(&sides.server, &workers, "apache2")?;
        owned(&sides.client, &[load.pid], "ab")?;
        agent.finish()?;
    }
    Ok(())
}
