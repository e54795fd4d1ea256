//! A6: heads that are cut, long, folded, odd or no HTTP at all.

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::script::{Case, client, play, server};
use weir_tests::truth::{Row, Sides};

/// Bytes of a target that are kept in any case.
const LEAST: usize = 256;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A request whose path is kept, answered by 200 with two bytes.
fn answered(name: &str, request: impl Into<Vec<u8>>, method: &str, path: &str) -> Case {
    Case::one(name, request, OK, Row::new(method, path, 200, 0, 2))
}

fn long(name: &str, field: &str, count: usize, size: usize) -> Case {
    let value = "v".repeat(size);
    let fields: String = (0..count).map(|at| format!("{field}-{at}: {value}\r\n")).collect::<Vec<_>>().concat();
    cuttable(answered(name, format!("GET /long HTTP/1.1\r\nHost: x\r\n{fields}\r\n"), "GET", "/long"))
}

/// Whether a head longer than the window has to be cut is a matter of how it comes in segments.
fn cuttable(mut case: Case) -> Case {
    for call in &mut case.calls {
        call.row.truncated = true;
    }
    case
}

fn legal() -> Vec<Case> {
    let target = format!("/{}", "t".repeat(8000));
    vec![
        answered("plain", "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n", "GET", "/plain"),
        answered("empty lines first", "\r\n\r\nGET /late HTTP/1.1\r\nHost: x\r\n\r\n", "GET", "/late"),
        answered("bare LF", "GET /lf HTTP/1.1\nHost: x\n\n", "GET", "/lf"),
        answered("obs-fold", "GET /fold HTTP/1.1\r\nHost: x\r\nX-Long: a\r\n b\r\n\tc\r\n\r\n", "GET", "/fold"),
        answered("lower-case method", "get /lower HTTP/1.1\r\nHost: x\r\n\r\n", "get", "/lower"),
        answered("unknown method", "BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", "BREW", "/pot"),
        answered("WebDAV", "PROPFIND /dav HTTP/1.1\r\nHost: x\r\nDepth: 1\r\n\r\n", "PROPFIND", "/dav"),
        answered("absolute form", "GET http://shop.test/abs HTTP/1.1\r\nHost: shop.test\r\n\r\n", "GET", "/abs"),
        answered("HTTP/1.7", "GET /seven HTTP/1.7\r\nHost: x\r\n\r\n", "GET", "/seven"),
        answered("no fields at all", "GET /bare HTTP/1.0\r\n\r\n", "GET", "/bare"),
        answered("asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS", ""),
        cuttable(answered("long target", format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), "GET", &target)),
        Case::one(
            "no reason",
            "GET /reason HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 418\r\nContent-Length: 0\r\n\r\n",
            Row::new("GET", "/reason", 418, 0, 0),
        ),
        Case::one(
            "answer with bare LF",
            "GET /lf HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            Row::new("GET", "/lf", 200, 0, 2),
        ),
        long("8 KiB of fields", "X-Eight", 8, 1000),
        long("16 KiB in one field", "X-Sixteen", 1, 16_000),
        long("64 KiB of fields", "X-Many", 32, 2000),
        long("300 fields", "X-Field", 300, 20),
    ]
}

fn not_http() -> Vec<Case> {
    let none = |name: &str, request: &str, answer: &str| Case::none(name, vec![client(request), server(answer)]);
    vec![
        none("HTTP/0.9", "GET /old\r\n", "<html>old</html>"),
        none("no version", "GET /x\r\nHost: x\r\n\r\n", OK),
        none("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\u{4}\0\0\0\0\0"),
        none("a text protocol", "HELO there\r\nMAIL FROM:<a@b>\r\n", "250 OK\r\n"),
        none("a request inside other bytes", "\u{1}\u{2}\u{3}GET / HTTP/1.1\r\nHost: x\r\n\r\n", OK),
        none("RTSP", "OPTIONS rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n", "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"),
        none("SIP", "OPTIONS sip:a@b SIP/2.0\r\n\r\n", "SIP/2.0 200 OK\r\n\r\n"),
        none("ICAP", "OPTIONS icap://x/ ICAP/1.0\r\nHost: x\r\n\r\n", "ICAP/1.0 200 OK\r\n\r\n"),
        Case::none(
            "the server speaks first",
            vec![server("220 ready\r\n"), client("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
        ),
    ]
}

/// Plays all and compares.
fn check(cases: Vec<Case>, sizes: &[usize]) -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut played = Vec::new();
    for case in cases.into_iter().filter(|case| !case.turns.is_empty()) {
        for &size in sizes {
            played.push((play(&case.turns, size)?, size, case.clone()));
        }
    }
    let ports: Vec<u16> = played.iter().map(|(port, ..)| *port).collect();
    let total: usize = played.iter().map(|(.., case)| case.calls.len()).sum();
    let calls = agent.calls(&ports, 2 * total)?;
    let mut wrong = Vec::new();
    for (port, size, case) in &played {
        let sides = Sides::of(calls.iter().filter(|call| call.server().port() == *port).cloned().collect());
        for (name, side) in [("client", &sides.client), ("server", &sides.server)] {
            let mut case = case.clone();
            // Marked as cut only where the case allows it, and then it is the agent who says; a cut target is a prefix.
            if let (Some(expected), Some(found)) = (case.calls.first_mut(), side.first()) {
                expected.row.truncated &= found.truncated;
                let kept = found.attributes.path.as_deref().map_or(0, str::len);
                if expected.row.truncated && kept >= LEAST {
                    expected.row.path.truncate(kept);
                }
            }
            wrong
                .extend(case.check(&format!("{name}, pieces of {size}"), side).err().map(|error| format!("{error:#}")));
        }
        wrong.extend(sides.linked().err().map(|error| format!("{}: {error:#}", case.name)));
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), played.len(), wrong.join("\n"));
    agent.finish()
}

#[test]
fn a6_legal_and_lenient_heads() -> Result<()> {
    check(legal(), &[usize::MAX, 1000, 1])
}

#[test]
fn a6_what_is_not_http_is_no_call() -> Result<()> {
    check(not_http(), &[usize::MAX, 1])
}

#[test]
fn a6_split_at_every_byte() -> Result<()> {
    let request = "POST /split HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let cases = (1..request.len()).map(|at| {
        let (first, second) = request.split_at(at);
        let turns = vec![client(first), client(second), server(OK)];
        Case::turns(&format!("split at {at}"), turns, Row::new("POST", "/split", 200, 3, 2))
    });
    let mut cases: Vec<Case> = cases.collect();
    cases.extend((1..OK.len()).map(|at| {
        let (first, second) = OK.split_at(at);
        let turns = vec![client(request), server(first), server(second)];
        Case::turns(&format!("answer split at {at}"), turns, Row::new("POST", "/split", 200, 3, 2))
    }));
    check(cases, &[usize::MAX])
}

/// An answer's head of 8 KiB in one segment with its body: cut behind 4 KiB, unless the configuration asks for more.
#[test]
fn a6_long_heads_of_answers_and_the_window() -> Result<()> {
    let (field, body) = ("v".repeat(8000), "b".repeat(20_000));
    let answer = format!("HTTP/1.1 203 Ok\r\nX-Long: {field}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let turns = [client("GET /long HTTP/1.1\r\nHost: x\r\n\r\n"), server(answer.clone())];
    for (settings, truncated, size) in [
        (&["privacy.level=standard"][..], true, None),
        (&["privacy.level=standard", "kernel.window=16KiB"], false, Some(20_000)),
    ] {
        let agent = Agent::start(settings)?;
        let port = play(&turns, usize::MAX)?;
        let sides = Sides::of(agent.calls(&[port], 2)?);
        sides.are(&[Row { truncated, response: size, ..Row::new("GET", "/long", 203, 0, 0) }])?;
        for call in sides.client.iter().chain(&sides.server) {
            let wire = call.attributes.response_wire;
            ensure!(size.is_some() || wire == Some(answer.len() as u64), "{settings:?}: {call:?}");
        }
        agent.finish()?;
    }
    Ok(())
}
