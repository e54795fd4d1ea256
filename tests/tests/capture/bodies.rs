//! A4: bodies of every framing, interim responses, and bodies that look like HTTP.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::load::curl;
use weir_tests::peers::nginx::Nginx;
use weir_tests::peers::runtime::{Runtime, Serve};
use weir_tests::script::{self, Case, Turn, client, server};
use weir_tests::truth::{Row, Sides};

/// Bytes that look like requests and responses.
fn tempting(size: usize) -> Vec<u8> {
    let text = b"GET /phantom HTTP/1.1\r\nHost: phantom\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nPOST /phantom HTTP/1.1\r\n\r\n";
    text.iter().copied().cycle().take(size).collect()
}

fn with(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), body].concat()
}

fn chunked(body: &[u8], piece: usize, extension: &str, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(piece) {
        out.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
    }
    out.extend(format!("0{extension}\r\n{trailers}\r\n").into_bytes());
    out
}

/// Cases after which the connection goes on.
fn lasting() -> Vec<Case> {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut cases = Vec::new();
    for size in [0, 1, 100, 511, 512, 513, 4096] {
        let (body, path) = (tempting(size), format!("/length/{size}"));
        let length = body.len() as u64;
        cases.push(Case::one(
            &format!("upload {size}"),
            with(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"), &body),
            ok,
            Row::new("POST", &path, 200, length, 2),
        ));
        cases.push(Case::one(
            &format!("download {size}"),
            format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
            with(&format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"), &body),
            Row::new("GET", &path, 200, 0, length),
        ));
        for (piece, extension, trailers) in [(7, "", ""), (1000, ";a=b;c=\"d\"", "Trailer: x\r\nSecond: y\r\n")] {
            let body = chunked(&body, piece, extension, trailers);
            cases.push(Case::one(
                &format!("chunked upload {size} by {piece}"),
                with(&format!("PUT {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"), &body),
                ok,
                Row::new("PUT", &path, 200, length, 2),
            ));
            cases.push(Case::one(
                &format!("chunked download {size} by {piece}"),
                format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
                with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &body),
                Row::new("GET", &path, 200, 0, length),
            ));
        }
    }
    cases.extend(bodiless());
    cases.extend(interim());
    cases
}

/// Responses without a body by rule, whatever their fields say.
fn bodiless() -> Vec<Case> {
    vec![
        Case::one(
            "HEAD",
            "HEAD /head HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
            Row::new("HEAD", "/head", 200, 0, 0),
        ),
        Case::one(
            "HEAD chunked",
            "HEAD /head HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Row::new("HEAD", "/head", 200, 0, 0),
        ),
        Case::one(
            "204",
            "DELETE /thing HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            Row::new("DELETE", "/thing", 204, 0, 0),
        ),
        Case::one(
            "304",
            "GET /known HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 300\r\nETag: \"e\"\r\n\r\n",
            Row::new("GET", "/known", 304, 0, 0),
        ),
    ]
}

/// 1xx before the final response, and `Expect`.
fn interim() -> Vec<Case> {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let processing = "HTTP/1.1 102 Processing\r\n\r\n";
    let ready = "HTTP/1.1 100 Continue\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let expect = "POST /expect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let row = |status, sent| Row::new("POST", "/expect", status, sent, if status == 200 { 2 } else { 0 });
    vec![
        Case::one(
            "103 and 102 first",
            "GET /hints HTTP/1.1\r\nHost: x\r\n\r\n",
            format!("{early}{processing}{ok}"),
            Row::new("GET", "/hints", 200, 0, 2),
        )
        .interim(early.len() + processing.len()),
        Case::turns("100 accepted", vec![client(expect), server(ready), client("12345"), server(ok)], row(200, 5))
            .interim(ready.len()),
        Case::turns("100 accepted late", vec![client(expect), client("12345"), server(ready), server(ok)], row(200, 5))
            .interim(ready.len()),
        Case::turns("final without 100, body sent", vec![client(expect), server(ok), client("12345")], row(200, 5)),
        Case::turns(
            "417, body withheld",
            vec![client(expect), server("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")],
            row(417, 0),
        ),
    ]
}

/// Cases that end their connection.
fn last() -> Vec<Case> {
    let body = tempting(3000);
    let until_close = |name: &str, version: &str, body: &[u8]| {
        Case::turns(
            name,
            vec![
                client(format!("GET /close HTTP/{version}\r\nHost: x\r\n\r\n")),
                server(with(&format!("HTTP/{version} 200 OK\r\n\r\n"), body)),
                Turn::ServerFinishes,
            ],
            Row::new("GET", "/close", 200, 0, body.len() as u64),
        )
    };
    vec![
        until_close("until close, 1.0", "1.0", &body),
        until_close("until close, 1.1", "1.1", &body),
        until_close("until close, empty", "1.1", b""),
        Case::turns(
            "upgrade",
            vec![
                client("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
                server("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            ],
            Row::new("GET", "/chat", 101, 0, 0).ended("upgraded", None),
        ),
    ]
}

fn check(agent: &Agent, played: &[(u16, usize, Case)]) -> Result<()> {
    let total: usize = played.iter().map(|(.., case)| case.calls.len()).sum();
    let ports: Vec<u16> = played.iter().map(|(port, ..)| *port).collect();
    let calls = agent.calls(&ports, 2 * total)?;
    let mut wrong = Vec::new();
    for (port, size, case) in played {
        let sides = Sides::of(calls.iter().filter(|call| call.server().port() == *port).cloned().collect());
        let checked = case
            .check(&format!("client, pieces of {size}"), &sides.client)
            .and_then(|()| case.check(&format!("server, pieces of {size}"), &sides.server))
            .and_then(|()| sides.linked());
        wrong.extend(checked.err().map(|error| format!("{error:#}")));
    }
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), played.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn a4_framings_each_on_its_connection() -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut played = Vec::new();
    for size in [usize::MAX, 100, 1] {
        for case in lasting().into_iter().chain(last()) {
            played.push((script::play(&case.turns, size)?, size, case));
        }
    }
    check(&agent, &played)?;
    agent.finish()
}

#[test]
fn a4_framings_one_after_another() -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut played = Vec::new();
    for size in [usize::MAX, 100, 1] {
        for end in last() {
            let case = Case::joined(&end.name.clone(), [lasting(), vec![end]].concat());
            played.push((script::play(&case.turns, size)?, size, case));
        }
    }
    check(&agent, &played)?;
    agent.finish()
}

#[test]
fn a4_megabytes_that_look_like_requests() -> Result<()> {
    const SIZE: usize = 5 << 20;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let body = tempting(SIZE);
    let mut played = Vec::new();
    // Pieces that begin exactly where a request line does.
    for size in [usize::MAX, 1460, tempting(1 << 20).len() / 8192 * 107] {
        let upload = Case::one(
            "5 MiB up",
            with(&format!("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"), &body),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Row::new("POST", "/up", 200, SIZE as u64, 2),
        );
        let download = Case::one(
            "5 MiB down",
            "GET /down HTTP/1.1\r\nHost: x\r\n\r\n",
            with(&format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"), &body),
            Row::new("GET", "/down", 200, 0, SIZE as u64),
        );
        let case = Case::joined("5 MiB up and down, twice", vec![upload.clone(), download.clone(), upload, download]);
        played.push((script::play(&case.turns, size)?, size, case));
    }
    check(&agent, &played)?;
    agent.finish()
}

fn file(agent: &Agent, size: usize) -> Result<std::path::PathBuf> {
    agent.scratch().write("body", tempting(size))
}

#[test]
fn a4_100_megabytes_by_real_programs() -> Result<()> {
    const SIZE: usize = 100_000_000;
    let go = Runtime::start(Serve::Go)?;
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let path = file(&agent, SIZE)?;
    nginx.link("big", &path)?;
    let back = agent.scratch().join("back");
    let (at, to) = (format!("@{}", path.display()), back.display().to_string());
    curl(&["-o", &to, "--data-binary", &at, "-H", "Expect: 100-continue", &format!("{}/echo", go.url())])?;
    same_file(&path, &back)?;
    curl(&["-o", &to, &nginx.url("/f/big")])?;
    same_file(&path, &back)?;
    let calls = agent.calls(&[go.port(), nginx.port()], 4)?;
    let (echo, file): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.server().port() == go.port());
    Sides::of(echo).are(&[Row::new("POST", "/echo", 200, SIZE as u64, SIZE as u64)])?;
    Sides::of(file).are(&[Row::new("GET", "/f/big", 200, 0, SIZE as u64)])?;
    agent.finish()
}

fn same_file(one: &Path, two: &Path) -> Result<()> {
    let mut command = std::process::Command::new("cmp");
    weir_tests::process::run(command.arg(one).arg(two), Duration::from_secs(30)).map(drop)
}
