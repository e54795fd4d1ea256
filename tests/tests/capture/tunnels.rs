//! A4: CONNECT and Upgrade: what is behind an accepted one is nobody's HTTP, behind a refused one it goes on.

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::script::{Case, Expected, client, play, server};
use weir_tests::truth::{Row, Sides};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// A whole exchange, as it may pass inside a tunnel.
const INNER: [&str; 2] =
    ["GET /inner HTTP/1.1\r\nHost: inner.test\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nin"];

/// Turns that alternate, client first; the calls are those of their rows, each two turns long.
fn case(name: &str, turns: &[&str], rows: Vec<Row>) -> Case {
    let sides = turns.iter().enumerate();
    let mut case =
        Case::none(name, sides.map(|(at, &text)| if at % 2 == 0 { client(text) } else { server(text) }).collect());
    case.calls = rows
        .into_iter()
        .zip(turns.chunks(2))
        .map(|(row, turn)| {
            let size = |at: usize| turn.get(at).map_or(0, |text: &&str| text.len() as u64);
            Expected { row, request_wire: size(0), response_wire: size(1) }
        })
        .collect();
    case
}

fn cases() -> Vec<Case> {
    let connect = "CONNECT inner.test:80 HTTP/1.1\r\nHost: inner.test:80\r\n\r\n";
    let again = "CONNECT inner.test:80 HTTP/1.1\r\nHost: inner.test:80\r\nProxy-Authorization: Basic eDp5\r\n\r\n";
    let upgrade = |to: &str| format!("GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n");
    let switch = |to: &str| format!("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n");
    let (socket, h2c) = ("websocket", "h2c");
    let tunnel = || Row::new("CONNECT", "", 200, 0, 0).ended("upgraded", None);
    let plain = |path: &str| Row::new("GET", path, 200, 0, 2);
    let opened = "HTTP/1.1 200 Connection established\r\n\r\n";
    let refused = |status: u16| format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
    let next = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";
    vec![
        case("a tunnel with HTTP in it", &[connect, opened, INNER[0], INNER[1], INNER[0], INNER[1]], vec![tunnel()]),
        case(
            "a tunnel whose answer has a length that counts for nothing",
            &[connect, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", INNER[0], INNER[1]],
            vec![tunnel()],
        ),
        case(
            "a tunnel with TLS in it",
            &[connect, opened, "\u{16}\u{3}\u{1}\0\u{5}hello", "\u{16}\u{3}\u{3}\0\u{5}world"],
            vec![tunnel()],
        ),
        case(
            "a tunnel refused",
            &[connect, &refused(403), next, OK],
            vec![Row::new("CONNECT", "", 403, 0, 0), plain("/next")],
        ),
        case(
            "a tunnel at the second try",
            &[connect, &refused(407), again, opened, INNER[0], INNER[1]],
            vec![Row::new("CONNECT", "", 407, 0, 0), tunnel()],
        ),
        case(
            "an exchange, then a tunnel",
            &[next, OK, connect, opened, INNER[0], INNER[1]],
            vec![plain("/next"), tunnel()],
        ),
        case(
            "a client that tunnels ahead of the answer",
            &[&format!("{connect}{}", INNER[0]), &format!("{opened}{}", INNER[1])],
            vec![tunnel()],
        ),
        case(
            "an upgrade with text that looks like HTTP",
            &[&upgrade(socket), &switch(socket), INNER[0], INNER[1]],
            vec![Row::new("GET", "/up", 101, 0, 0).ended("upgraded", None)],
        ),
        case("an upgrade not taken", &[&upgrade(socket), OK, next, OK], vec![plain("/up"), plain("/next")]),
        case(
            "an upgrade refused",
            &[&upgrade(socket), &refused(426), next, OK],
            vec![Row::new("GET", "/up", 426, 0, 0), plain("/next")],
        ),
        case(
            "an upgrade to HTTP/2",
            &[
                &upgrade(h2c),
                &switch(h2c),
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
                "\0\0\0\u{4}\u{1}\0\0\0\0",
            ],
            vec![Row::new("GET", "/up", 101, 0, 0).ended("upgraded", None)],
        ),
        case("an upgrade to HTTP/2 not taken", &[&upgrade(h2c), OK, next, OK], vec![plain("/up"), plain("/next")]),
    ]
}

#[test]
fn a4_tunnels_and_upgrades() -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut played = Vec::new();
    for size in [usize::MAX, 20, 1] {
        for case in cases() {
            played.push((play(&case.turns, size)?, size, case));
        }
    }
    let total: usize = played.iter().map(|(.., case)| case.calls.len()).sum();
    let ports: Vec<u16> = played.iter().map(|(port, ..)| *port).collect();
    let calls = agent.calls(&ports, 2 * total)?;
    let mut wrong = Vec::new();
    for (port, size, case) in &played {
        let sides = Sides::of(calls.iter().filter(|call| call.server().port() == *port).cloned().collect());
        let checked = case
            .check(&format!("client, pieces of {size}"), &sides.client)
            .and_then(|()| case.check(&format!("server, pieces of {size}"), &sides.server))
            .and_then(|()| sides.linked());
        wrong.extend(checked.err().map(|error| format!("{error:#}")));
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), played.len(), wrong.join("\n"));
    agent.finish()
}
