//! A5: calls that do not end well: one call each, with the right end, error and partial sizes.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::load::{self, curl};
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::peers::runtime::{Ask, Runtime, Serve, ask, printed, script};
use weir_tests::place;
use weir_tests::process;
use weir_tests::script::{Case, Turn, client, play, server};
use weir_tests::truth::{Row, Sides, same};
use weir_tests::wire::Wire;

fn partial(method: &str, path: &str, status: Option<u16>, sizes: (u64, Option<u64>), end: &str, error: &str) -> Row {
    Row { status, request: Some(sizes.0), response: sizes.1, ..Row::new(method, path, 0, 0, 0).ended(end, Some(error)) }
}

fn cases() -> Vec<Case> {
    let get = || client("GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    let part = || server("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n1234567890");
    let got = |status, size, end, error| partial("GET", "/x", status, (0, size), end, error);
    vec![
        Case::turns(
            "the server closes in a body",
            vec![get(), part(), Turn::ServerFinishes],
            got(Some(200), Some(10), "server_aborted", "server_aborted"),
        ),
        Case::turns(
            "the server closes without an answer",
            vec![get(), Turn::ServerFinishes],
            got(None, None, "server_aborted", "server_aborted"),
        ),
        Case::turns(
            "the server resets in a body",
            vec![get(), part(), Turn::ServerResets],
            got(Some(200), Some(10), "reset", "connection_reset"),
        ),
        Case::turns(
            "the client resets in a response's body",
            vec![get(), part(), Turn::ClientResets],
            got(Some(200), Some(10), "reset", "connection_reset"),
        ),
        Case::turns(
            "the client resets before the answer",
            vec![get(), Turn::ClientResets],
            got(None, None, "reset", "connection_reset"),
        ),
        Case::turns(
            "the client closes before the answer",
            vec![get(), Turn::ClientFinishes],
            got(None, None, "client_aborted", "client_aborted"),
        ),
        Case::turns(
            "the client closes in its own body",
            vec![client("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n12345"), Turn::ClientFinishes],
            partial("POST", "/x", None, (5, None), "client_aborted", "client_aborted"),
        ),
        Case::turns(
            "the server resets in a request's head",
            vec![client("POST /x HTTP/1.1\r\nHost: x\r\nContent-"), Turn::ServerResets],
            Row {
                request: None,
                truncated: true,
                ..partial("POST", "/x", None, (0, None), "reset", "connection_reset")
            },
        ),
        Case::turns(
            "the client has finished, and is answered",
            vec![get(), Turn::ClientFinishes, server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")],
            Row::new("GET", "/x", 200, 0, 2),
        ),
        Case::turns(
            "early 413 while the client still sends",
            vec![
                client("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n12345"),
                server("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
                client("67890"),
                Turn::ServerFinishes,
            ],
            Row::new("POST", "/x", 413, 10, 0),
        ),
    ]
}

#[test]
fn a5_each_end_has_its_word() -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut played = Vec::new();
    for size in [usize::MAX, 7, 1] {
        for case in cases() {
            played.push((play(&case.turns, size)?, size, case));
        }
    }
    let ports: Vec<u16> = played.iter().map(|(port, ..)| *port).collect();
    let calls = agent.calls(&ports, 2 * played.len())?;
    let mut wrong = Vec::new();
    for (port, size, case) in &played {
        let sides = Sides::of(calls.iter().filter(|call| call.server().port() == *port).cloned().collect());
        let checked = case
            .check(&format!("client, pieces of {size}"), &sides.client)
            .and_then(|()| case.check(&format!("server, pieces of {size}"), &sides.server))
            .and_then(|()| sides.linked());
        wrong.extend(checked.err().map(|error| format!("{error:#}")));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    agent.finish()
}

/// Answers that can't be read, or whose end is not where they say: the answers behind them stay with their requests.
fn crooked() -> Vec<Case> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let (first, last) = ("HTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 201 Yes\r\nContent-Length: 1\r\n\r\nx");
    let around = |name: &str, answer: &str, row: Row| {
        Case::joined(
            name,
            vec![
                Case::one("before", get("/1"), first, Row::new("GET", "/1", 204, 0, 0)),
                Case::one("it", get("/2"), answer, row),
                Case::one("behind", get("/3"), last, Row::new("GET", "/3", 201, 0, 1)),
                Case::one("last", get("/4"), first, Row::new("GET", "/4", 204, 0, 0)),
            ],
        )
    };
    let unread = || partial("GET", "/2", None, (0, None), "complete", "malformed_response");
    vec![
        around("a status of two digits", "HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n", unread()),
        around("a status of four digits", "HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n", unread()),
        around("a line that is none", "well\r\n\r\n", unread()),
        around(
            "identity beside a length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
            Row::new("GET", "/2", 200, 0, 3),
        ),
    ]
}

#[test]
fn a5_behind_a_crooked_answer_each_keeps_its_own() -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut played = Vec::new();
    // An answer whose first byte came alone is not yet known to be HTTP: behind it a line that is none ends the watch.
    for size in [usize::MAX, 7] {
        for case in crooked() {
            played.push((play(&case.turns, size)?, case));
        }
    }
    let ports: Vec<u16> = played.iter().map(|(port, _)| *port).collect();
    let calls = agent.calls(&ports, 8 * played.len())?;
    for (port, case) in &played {
        let sides = Sides::of(calls.iter().filter(|call| call.server().port() == *port).cloned().collect());
        case.check("client", &sides.client)?;
        case.check("server", &sides.server)?;
        sides.linked()?;
    }
    agent.finish()
}

#[test]
fn a5_nginx_refuses_a_large_body_early() -> Result<()> {
    let nginx = Nginx::start(&Setup { server: "client_max_body_size 1k;", ..Setup::default() })?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut wire = Wire::connect(nginx.address())?;
    wire.send("POST /s/200 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")?;
    wire.send("x".repeat(1000))?;
    let answer = wire.answer("POST")?;
    assert_eq!(answer.status()?, 413);
    drop(wire);
    let sides = Sides::of(agent.calls(&[nginx.port()], 2)?);
    sides.are(&[Row::new("POST", "/s/200", 413, 1000, answer.body.len() as u64)])?;
    agent.finish()
}

#[test]
fn a5_curl_gives_up_and_a_server_that_never_answers() -> Result<()> {
    let silent = weir_tests::wire::Server::start(|mut wire| {
        wire.request()?;
        wire.read_to_end().map(drop)
    })?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut command = std::process::Command::new(place::program("curl")?);
    command.args(["-s", "-m", "1", &format!("http://{}/never", silent.address())]);
    assert_eq!(process::say(&mut command, Duration::from_secs(5))?.code, 28);
    let calls = agent.calls(&[silent.port()], 2)?;
    for call in &calls {
        assert!((900_000_000..2_000_000_000).contains(&call.duration_ns), "{call:?}");
    }
    Sides::of(calls).are(&[partial("GET", "/never", None, (0, None), "client_aborted", "client_aborted")])?;
    silent.stop()?;
    agent.finish()
}

#[test]
fn a5_a_refused_connection_is_no_call() -> Result<()> {
    let agent = Agent::start(&[])?;
    let port = place::free_port()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert!(TcpStream::connect(address).is_err());
    assert!(curl(&[&format!("http://{address}/")]).is_err());
    assert_eq!(agent.calls(&[port], 0)?.len(), 0);
    assert_eq!(agent.connections(port)?, Vec::<serde_json::Value>::new());
    agent.finish()
}

/// The same work with and without Weir: what clients print and what servers log is the same, byte for byte.
#[test]
fn a5_applications_do_not_notice() -> Result<()> {
    let run = || -> Result<Vec<String>> {
        let mut seen = Vec::new();
        for (serve, client) in [(Serve::Go, Ask::Requests), (Serve::Flask, Ask::Node), (Serve::Node, Ask::Go)] {
            let server = Runtime::start(serve)?;
            let (_, lines) = ask(client, &server.url(), 30)?;
            assert_eq!(lines, printed(&script(30)));
            let logged = server.logged(120)?;
            // The client's port, last on a line, differs from run to run.
            seen.extend(logged.iter().filter_map(|line| line.rsplit_once(' ')).map(|(line, _)| line.to_owned()));
            seen.push(lines);
        }
        let nginx = Nginx::plain()?;
        seen.push(curl(&["-D", "-", "-H", "Range: bytes=10-50", &nginx.url("/f/65536")])?);
        assert_eq!(load::ab(2000, 8, true, &nginx.url("/f/4096"))?.errors, 0);
        seen.extend(nginx.logged(2001)?.iter().map(|line| format!("{} {} {}", line.target, line.status, line.sent)));
        Ok(seen.iter().map(|text| without(text, &["Date:", "Last-Modified:", "ETag:"])).collect())
    };
    let without = run()?;
    let agent = Agent::start(&["enforce.mode=enforce"])?;
    let with = run()?;
    agent.finish()?;
    same("with Weir", &with, &without)
}

fn without(text: &str, fields: &[&str]) -> String {
    text.lines().filter(|line| !fields.iter().any(|field| line.starts_with(field))).collect::<Vec<_>>().join("\n")
}
