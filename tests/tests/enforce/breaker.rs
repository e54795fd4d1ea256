//! A rule that takes from a service what it needs goes back to monitor mode by itself; errors of another cause move none.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::collector::{Collector, Ports};
use weir_tests::peers::nginx::Nginx;
use weir_tests::peers::proxy::{Kind, Proxy};
use weir_tests::place::Scratch;
use weir_tests::wait;

use super::{curl, enforcing, rule};

/// `HAProxy` answers 502 while a rule refuses its calls to nginx. Beside it another server fails, and a rule refuses calls
/// that concern nobody.
#[test]
fn a_rule_that_makes_a_service_fail_trips() -> Result<()> {
    let scratch = Scratch::new("audit")?;
    let log = scratch.join("audit.log");
    let collector = Collector::start(Ports::free()?)?;
    let (behind, other) = (Nginx::plain()?, Nginx::plain()?);
    let shop = Proxy::start(Kind::Haproxy, behind.address())?;
    let endpoint = format!("otlp.endpoint=http://127.0.0.1:{}", collector.ports().grpc);
    let agent = enforcing(&[&endpoint, "enforce.breaker.errors=10", &format!("enforce.audit={}", log.display())])?;
    let asked = |n: usize| curl(&[&format!("{}/dep/{n}", shop.url())]);
    for n in 0..20 {
        ensure!(asked(n)? == Ok(404) && curl(&[&other.url("/s/500")])? == Ok(500), "{n}");
    }
    rule(&agent, "harmless", &["--path", "/harmless", "--port", &other.port().to_string()])?;
    rule(&agent, "mistake", &["--path", "/dep", "--port", &behind.port().to_string()])?;
    let (mut failed, mut noise) = (0, 0);
    let tripped = wait::until(Duration::from_secs(25), "a tripped rule", || {
        for n in 0..5 {
            failed += usize::from(asked(n)? == Ok(502));
            ensure!(curl(&[&other.url("/s/503")])? == Ok(503));
            noise += usize::from(curl(&[&other.url("/harmless")])?.is_err());
        }
        Ok(agent.lines(&["block", "list"])?.into_iter().find(|row| row["tripped"].is_string()))
    })?;
    ensure!(failed >= 10 && noise >= 10, "{failed} failed, {noise} refused beside them");
    ensure!(tripped["id"] == "mistake" && tripped["effective_mode"] == "monitor", "{tripped}");
    let why = tripped["tripped"].as_str().context("no reason")?;
    ensure!(why.contains("service haproxy failed") && why.contains("0 of 20 in the 30 s before"), "{why}");
    for n in 0..5 {
        ensure!(asked(n)? == Ok(404), "in monitor mode it refuses");
    }
    // Evidence: audit line, log line, metric, log record; the other rule stays as it is.
    let text = std::fs::read_to_string(&log)?;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("\"what\":\"breaker\"")).collect();
    ensure!(lines.len() == 1 && lines[0].contains("service haproxy failed"), "{lines:?}");
    ensure!(agent.log()?.contains("circuit breaker"));
    ensure!((agent.page()?.sum("weir_breaker_trips_total", &[("reason", "errors")]) - 1.0).abs() < 0.5);
    let records = wait::until(Duration::from_secs(10), "a log record", || {
        let records = collector.logs()?.into_iter().filter(|record| record["eventName"] == "weir.breaker");
        Ok(Some(records.collect::<Vec<_>>()).filter(|records| !records.is_empty()))
    })?;
    ensure!(records.len() == 1 && records[0]["plain"]["weir.block.id"] == "mistake", "{records:#?}");
    ensure!(curl(&[&other.url("/harmless")])?.is_err());
    agent.finish()
}
