//! What arrives is what was seen: every call once, with its ids, kind, times, Resource and attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::call::{Call, Kind};
use weir_tests::collector::{Collector, Ports, Span};
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::{Scratch, program};
use weir_tests::process;
use weir_tests::truth::same;
use weir_tests::wait;

const REQUESTS: u64 = 3000;

/// What a call and its span must agree in.
fn of_call(call: &Call) -> Result<Vec<String>> {
    let attributes = &call.attributes;
    let end = call.start_ns()? + call.duration_ns;
    Ok(vec![
        call.span_id.clone(),
        call.trace_id.clone(),
        call.parent_span_id.clone().unwrap_or_default(),
        if call.kind == Kind::Server { "2" } else { "3" }.to_owned(),
        call.start_ns()?.to_string(),
        end.to_string(),
        call.service.name.clone().unwrap_or_default(),
        attributes.method.clone().unwrap_or_default(),
        attributes.status.map(|status| status.to_string()).unwrap_or_default(),
        attributes.response_body.map(|size| size.to_string()).unwrap_or_default(),
    ])
}

fn of_span(span: &Span) -> Vec<String> {
    let text = |value: Option<&Value>| match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let inner = &span.span;
    vec![
        inner.span_id.clone(),
        inner.trace_id.clone(),
        inner.parent_span_id.clone(),
        inner.kind.to_string(),
        inner.start_time_unix_nano.clone(),
        inner.end_time_unix_nano.clone(),
        text(span.resource.get("service.name")),
        text(span.attributes.get("http.request.method")),
        text(span.attributes.get("http.response.status_code")),
        text(span.attributes.get("http.response.body.size")),
    ]
}

/// Exports a load with `settings`, compares every call with its span.
fn deliver(collector: &Collector, settings: &[String]) -> Result<()> {
    let nginx = Nginx::plain()?;
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut agent = Agent::start(&settings)?;
    let load = load::h2load(REQUESTS, 8, &[nginx.url("/s/200"), nginx.url("/s/404"), nginx.url("/s/503")])?;
    assert_eq!((load.answered, load.errors), (REQUESTS, 0));
    let calls = agent.calls(&[nginx.port()], 2 * REQUESTS as usize)?;
    ensure!(calls.len() as u64 == 2 * REQUESTS, "{} calls", calls.len());
    let own = agent.calls_now(&[collector.ports().grpc, collector.ports().http])?;
    ensure!(own.is_empty(), "its own export is shown: {own:?}");
    let ids: BTreeSet<&str> = calls.iter().map(|call| call.span_id.as_str()).collect();
    let spans = wait::until(Duration::from_secs(15), "the spans", || {
        let spans: Vec<Span> =
            collector.spans()?.into_iter().filter(|span| ids.contains(span.span.span_id.as_str())).collect();
        Ok((spans.len() as u64 >= 2 * REQUESTS).then_some(spans))
    })?;
    let mut found: Vec<Vec<String>> = spans.iter().map(of_span).collect();
    let mut expected: Vec<Vec<String>> = calls.iter().map(of_call).collect::<Result<_>>()?;
    found.sort();
    expected.sort();
    same("spans", &found, &expected)?;
    for span in &spans {
        let name = format!(
            "{} {}",
            span.attributes["http.request.method"],
            span.attributes.get("http.route").unwrap_or(&Value::Null)
        );
        ensure!(span.span.name == name.replace('"', ""), "named {:?}, not {name}", span.span.name);
    }
    agent.ledger()?;
    agent.stop()?;
    // What the agent flushed when it stopped is there as well: each span once.
    let all = collector.spans()?;
    let distinct: BTreeSet<&str> = all.iter().map(|span| span.span.span_id.as_str()).collect();
    ensure!(distinct.len() == all.len(), "{} spans, {} ids", all.len(), distinct.len());
    Ok(())
}

fn settings(endpoint: &str, protocol: &str, compression: &str) -> Vec<String> {
    vec![
        format!("otlp.endpoint={endpoint}"),
        format!("otlp.protocol={protocol}"),
        format!("otlp.compression={compression}"),
        "otlp.metrics=false".to_owned(),
    ]
}

#[test]
fn a15_grpc() -> Result<()> {
    for compression in ["gzip", "none"] {
        let collector = Collector::start(Ports::free()?)?;
        let endpoint = format!("http://127.0.0.1:{}", collector.ports().grpc);
        deliver(&collector, &settings(&endpoint, "grpc", compression))?;
    }
    Ok(())
}

#[test]
fn a15_http() -> Result<()> {
    for compression in ["gzip", "none"] {
        let collector = Collector::start(Ports::free()?)?;
        let endpoint = format!("http://127.0.0.1:{}", collector.ports().http);
        deliver(&collector, &settings(&endpoint, "http/protobuf", compression))?;
    }
    Ok(())
}

/// A key and a certificate for `localhost`, signed by itself.
fn certificate(scratch: &Scratch) -> Result<(PathBuf, PathBuf)> {
    let (key, certificate) = (scratch.join("key.pem"), scratch.join("cert.pem"));
    let mut command = Command::new(program("openssl")?);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
    process::run(&mut command, Duration::from_secs(10))?;
    Ok((certificate, key))
}

#[test]
fn a15_tls() -> Result<()> {
    let scratch = Scratch::new("certificates")?;
    let (certificate, key) = certificate(&scratch)?;
    for protocol in ["grpc", "http/protobuf"] {
        let collector = Collector::with(Ports::free()?, Some((&certificate, &key)))?;
        let port = if protocol == "grpc" { collector.ports().grpc } else { collector.ports().http };
        let mut settings = settings(&format!("https://localhost:{port}"), protocol, "gzip");
        settings.push(format!("otlp.certificate={}", certificate.display()));
        deliver(&collector, &settings)?;
    }
    Ok(())
}

#[test]
fn a15_metrics_count_every_call() -> Result<()> {
    let collector = Collector::start(Ports::free()?)?;
    let nginx = Nginx::plain()?;
    let mut agent = Agent::start(&[
        &format!("otlp.endpoint=http://127.0.0.1:{}", collector.ports().grpc),
        "otlp.interval=1s",
        "otlp.traces=false",
    ])?;
    let load = load::h2load(REQUESTS, 8, &[nginx.url("/s/200"), nginx.url("/s/404"), nginx.url("/s/503")])?;
    let calls = agent.calls(&[nginx.port()], 2 * REQUESTS as usize)?;
    ensure!(calls.len() as u64 == 2 * REQUESTS, "{} calls", calls.len());
    agent.stop()?;
    for (metric, service) in [("http.server.request.duration", "nginx"), ("http.client.request.duration", "h2load")] {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for point in collector.points(metric)? {
            let has = |list: &str, key: &str, value: &str| {
                let attributes = point.get(list).and_then(Value::as_array);
                attributes.is_some_and(|all| {
                    all.iter().any(|one| {
                        one["key"] == key
                            && one["value"].as_object().is_some_and(|of| of.values().any(|is| is == value))
                    })
                })
            };
            // A server's own port is no attribute of its metrics (semconv: opt-in).
            let here = service == "nginx" || has("attributes", "server.port", &nginx.port().to_string());
            if !has("resource", "service.name", service) || !here {
                continue;
            }
            let status = load.classes.len() as u64;
            let code = [200, 404, 503]
                .into_iter()
                .find(|code| has("attributes", "http.response.status_code", &code.to_string()));
            let count = point.get("count").and_then(Value::as_str).context("no count")?;
            *counts.entry(code.unwrap_or(status)).or_default() += count.parse::<u64>()?;
        }
        let [_, two, _, four, five] = load.classes;
        ensure!(counts == BTreeMap::from([(200, two), (404, four), (503, five)]), "{metric}: {counts:?}, {load:?}");
    }
    Ok(())
}
