//! A16: the Prometheus page: parsed by Prometheus's own tool, exact, bounded.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::ledger::{Labels, Ledger, Page, count};
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::{self, Scratch};
use weir_tests::process::{self, Process};
use weir_tests::wire::{Server, Wire};
use weir_tests::{script, wait};

/// `promtool check metrics`, which must have nothing to say.
fn promtool(page: &str) -> Result<()> {
    let mut child = Command::new(place::program("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no input")?.write_all(page.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {}\n{said}", output.status);
    Ok(())
}

/// Counts of a histogram by status, of the series of this service. A server's own port is no label of its metrics
/// (semconv: opt-in), a client's peer's is.
fn by_status(page: &Page, metric: &str, service: &str, port: Option<u16>) -> BTreeMap<String, u64> {
    let of_port = |labels: &Labels| {
        labels.get("service_name").is_some_and(|label| label == service)
            && port.is_none_or(|port| labels.get("server_port").is_some_and(|label| *label == port.to_string()))
    };
    let mut counts = BTreeMap::new();
    for (labels, value) in page.samples(metric) {
        if of_port(labels) {
            let status = labels.get("http_response_status_code").cloned().unwrap_or_default();
            *counts.entry(status).or_default() += count(value);
        }
    }
    counts
}

#[test]
fn a16_parses_and_counts_exactly() -> Result<()> {
    const REQUESTS: u64 = 9000;
    let nginx = Nginx::plain()?;
    let mut agent = Agent::start(&[])?;
    let load = load::h2load(REQUESTS, 8, &[nginx.url("/s/200"), nginx.url("/s/404"), nginx.url("/s/503")])?;
    let [_, two, _, four, five] = load.classes;
    assert_eq!(agent.calls(&[nginx.port()], 2 * REQUESTS as usize)?.len() as u64, 2 * REQUESTS);
    let (status, text) = agent.get("/metrics")?;
    assert_eq!(status, 200);
    promtool(&text)?;
    let page = Page::parse(&text)?;
    let expected = BTreeMap::from([("200", two), ("404", four), ("503", five)].map(|(code, n)| (code.to_owned(), n)));
    assert_eq!(by_status(&page, "http_server_request_duration_seconds_count", "nginx", None), expected);
    assert_eq!(by_status(&page, "http_client_request_duration_seconds_count", "h2load", Some(nginx.port())), expected);
    assert!(page.sum("weir_build_info", &[]) >= 1.0);
    // A new agent counts from nothing.
    agent.stop()?;
    agent.again()?;
    let page = agent.page()?;
    assert_eq!(by_status(&page, "http_server_request_duration_seconds_count", "nginx", None), BTreeMap::new());
    agent.finish()
}

/// A page has on both sides of the ledger what passed before it, its own request too: nothing is left between.
#[test]
fn a16_each_page_is_balanced() -> Result<()> {
    let agent = Agent::start(&[])?;
    for _ in 0..100 {
        let ledger = Ledger::read(&agent.page()?)?;
        ensure!(ledger.balanced() && ledger.seen > 0, "{ledger:?}");
    }
    agent.finish()
}

#[test]
fn a16_health() -> Result<()> {
    let agent = Agent::start(&[])?;
    assert_eq!(agent.get("/healthz")?.0, 200);
    assert_eq!(agent.get("/readyz")?.0, 200);
    assert_eq!(agent.get("/nothing")?.0, 404);
    agent.finish()
}

/// Methods, hosts, paths and statuses that nobody could list make no series without bound.
#[test]
fn a16_series_are_bounded() -> Result<()> {
    let server = Server::start(|mut wire| {
        while wire.request()?.is_some() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })?;
    let agent = Agent::start(&[])?;
    let mut wire = Wire::connect(server.address())?;
    let mut ask = |from: u32, to: u32| -> Result<()> {
        for at in from..to {
            wire.send(format!("M{at} /word{at:x}/zz{at:x}ing?q={at} HTTP/1.1\r\nHost: host{at}.test\r\n\r\n"))?;
            ensure!(wire.answer("GET")?.status()? == 200);
        }
        Ok(())
    };
    let series =
        || -> Result<usize> { Ok(agent.get("/metrics")?.1.lines().filter(|line| !line.starts_with('#')).count()) };
    ask(0, 5000)?;
    assert_eq!(agent.calls(&[server.port()], 10_000)?.len(), 10_000);
    let first = series()?;
    ask(5000, 10_000)?;
    assert_eq!(agent.calls(&[server.port()], 20_000)?.len(), 20_000);
    let second = series()?;
    ensure!(second < first + first / 10, "{first} series, then {second}");
    promtool(&agent.get("/metrics")?.1)?;
    drop(wire);
    server.stop()?;
    agent.finish()
}

/// A thousand services, each with a call of its own, told apart and exact; a real Prometheus scrapes them.
#[test]
fn a16_a_thousand_services_and_a_real_prometheus() -> Result<()> {
    const SERVICES: usize = 1000;
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    script::at_once((0..10).collect(), |start: usize| {
        for at in (start..SERVICES).step_by(10) {
            let mut curl = Command::new(place::program("curl")?);
            // Two requests, a while apart: the environment of a process that ends within milliseconds can't be read.
            curl.args(["-s", "--rate", "20/s", "-o", "/dev/null", &nginx.url("/s/200")]);
            curl.args(["-o", "/dev/null", &nginx.url("/s/200")]).env("OTEL_SERVICE_NAME", format!("service-{at}"));
            process::run(&mut curl, Duration::from_secs(10))?;
        }
        Ok(())
    })?;
    assert_eq!(agent.calls(&[nginx.port()], 4 * SERVICES)?.len(), 4 * SERVICES);
    let (_, text) = agent.get("/metrics")?;
    promtool(&text)?;
    let page = Page::parse(&text)?;
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for (labels, value) in page.samples("http_client_request_duration_seconds_count") {
        if let Some(name) = labels.get("service_name").filter(|name| name.starts_with("service-")) {
            *told.entry(name.clone()).or_default() += count(value);
        }
    }
    let expected: BTreeMap<String, u64> = (0..SERVICES).map(|at| (format!("service-{at}"), 2)).collect();
    assert_eq!(told, expected);

    let scratch = Scratch::new("prometheus")?;
    let port = place::free_port()?;
    let file = scratch.write(
        "prometheus.yml",
        format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: weir\n  static_configs: [{{ targets: ['{}'] }}]\n",
            agent.metrics()
        ),
    )?;
    let mut command = Command::new(place::program("prometheus")?);
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", scratch.join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let prometheus = Process::start(command, "prometheus", &scratch)?;
    let query = "sum(http_client_request_duration_seconds_count%7Bservice_name%3D~%22service-.*%22%7D)";
    let url = format!("http://127.0.0.1:{port}/api/v1/query?query={query}");
    let scraped = wait::until(Duration::from_secs(30), "the scraped series", || {
        let Ok(answer) = load::curl(&["-f", &url]) else { return Ok(None) };
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let value = answer.pointer("/data/result/0/value/1").and_then(serde_json::Value::as_str);
        Ok(value.filter(|value| *value == (2 * SERVICES).to_string()).map(str::to_owned))
    });
    let scraped = scraped.with_context(|| prometheus.output().unwrap_or_default())?;
    assert_eq!(scraped, (2 * SERVICES).to_string());
    drop(prometheus);
    agent.finish()
}
