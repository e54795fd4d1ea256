//! Each drop is a call, a span with an error, a log record and a count, and all four agree.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::call::Kind;
use weir_tests::collector::{Collector, Ports};
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::wait;
use weir_tests::wire::Wire;

use super::{curl, enforcing, from, of, rule};

/// What the collector gets of 10 dropped, 7 told and 5 plain requests.
#[test]
fn a_drop_is_a_call_a_span_a_record_and_a_count() -> Result<()> {
    let collector = Collector::start(Ports::free()?)?;
    let nginx = Nginx::plain()?;
    let endpoint = format!("otlp.endpoint=http://127.0.0.1:{}", collector.ports().grpc);
    let agent = enforcing(&[&endpoint, "otlp.interval=1s"])?;
    let port = nginx.port().to_string();
    rule(&agent, "carried", &["--path", "/bad", "--port", &port])?;
    let said = agent
        .say(&["block", "add", "--reason", "tried", "--force", "--id", "tried", "--path", "/odd", "--port", &port])?;
    ensure!(said.code == 0, "{}", said.err);
    for n in 0..10 {
        ensure!(curl(&[&nginx.url(&format!("/bad/{n}"))])?.is_err());
    }
    load::curls(7, &nginx.url("/odd/{}"))?;
    load::curls(5, &nginx.url("/good/{}"))?;
    let calls = agent.calls(&[nginx.port()], 44)?;
    let dropped = of(&calls, Kind::Server, "dropped");
    ensure!(dropped.len() == 10 && of(&calls, Kind::Server, "would_drop").len() == 7, "{calls:#?}");
    ensure!(nginx.logged(12)?.len() == 12);

    let records = wait::until(Duration::from_secs(10), "17 log records and 44 spans", || {
        let spans = collector.spans()?;
        Ok(Some(collector.logs()?).filter(|records| records.len() >= 17 && spans.len() >= 44))
    })?;
    let with = |event: &str| records.iter().filter(|record| record["eventName"] == event).collect::<Vec<_>>();
    ensure!(
        records.len() == 17 && with("weir.dropped").len() == 10 && with("weir.would_drop").len() == 7,
        "{records:#?}"
    );
    let spans = collector.spans()?;
    for record in with("weir.dropped") {
        let span = spans.iter().find(|span| span.span.span_id == record["spanId"].as_str().unwrap_or_default());
        let span = span.context("a record without its span")?;
        let call = dropped.iter().find(|call| call.span_id == span.span.span_id).context("a span without its call")?;
        ensure!(record["traceId"] == *call.trace_id && record["severityText"] == "WARN", "{record}");
        for attributes in [&record["plain"], &serde_json::to_value(&span.attributes)?] {
            ensure!(
                attributes["weir.block.id"] == "carried" && attributes["weir.verdict"] == "dropped",
                "{attributes}"
            );
            ensure!(attributes["weir.block.reason"] == "a test", "{attributes}");
        }
    }
    let page = agent.page()?;
    let mut counted: Vec<_> =
        page.samples("weir_blocked_total").map(|(labels, value)| (format!("{labels:?}"), value)).collect();
    counted.sort_by(|a, b| a.0.cmp(&b.0));
    ensure!(counted.len() == 2 && counted[0].0.contains("enforce") && (counted[0].1 - 10.0).abs() < 0.5, "{counted:?}");
    ensure!(counted[1].0.contains("monitor") && (counted[1].1 - 7.0).abs() < 0.5, "{counted:?}");
    agent.finish()
}

/// A rule that drops in silence: its client sends again and again, and is judged anew meanwhile. It stays one drop.
#[test]
fn what_is_sent_again_is_one_drop() -> Result<()> {
    // Of the times at which a client sends again, two lie behind the time after which connections are judged anew.
    const AGAIN: Duration = Duration::from_millis(7500);
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    let silent = ["--end", "drop", "--port", &port];
    let mut wires = Vec::new();
    for client in ["127.0.5.1", "127.0.5.2"] {
        let mut wire = Wire::over(from(client.parse()?, nginx.address())?)?;
        wire.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\n")?;
        ensure!(wire.answer("GET")?.status()? == 404);
        wires.push(wire);
    }
    rule(&agent, "request", &[&silent[..], &["--path", "/r", "--client", "127.0.5.1"]].concat())?;
    rule(&agent, "connection", &[&silent[..], &["--client", "127.0.5.2"]].concat())?;
    for wire in &mut wires {
        wire.send("GET /r HTTP/1.1\r\nHost: a\r\n\r\n")?;
    }
    std::thread::sleep(AGAIN);
    for row in agent.lines(&["block", "list"])? {
        ensure!(row["hits"] == 1, "{row}");
    }
    let told = agent.page()?.sum("weir_blocked_total", &[]);
    ensure!((told - 2.0).abs() < 0.5, "{told}");
    // With their connections the calls end.
    wires.into_iter().try_for_each(Wire::reset)?;
    let calls = agent.calls(&[nginx.port()], 8)?;
    ensure!(calls.len() == 8 && of(&calls, Kind::Server, "dropped").len() == 2, "{calls:#?}");
    ensure!(nginx.logged(2)?.len() == 2);
    agent.finish()
}
