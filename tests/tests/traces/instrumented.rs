//! An application that exports spans of its own, with the real SDK to the real Collector: each call is there once, and
//! what Weir tells beside it joins.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::collector::{Collector, Ports, Span};
use weir_tests::peers::load::curl;
use weir_tests::peers::nginx::Nginx;
use weir_tests::peers::runtime::{Instrumented, instrumented};
use weir_tests::place::{self, Scratch};
use weir_tests::process::Process;
use weir_tests::wait;

const SERVER: u8 = 2;
const CLIENT: u8 = 3;

struct Stage {
    collector: Collector,
    nginx: Nginx,
    app: Process,
    port: u16,
    agent: Agent,
    /// Requests until the application was known.
    asked: usize,
    _scratch: Scratch,
}

impl Stage {
    /// Its application has exported once, over HTTP, when this ends.
    fn new(settings: &[&str]) -> Result<Self> {
        Self::with(Instrumented::Python, false, settings)
    }

    fn with(app: Instrumented, grpc: bool, settings: &[&str]) -> Result<Self> {
        let collector = Collector::start(Ports::free()?)?;
        let nginx = Nginx::plain()?;
        let scratch = Scratch::new("instrumented")?;
        let port = place::free_port()?;
        let receiver = format!("http://127.0.0.1:{}", collector.ports().http);
        let to = if grpc { format!("http://127.0.0.1:{}", collector.ports().grpc) } else { receiver.clone() };
        let command = instrumented(app, port, &nginx.url(""), &to, grpc)?;
        let synchronous = app.exports_first();
        let app = Process::start(command, "app", &scratch)?;
        wait::listening(([127, 0, 0, 1], port).into(), Duration::from_mins(1))
            .with_context(|| app.output().unwrap_or_default())?;
        let own = format!("otlp.endpoint={receiver}");
        let all = [&[&*own, "otlp.protocol=http/protobuf", "otlp.metrics=false"], settings].concat();
        let agent = Agent::start(&all)?;
        let mut stage = Self { collector, nginx, app, port, agent, asked: 0, _scratch: scratch };
        // The first request: the application is known by what it exports of it, at once or soon after.
        wait::until(Duration::from_mins(1), "an application that is known", || {
            stage.ask(1)?;
            stage.asked += 1;
            Ok((synchronous || stage.left_out()? > 0).then_some(()))
        })?;
        stage.agent.calls(&[stage.port, stage.nginx.port()], 4 * stage.asked)?;
        Ok(stage)
    }

    fn ask(&self, count: u32) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/order", self.port);
        for _ in 0..count {
            let said = curl(&["-sf", &url]).with_context(|| self.app.output().unwrap_or_default())?;
            ensure!(said == "200\n", "{said}");
        }
        Ok(())
    }

    /// Spans that were left out because the application tells them.
    fn left_out(&self) -> Result<u64> {
        let stats = self.agent.json(&["stats"])?;
        let rows = stats["events"].as_array().context("no events")?;
        let row = rows.iter().find(|row| row["reason"] == "span_told_by_application").context("no such row")?;
        row["count"].as_u64().context("no count")
    }

    /// Ends the agent, which exports what waits, and gives the spans of these requests by trace, those of the exports
    /// themselves left out.
    fn traces(mut self) -> Result<BTreeMap<String, Vec<Span>>> {
        let ledger = self.agent.ledger()?;
        ensure!(ledger.lost() == 0, "lost: {:?}", ledger.lost);
        self.agent.stop()?;
        let mut last = 0;
        let spans = wait::until(Duration::from_secs(20), "the spans", || {
            let spans = self.collector.spans()?;
            let settled = !spans.is_empty() && spans.len() == last;
            last = spans.len();
            std::thread::sleep(Duration::from_millis(300));
            Ok(settled.then_some(spans))
        })?;
        let mut traces = BTreeMap::new();
        let ports = [i64::from(self.port), i64::from(self.nginx.port())];
        for span in spans {
            let sdk = is_sdk(&span);
            let port = span.attributes.get("server.port").and_then(serde_json::Value::as_i64);
            if sdk || port.is_some_and(|port| ports.contains(&port)) {
                traces.entry(span.span.trace_id.clone()).or_insert_with(Vec::new).push(span);
            }
        }
        Ok(traces)
    }
}

fn is_sdk(span: &Span) -> bool {
    let language = span.resource.get("telemetry.sdk.language");
    language.is_some_and(|language| ["python", "go", "java", "cpp"].iter().any(|known| language == known))
}

type Shape = Vec<(bool, String, u8)>;

/// Who told a span, and what it is.
fn shape(spans: &[Span]) -> Shape {
    let name = |span: &Span| span.resource.get("service.name").and_then(|it| it.as_str()).unwrap_or("-").to_owned();
    let mut all: Vec<_> = spans.iter().map(|span| (is_sdk(span), name(span), span.span.kind)).collect();
    all.sort();
    all
}

fn row(sdk: bool, name: &str, kind: u8) -> (bool, String, u8) {
    (sdk, name.to_owned(), kind)
}

fn only(spans: &[Span], sdk: bool, kind: u8) -> Result<&Span> {
    let mut found = spans.iter().filter(|span| is_sdk(span) == sdk && span.span.kind == kind);
    let one = found.next().with_context(|| format!("no span of kind {kind} in {spans:#?}"))?;
    ensure!(found.next().is_none(), "two spans of kind {kind} in {spans:#?}");
    Ok(one)
}

#[test]
fn its_calls_are_told_once_and_joined() -> Result<()> {
    // Of each request: a server's call, a client's, and two exports.
    let (first, joined, lonely) = told_once(Stage::new(&[])?, 4)?;
    // Of the first request something was told before the application was known.
    ensure!(joined == COUNT && lonely + first.len() == COUNT + 2, "{first:?}, {lonely}, {joined}");
    ensure!(first.len() == 1 || first.len() == 2, "{first:?}");
    Ok(())
}

#[test]
fn its_calls_are_told_once_where_it_exports_by_grpc() -> Result<()> {
    // Exports are no calls themselves. The first request's own call may have been told before the first export was accepted.
    let (first, joined, lonely) = told_once(Stage::with(Instrumented::Python, true, &[])?, 2)?;
    let told = joined + first.len();
    ensure!(told == COUNT + 1 && joined >= COUNT && lonely == COUNT + 1, "{first:?}, {lonely}, {joined}");
    Ok(())
}

#[test]
fn an_application_in_go_is_told_once_by_http_and_grpc() -> Result<()> {
    for (grpc, each) in [(false, 4), (true, 2)] {
        let (first, joined, lonely) = told_once(Stage::with(Instrumented::Go, grpc, &[])?, each)?;
        // The first request's own call may have been told before the first export was accepted.
        ensure!(joined >= COUNT && lonely >= COUNT, "{grpc}: {first:?}, {lonely}, {joined}");
        ensure!(
            first.len() <= 2 && joined <= COUNT + 1 && lonely <= COUNT + 2,
            "{grpc}: {first:?}, {lonely}, {joined}"
        );
        ensure!(with_sdk(&first) + joined == COUNT + 1, "{grpc}: {first:?}, {joined}");
    }
    Ok(())
}

#[test]
fn an_application_in_java_is_told_once() -> Result<()> {
    told_once_when_known(Instrumented::Java)
}

#[test]
fn a_proxy_that_traces_is_told_once() -> Result<()> {
    told_once_when_known(Instrumented::Envoy)
}

/// Of one that exports by gRPC after it has answered.
fn told_once_when_known(app: Instrumented) -> Result<()> {
    let stage = Stage::with(app, true, &[])?;
    let asked = stage.asked;
    let (first, joined, lonely) = told_once(stage, 2)?;
    ensure!(joined >= COUNT && lonely >= COUNT, "{asked}: {first:?}, {lonely}, {joined}");
    ensure!(with_sdk(&first) + joined == COUNT + asked, "{asked}: {first:?}, {joined}");
    Ok(())
}

/// Traces in which the application told something.
fn with_sdk(shapes: &[Shape]) -> usize {
    shapes.iter().filter(|shape| shape.iter().any(|(sdk, ..)| *sdk)).count()
}

/// Requests after the first one.
const COUNT: usize = 10;

/// Other traces than of a request that is told once, traces of one, and of its client alone. `each`: calls of a request that
/// the application tells.
fn told_once(stage: Stage, each: u64) -> Result<(Vec<Shape>, usize, usize)> {
    let before = stage.left_out()?;
    stage.ask(COUNT as u32)?;
    let expected = before + each * COUNT as u64;
    wait::until(Duration::from_secs(20), "spans that are left out", || {
        Ok((stage.left_out()? == expected).then_some(()))
    })
    .with_context(|| format!("{:?}, expected {expected}", stage.left_out()))?;
    let traces = stage.traces()?;
    let own = [row(false, "nginx", SERVER), row(true, "sdk", SERVER), row(true, "sdk", CLIENT)];
    let alone = [row(false, "curl", CLIENT)];
    let (mut first, mut joined, mut lonely) = (Vec::new(), Vec::new(), 0);
    for spans in traces.values() {
        match shape(spans) {
            shape if shape == own => joined.push(spans),
            shape if shape == alone => lonely += 1,
            other => first.push(other),
        }
    }
    for spans in &joined {
        let [outer, asks, answers] =
            [only(spans, true, SERVER)?, only(spans, true, CLIENT)?, only(spans, false, SERVER)?];
        ensure!(outer.span.parent_span_id.is_empty(), "{spans:#?}");
        ensure!(asks.span.parent_span_id == outer.span.span_id, "{spans:#?}");
        ensure!(answers.span.parent_span_id == asks.span.span_id, "{spans:#?}");
    }
    Ok((first, joined.len(), lonely))
}

#[test]
fn as_parent_every_span_is_there_in_one_trace() -> Result<()> {
    let stage = Stage::new(&["traces.instrumented=parent"])?;
    stage.ask(3)?;
    stage.agent.calls(&[stage.port, stage.nginx.port()], 16)?;
    let traces = stage.traces()?;
    let all: Vec<_> = traces.values().filter(|spans| spans.iter().any(is_sdk)).collect();
    ensure!(all.len() == 4, "{} traces", all.len());
    for spans in all {
        let [asks, sends, answers] =
            [only(spans, true, CLIENT)?, only(spans, false, CLIENT)?, only(spans, false, SERVER)?];
        ensure!(sends.span.parent_span_id == asks.span.span_id, "{spans:#?}");
        ensure!(answers.span.parent_span_id == sends.span.span_id, "{spans:#?}");
    }
    Ok(())
}

#[test]
fn as_link_they_stand_in_a_trace_beside_it() -> Result<()> {
    let stage = Stage::new(&["traces.instrumented=link"])?;
    stage.ask(3)?;
    stage.agent.calls(&[stage.port, stage.nginx.port()], 16)?;
    let traces = stage.traces()?;
    let asked: BTreeMap<&str, &str> = traces
        .values()
        .flatten()
        .filter(|span| is_sdk(span) && span.span.kind == CLIENT)
        .map(|span| (&*span.span.span_id, &*span.span.trace_id))
        .collect();
    ensure!(asked.len() == 4, "{asked:?}");
    let mut beside = 0;
    for spans in traces.values() {
        if !spans.iter().any(|span| span.resource.get("service.name").is_some_and(|name| name == "nginx")) {
            continue;
        }
        let [sends, answers] = [only(spans, false, CLIENT)?, only(spans, false, SERVER)?];
        ensure!(spans.len() == 2 && sends.span.parent_span_id.is_empty(), "{spans:#?}");
        ensure!(answers.span.parent_span_id == sends.span.span_id, "{spans:#?}");
        for span in spans {
            let [link] = &span.span.links[..] else { anyhow::bail!("{spans:#?}") };
            ensure!(asked.get(&*link.span_id) == Some(&&*link.trace_id), "{spans:#?}");
        }
        beside += 1;
    }
    ensure!(beside == 4, "{beside}");
    Ok(())
}
