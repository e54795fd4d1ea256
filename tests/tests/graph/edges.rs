//! The dependency graph: exact nodes, edges and counts, each call once, whatever is spoken.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::ledger::count;
use weir_tests::netns::NetNs;
use weir_tests::peers::proxy::{Kind, Proxy};
use weir_tests::peers::runtime::{Ask, Runtime, Serve, ask, script};
use weir_tests::peers::{load, nginx::Nginx};
use weir_tests::place::{self, Scratch, program};
use weir_tests::process::{self, Process};
use weir_tests::tmux::Tmux;
use weir_tests::wait;
use weir_tests::wire::{Server, Wire};

/// Counts of an edge that a test knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Edge {
    calls: u64,
    errors: u64,
    connections: u64,
    failed: u64,
    observed: Vec<String>,
}

/// Edges to these ports by client, server, protocol and port.
type Edges = BTreeMap<(String, String, String, u16), Edge>;

fn number(row: &Value, key: &str) -> Result<u64> {
    row.get(key).and_then(Value::as_u64).with_context(|| format!("no {key} in {row}"))
}

fn text(row: &Value, pointer: &str) -> Result<String> {
    Ok(row.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {row}"))?.to_owned())
}

fn edges(agent: &Agent, ports: &[u16]) -> Result<Edges> {
    let graph = agent.json(&["graph"])?;
    let mut edges = Edges::new();
    for row in graph["edges"].as_array().context("no edges")? {
        let port = u16::try_from(number(row, "server_port")?)?;
        if !ports.contains(&port) {
            continue;
        }
        let observed = row["observed_by"].as_array().context("no observed_by")?;
        let edge = Edge {
            calls: number(row, "calls")?,
            errors: number(row, "errors")?,
            connections: number(row, "connections")?,
            failed: number(row, "failed_connections")?,
            observed: observed.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        };
        let (client, server) = (text(row, "/client/service.name")?, text(row, "/server/service.name")?);
        edges.insert((client, server, text(row, "/protocol")?, port), edge);
    }
    Ok(edges)
}

/// The graph has exactly these edges to these ports, once what is under way has arrived.
fn is(agent: &Agent, ports: &[u16], expected: &Edges) -> Result<()> {
    let mut found = Edges::new();
    let reached = wait::until(Duration::from_secs(10), "the edges", || {
        found = edges(agent, ports)?;
        Ok((found == *expected).then_some(()))
    });
    reached.with_context(|| format!("found    {found:#?}\nexpected {expected:#?}"))?;
    // And it stays so: nothing is counted late or twice.
    std::thread::sleep(Duration::from_millis(700));
    ensure!(edges(agent, ports)? == *expected, "{:#?}", edges(agent, ports)?);
    Ok(())
}

fn edge(from: &str, to: &str, protocol: &str, port: u16, edge: Edge) -> ((String, String, String, u16), Edge) {
    ((from.to_owned(), to.to_owned(), protocol.to_owned(), port), edge)
}

fn calls(calls: u64, errors: u64) -> Edge {
    Edge { calls, errors, observed: vec!["client".to_owned(), "server".to_owned()], ..Edge::default() }
}

#[test]
fn chains_of_proxies_are_edges_hop_by_hop() -> Result<()> {
    const ROUNDS: u64 = 30;
    let go = Runtime::start(Serve::Go)?;
    let envoy = Proxy::start(Kind::Envoy, go.address())?;
    let flask = Runtime::start(Serve::Flask)?;
    let nginx = weir_tests::peers::proxy::nginx(flask.address())?;
    let ports = [go.port(), envoy.address().port(), flask.port(), nginx.address().port()];
    let agent = Agent::start(&[])?;
    let rows = script(ROUNDS);
    let errors = rows.iter().filter(|row| row.status.is_some_and(|status| status >= 500)).count() as u64;
    ask(Ask::Requests, &format!("http://{}", envoy.address()), ROUNDS)?;
    ask(Ask::Node, &format!("http://{}", nginx.address()), ROUNDS)?;
    let each = || calls(rows.len() as u64, errors);
    let expected = Edges::from([
        edge("requests_client", "envoy", "http", ports[1], each()),
        edge("envoy", "peer", "http", ports[0], each()),
        edge("http_client", "nginx", "http", ports[3], each()),
        edge("nginx", "flask_app", "http", ports[2], each()),
    ]);
    is(&agent, &ports, &expected)?;
    // The same in the other forms, and as service-graph metrics.
    for form in ["text", "dot", "mermaid"] {
        let said = agent.say(&["graph", "--format", form])?;
        ensure!(said.code == 0 && said.out.contains("flask_app"), "{form}: {} {}", said.out, said.err);
    }
    let page = agent.page()?;
    let relation = [("client", "nginx"), ("server", "flask_app")];
    for (family, value) in [
        ("traces_service_graph_request_total", rows.len() as u64),
        ("traces_service_graph_request_failed_total", errors),
        ("traces_service_graph_request_client_seconds_count", rows.len() as u64),
        ("traces_service_graph_request_server_seconds_count", rows.len() as u64),
    ] {
        ensure!(count(page.sum(family, &relation)) == value, "{family}: {}", page.sum(family, &relation));
    }
    let since = agent.json(&["graph", "--since", "1ns"])?;
    ensure!(since["edges"].as_array().is_some_and(Vec::is_empty), "{since}");
    agent.finish()
}

#[test]
fn what_fails_and_what_is_no_http_are_edges() -> Result<()> {
    let scratch = Scratch::new("redis")?;
    let (redis_port, nobody) = (place::free_port()?, place::free_port()?);
    let mut command = Command::new(program("redis-server")?);
    command.args(["--port", &redis_port.to_string(), "--bind", "127.0.0.1", "--save", ""]).current_dir(scratch.path());
    // Debian's redis-server is a link, and redis writes over its environment: it is named after what it runs.
    let runs = std::fs::canonicalize(program("redis-server")?)?;
    let cache = runs.file_name().and_then(|name| name.to_str()).context("a name")?;
    let redis = Process::start(command, "redis", &scratch)?;
    wait::listening(([127, 0, 0, 1], redis_port).into(), Duration::from_secs(10))?;
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    for _ in 0..3 {
        let refused = process::say(
            Command::new(program("curl")?).args(["-s", &format!("http://127.0.0.1:{nobody}/")]),
            Duration::from_secs(10),
        )?;
        ensure!(refused.code == 7, "curl ended with {}", refused.code);
    }
    for _ in 0..4 {
        let mut ping = Command::new(program("redis-cli")?);
        process::run(ping.args(["-p", &redis_port.to_string(), "ping"]), Duration::from_secs(10))?;
    }
    load::curls(5, &nginx.url("/s/200"))?;
    load::curls(2, &nginx.url("/s/503"))?;
    let client = || vec!["client".to_owned()];
    let expected = Edges::from([
        edge("curl", "nginx", "http", nginx.port(), calls(7, 2)),
        edge(
            "curl",
            "external:127.0.0.1",
            "tcp",
            nobody,
            Edge { connections: 3, failed: 3, observed: client(), ..Edge::default() },
        ),
        edge("redis-cli", cache, "tcp", redis_port, Edge { connections: 4, observed: client(), ..Edge::default() }),
    ]);
    is(&agent, &[nobody, redis_port, nginx.port()], &expected)?;
    // A pool is an edge while it is open.
    let mut pool = Wire::connect(([127, 0, 0, 1], redis_port).into())?;
    pool.send("PING\r\n")?;
    ensure!(pool.read_until(b"\r\n")? == Some(b"+PONG\r\n".to_vec()));
    let open = || -> Result<u64> {
        let graph = agent.json(&["graph"])?;
        let rows = graph["edges"].as_array().context("no edges")?;
        rows.iter().filter(|row| row["server_port"] == redis_port).map(|row| number(row, "open_connections")).sum()
    };
    wait::until(Duration::from_secs(10), "the open connection", || Ok((open()? == 1).then_some(())))?;
    drop(pool);
    wait::until(Duration::from_secs(10), "its end", || Ok((open()? == 0).then_some(())))?;
    drop(redis);
    agent.finish()
}

/// What was said of the one edge to a port: calls, aborted calls, connections, failed ones, classes of errors.
fn fate(agent: &Agent, port: u16) -> Result<Option<Fate>> {
    let graph = agent.json(&["graph"])?;
    let rows = graph["edges"].as_array().context("no edges")?;
    let mut of_port = rows.iter().filter(|row| row["server_port"] == port);
    let Some(row) = of_port.next() else { return Ok(None) };
    ensure!(of_port.next().is_none(), "more than one edge to {port}: {graph}");
    let counts = ["calls", "aborted", "connections", "failed_connections"].map(|key| row[key].as_u64().unwrap_or(99));
    let classes = row["errors_by_class"].as_object().context("no classes")?;
    let classes = classes.iter().map(|(class, count)| format!("{class} {count}")).collect();
    Ok(Some((text(row, "/protocol")?, counts, classes)))
}

type Fate = (String, [u64; 4], Vec<String>);

#[test]
fn what_is_reset_or_never_answered_is_an_edge() -> Result<()> {
    let answering = Server::start(|mut wire| {
        wire.request()?;
        wire.reset()
    })?;
    let silent = Server::start(|mut wire| wire.read_to_end().map(drop))?;
    let rude = Server::start(|mut wire| {
        wire.read_exact(1)?;
        wire.reset()
    })?;
    let (here, there) = (NetNs::new("here")?, NetNs::new("there")?);
    NetNs::cable((&here, "out", &["10.79.0.1/24"]), (&there, "in", &["10.79.0.2/24"]))?;
    there.rules("table ip t { chain c { type filter hook input priority 0; tcp dport 8099 drop; }; }")?;
    let agent = Agent::start(&[])?;
    let curl = |arguments: &[&str], code: i32| -> Result<()> {
        let said = process::say(Command::new(program("curl")?).arg("-s").args(arguments), Duration::from_secs(20))?;
        ensure!(said.code == code, "curl {arguments:?} ended with {}", said.code);
        Ok(())
    };
    // Reset in a call; given up by the client; reset before a call; no answer to the first segment.
    for _ in 0..2 {
        curl(&[&format!("http://{}/", answering.address())], 56)?;
    }
    curl(&["-m", "1", &format!("http://{}/", silent.address())], 28)?;
    let mut wire = Wire::connect(rude.address())?;
    wire.send("?")?;
    ensure!(wire.read_to_end().is_err(), "it was not reset");
    drop(wire);
    let mut never = here.command("curl")?;
    never.args(["-s", "--connect-timeout", "1", "http://10.79.0.2:8099/"]);
    ensure!(process::say(&mut never, Duration::from_secs(20))?.code == 28);
    let http = || "http".to_owned();
    for (port, expected) in [
        (answering.port(), (http(), [2, 2, 0, 0], vec!["reset 2".to_owned()])),
        (silent.port(), (http(), [1, 1, 0, 0], vec!["client_aborted 1".to_owned()])),
        (rude.port(), ("tcp".to_owned(), [0, 0, 1, 0], vec!["connection_reset 1".to_owned()])),
        (8099, ("tcp".to_owned(), [0, 0, 1, 1], vec!["no_answer 1".to_owned()])),
    ] {
        let mut last = None;
        let reached = wait::until(Duration::from_secs(10), "the edge", || {
            last = fate(&agent, port)?;
            Ok((last.as_ref() == Some(&expected)).then_some(()))
        });
        reached.with_context(|| format!("found {last:?}, expected {expected:?}"))?;
    }
    for server in [answering, silent, rude] {
        server.stop()?;
    }
    agent.finish()
}

#[test]
fn the_text_fits_a_terminal() -> Result<()> {
    const NAME: &str = "a-service-whose-name-is-longer-than-a-terminal-of-eighty-columns-can-show-beside-the-rest";
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    let mut curl = Command::new(program("curl")?);
    // Four requests in three seconds: long enough to be named after its environment.
    curl.env("OTEL_SERVICE_NAME", NAME).args(["-s", "--retry", "3", "--retry-delay", "1"]);
    process::run(curl.arg(nginx.url("/s/503")), Duration::from_secs(30))?;
    let row = edge(NAME, "nginx", "http", nginx.port(), calls(4, 4));
    is(&agent, &[nginx.port()], &Edges::from([row]))?;
    // Whole where nothing says how wide it is.
    let said = agent.say(&["graph"])?;
    ensure!(said.code == 0 && said.out.contains(NAME), "{} {}", said.out, said.err);
    let (socket, weir) = (agent.socket(), place::weir()?);
    let line = format!("WEIR_CONTROL__SOCKET={} {} graph\n", socket.display(), weir.display());
    let script = agent.scratch().write("graph.sh", line)?;
    let tmux = Tmux::start(80, 24)?;
    tmux.type_in(&format!("sh {}", script.display()))?;
    tmux.press(&["Enter"])?;
    let over = format!("http:{}", nginx.port());
    let screen = tmux.until("the graph", |screen| screen.has(&over) && screen.last_is("$"))?;
    let rows: Vec<Vec<&str>> = screen.0.iter().map(|line| line.split_whitespace().collect()).collect();
    let cells = rows.iter().find(|row| row.get(2) == Some(&over.as_str())).context("no row in one line")?;
    ensure!(cells.len() == 8 && cells[0].starts_with("a-service-") && cells[0].ends_with('…'), "{cells:?}");
    ensure!(cells[1] == "nginx" && cells[3..6] == ["4", "-", "4"], "{cells:?}");
    let head = ["CLIENT", "SERVER", "OVER", "CALLS", "CONNS", "FAILED", "P50", "P99", "NOTE"];
    ensure!(rows.iter().any(|row| *row == head), "{screen:?}");
    drop(tmux);
    agent.finish()
}

/// A client that names a new host each time makes no graph without bound, and no call is left out.
#[test]
fn a_million_hosts_stay_few_edges() -> Result<()> {
    const HOSTS: u64 = 20_000;
    let server = Server::start(|mut wire| {
        while wire.request()?.is_some() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })?;
    let agent = Agent::start(&["recent.memory=16MiB"])?;
    let mut wire = Wire::connect(server.address())?;
    for at in 0..HOSTS {
        wire.send(format!("GET / HTTP/1.1\r\nHost: h{at}.attack.test\r\n\r\n"))?;
        ensure!(wire.answer("GET")?.status()? == 200);
    }
    wait::until(Duration::from_secs(10), "all calls", || {
        Ok((count(agent.page()?.sum("weir_calls_total", &[])) >= 2 * HOSTS).then_some(()))
    })?;
    let graph = agent.json(&["graph"])?;
    let edges = graph["edges"].as_array().context("no edges")?;
    let of_server = |row: &&Value| row["server_port"] == server.port();
    let told: u64 = edges.iter().filter(of_server).map(|row| number(row, "calls")).sum::<Result<u64>>()?;
    let folded = graph.pointer("/other/calls").and_then(Value::as_u64).unwrap_or(0);
    ensure!(edges.len() <= 2000, "{} edges", edges.len());
    ensure!(told + folded == HOSTS, "{told} calls on edges, {folded} folded");
    drop(wire);
    server.stop()?;
    agent.finish()
}
