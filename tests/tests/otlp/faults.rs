//! Receivers that are dead, slow, or unwilling: what waits is bounded, what is dropped is counted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::ledger::{Page, count};
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place;
use weir_tests::receiver::{Answer, Receiver};
use weir_tests::wait;

/// Spans by what became of them.
fn exported(page: &Page, result: &str) -> u64 {
    count(page.sum("weir_exported_total", &[("signal", "traces"), ("result", result)]))
}

fn start(endpoint: &str, more: &[&str]) -> Result<Agent> {
    let endpoint = format!("otlp.endpoint={endpoint}");
    Agent::start(&[&[endpoint.as_str(), "otlp.protocol=http/protobuf", "otlp.metrics=false"], more].concat())
}

#[test]
fn a15_a_dead_receiver_costs_bounded_memory_and_is_counted() -> Result<()> {
    const REQUESTS: u64 = 50_000;
    let nginx = Nginx::plain()?;
    let port = place::free_port()?;
    let agent = start(&format!("http://127.0.0.1:{port}"), &["otlp.queue=1MiB", "recent.memory=16MiB"])?;
    let before = agent.resident()?;
    assert_eq!(load::h2load(REQUESTS, 16, &[nginx.url("/s/200")])?.errors, 0);
    let page = wait::until(Duration::from_secs(10), "all calls", || {
        let page = agent.page()?;
        Ok((count(page.sum("weir_calls_total", &[("end", "complete")])) >= 2 * REQUESTS).then_some(page))
    })?;
    let dropped = exported(&page, "queue_full");
    // A span takes more than 100 bytes of the queue; beside it, a few requests are being tried, of 512 spans at most.
    let held = (1 << 20) / 100 + 8 * 512;
    ensure!(dropped + held >= 2 * REQUESTS && exported(&page, "ok") == 0, "{dropped} of {} dropped", 2 * REQUESTS);
    let grown = agent.resident()?.saturating_sub(before);
    ensure!(grown < 48 << 20, "grown by {} MiB", grown >> 20);
    ensure!(agent.log()?.contains("OTLP"), "nothing is said about it:\n{}", agent.log()?);
    agent.finish()
}

#[test]
fn a15_a_slow_receiver_holds_nobody_up() -> Result<()> {
    const REQUESTS: u64 = 20_000;
    let nginx = Nginx::plain()?;
    let receiver = Receiver::start(|_| Answer { after: Duration::from_secs(10), ..Answer::TAKEN })?;
    let endpoint = format!("http://127.0.0.1:{}", receiver.port());
    let agent = start(&endpoint, &["otlp.queue=1MiB", "otlp.timeout=2s"])?;
    let begin = Instant::now();
    assert_eq!(load::h2load(REQUESTS, 8, &[nginx.url("/s/200")])?.errors, 0);
    let calls = agent.calls(&[nginx.port()], 2 * REQUESTS as usize)?;
    ensure!(calls.len() as u64 == 2 * REQUESTS, "{} calls", calls.len());
    ensure!(begin.elapsed() < Duration::from_secs(10), "held up for {:?}", begin.elapsed());
    ensure!(exported(&agent.page()?, "queue_full") > 0, "nothing was dropped");
    let own = agent.calls_now(&[receiver.port()])?;
    ensure!(own.is_empty(), "its own export is shown: {own:?}");
    agent.finish()
}

#[test]
fn a15_retry_after_is_honoured() -> Result<()> {
    for status in [429, 503] {
        let nginx = Nginx::plain()?;
        let refuse = Answer { after: Duration::ZERO, status, retry_after: Some(2) };
        let receiver = Receiver::start(move |serial| if serial == 0 { refuse.clone() } else { Answer::TAKEN })?;
        let agent = start(&format!("http://127.0.0.1:{}", receiver.port()), &["otlp.compression=none"])?;
        load::curl(&[&nginx.url("/s/200")])?;
        let calls = agent.calls(&[nginx.port()], 2)?;
        ensure!(calls.len() == 2);
        let received = wait::until(Duration::from_secs(10), "a second attempt", || {
            Ok(Some(receiver.traces()).filter(|received| received.len() >= 2))
        })?;
        let gap = received[1].at - received[0].at;
        ensure!(gap >= Duration::from_millis(1900), "tried again after {gap:?}");
        let retried = received[1..].iter().filter(|again| again.message.body == received[0].message.body).count();
        ensure!(retried == 1, "{retried} retries of what was refused with {status}");
        wait::until(Duration::from_secs(5), "the count", || {
            let page = agent.page()?;
            Ok((exported(&page, "ok") >= 2 && exported(&page, "refused") == 0).then_some(()))
        })?;
        agent.finish()?;
    }
    Ok(())
}

#[test]
fn a15_what_is_refused_for_good_is_counted_and_not_tried_again() -> Result<()> {
    let nginx = Nginx::plain()?;
    let receiver = Receiver::start(|_| Answer { after: Duration::ZERO, status: 400, retry_after: None })?;
    let agent = start(&format!("http://127.0.0.1:{}", receiver.port()), &["otlp.compression=none"])?;
    load::curl(&[&nginx.url("/s/200")])?;
    wait::until(Duration::from_secs(10), "the count", || Ok((exported(&agent.page()?, "refused") >= 2).then_some(())))?;
    std::thread::sleep(Duration::from_secs(2));
    let received = receiver.traces();
    let distinct: std::collections::BTreeSet<&[u8]> = received.iter().map(|one| one.message.body.as_slice()).collect();
    ensure!(distinct.len() == received.len(), "tried again: {} requests, {} bodies", received.len(), distinct.len());
    agent.finish()
}

#[test]
fn a15_headers_and_compression_are_sent() -> Result<()> {
    let nginx = Nginx::plain()?;
    let receiver = Receiver::start(|_| Answer::TAKEN)?;
    let agent =
        start(&format!("http://127.0.0.1:{}", receiver.port()), &["otlp.headers.authorization=Bearer s3cr3t-token"])?;
    load::curl(&[&nginx.url("/s/200")])?;
    let received =
        wait::until(Duration::from_secs(10), "a request", || Ok(receiver.traces().into_iter().next()))?.message;
    assert_eq!(received.header("authorization").as_deref(), Some("Bearer s3cr3t-token"));
    assert_eq!(received.header("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(received.header("content-type").as_deref(), Some("application/x-protobuf"));
    assert!(received.start().starts_with("POST /v1/traces "));
    ensure!(!agent.log()?.contains("s3cr3t"), "the token is in the log");
    agent.finish()
}
