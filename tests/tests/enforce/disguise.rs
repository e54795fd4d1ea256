//! E2: the same request in other segments: behind extension headers of IPv6, with bytes that TCP leaves out, more in one
//! segment than is read in one run, on connections that are older than the rule.

use std::os::fd::AsFd as _;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::net::SendFlags;
use weir_tests::netns::NetNs;
use weir_tests::peers::apache::{Apache, Mpm};
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::peers::runtime::{Runtime, Serve};
use weir_tests::wire::Wire;
use weir_tests::{place, process};

use super::{enforcing, refused, rule};

const HOST: &str = "Host: a\r\n";

/// Whether these bytes, sent at once, are all answered: as many answers as there are requests.
fn answers(nginx: &Nginx, bytes: &str) -> Result<usize> {
    let mut wire = Wire::connect(nginx.address())?;
    let _ = wire.send(bytes);
    let _ = wire.finish();
    let mut count = 0;
    while wire.answer("GET").is_ok() {
        count += 1;
    }
    Ok(count)
}

/// A segment is read to its end, whatever it is made of.
#[test]
fn nothing_hides_behind_much() -> Result<()> {
    let nginx = Nginx::start(&Setup { server: "large_client_header_buffers 8 64k;", ..Setup::default() })?;
    let agent = enforcing(&[])?;
    rule(&agent, "admin", &["--path", "/admin", "--port", &nginx.port().to_string()])?;
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\n{HOST}{fields}\r\n");
    let (good, bad) = (get("/good", ""), get("/admin", ""));
    let chunks = |count: usize| {
        let body = "1\r\nx\r\n".repeat(count);
        format!("POST /good HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n")
    };
    for (name, bytes) in [
        ("segments", get(&format!("/admin{}", "/a".repeat(900)), "")),
        ("escapes", get(&format!("/admin/{}", "%61".repeat(600)), "")),
        ("segments that are left again", get(&format!("{}{}/admin", "/a".repeat(300), "/..".repeat(300)), "")),
        ("a long field", get("/admin", &format!("X: {}\r\n", "a".repeat(30_000)))),
        ("long fields", get("/admin", &format!("X: {}\r\n", "a".repeat(7900)).repeat(3))),
        ("requests", format!("{}{bad}", good.repeat(200))),
        ("chunks", format!("{}{bad}", chunks(600))),
    ] {
        ensure!(answers(&nginx, &bytes)? == 0, "behind {name}, it was answered");
    }
    // A first piece of a head that was refused later is told as a client that went away.
    let log = nginx.log()?;
    ensure!(log.iter().all(|line| line.status == 400), "{log:#?}");
    // As much of it that is good is answered.
    ensure!(answers(&nginx, &good.repeat(200))? == 200);
    ensure!(answers(&nginx, &format!("{}{good}", chunks(600)))? == 2);
    let gate = &agent.json(&["mode"])?["gate"];
    ensure!(gate["segments_unread"] == 0 && gate["segments_damaged"] == 0, "{gate}");
    agent.finish()
}

/// The urgent byte is no byte of the stream that servers read.
#[test]
fn urgent_bytes_are_left_out() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    rule(&agent, "admin", &["--path", "/admin", "--port", &port])?;
    // nginx may wait for ever where what is behind the urgent byte comes before it has read what is in front, without an
    // agent too: who is to be answered waits a moment, and tries again.
    let say = |pieces: [&str; 3], pause: Duration| -> Result<bool> {
        let mut wire = Wire::connect(nginx.address())?;
        let [before, urgent, after] = pieces;
        wire.send(before)?;
        rustix::net::send(wire.stream().as_fd(), urgent.as_bytes(), SendFlags::OOB)?;
        sleep(pause);
        let _ = wire.send(after);
        Ok(wire.answer("GET").is_ok())
    };
    let answered = |pieces: [&str; 3]| -> Result<bool> {
        for _ in 0..3 {
            if say(pieces, Duration::from_millis(50))? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let head = |target: &str| format!("GET {target} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
    let (bad, good) = (head("/admin"), head("/good"));
    for cut in 1..bad.len() {
        let (before, after) = bad.split_at(cut);
        // Sent together, or one after another.
        ensure!(
            !say([before, "X", after], Duration::from_millis(5 * (cut as u64 % 2)))?,
            "with an urgent byte behind {before:?}, it was answered"
        );
    }
    ensure!(nginx.log()?.iter().all(|line| line.status == 400), "{:#?}", nginx.log()?);
    let logged = nginx.log()?.len();
    for cut in [4, 7, 20] {
        let (before, after) = good.split_at(cut);
        ensure!(answered([before, "X", after])?, "with an urgent byte behind {before:?}, it was dropped");
    }
    let body = format!("POST /good HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nab");
    // The body may be answered before it is whole; what stands behind it is not.
    say([&body, "X", &format!("cd{bad}")], Duration::ZERO)?;
    ensure!(nginx.log()?.iter().skip(logged).all(|line| line.target.starts_with("/good")), "{:#?}", nginx.log()?);
    // Some server may read it in its place.
    rule(&agent, "strict", &["--path", "/other", "--strict", "--port", &port])?;
    ensure!(!say([&good[..7], "X", &good[7..]], Duration::from_millis(50))?, "it is ambiguous, and was answered");
    agent.finish()
}

/// What TCP finds behind extension headers, the rules find too; behind more than any stack sends, nothing passes.
#[test]
fn extension_headers_hide_nothing() -> Result<()> {
    let netns = NetNs::new("ext")?;
    netns.rules(
        "table ip6 t { chain o { type filter hook output priority 0; tcp sport 40000-40099 tcp flags rst drop; }; }",
    )?;
    let nginx = Nginx::start(&Setup { listen: &["[::1]:PORT"], netns: Some(&netns), ..Setup::default() })?;
    let agent = enforcing(&[])?;
    rule(&agent, "admin", &["--path", "/admin", "--port", &nginx.port().to_string()])?;
    let ask = |path: &str, chains: &[String]| -> Result<String> {
        let mut command = netns.command("env")?;
        command.arg(place::cached("venv/bin/python")?).arg(place::sources().join("peers/python/headers.py"));
        command.args(["::1", &nginx.port().to_string(), path]).args(chains);
        process::run(&mut command, Duration::from_mins(1))
    };
    let many = |count: usize| vec!["60"; count].join(",");
    let chains =
        ["-".to_owned(), "60".to_owned(), "44".to_owned(), "0,60,43,60".to_owned(), "44,60".to_owned(), many(5)];
    let told = ask("/good", &chains)?;
    ensure!(told.lines().all(|line| !line.ends_with(" 0")) && told.lines().count() == chains.len(), "{told}");
    ensure!(nginx.logged(chains.len())?.len() == chains.len());
    let hidden = [&chains[..], &[many(6), many(40)]].concat();
    let told = ask("/admin", &hidden)?;
    ensure!(told.lines().all(|line| line.ends_with(" 0")) && told.lines().count() == hidden.len(), "{told}");
    ensure!(nginx.log()?.len() == chains.len(), "{:#?}", nginx.log()?);
    let gate = &agent.json(&["mode"])?["gate"];
    ensure!(gate["segments_unread"] == 2, "what was not readable is counted: {gate}");
    agent.stop_lossy()
}

/// The first request after a rule, on a connection that was answered before there were rules at all.
#[test]
fn connections_are_read_that_are_older_than_the_rule() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{HOST}\r\n");
    let mut old = Vec::new();
    for before in [1, 1, 3, 3] {
        let mut wire = Wire::connect(nginx.address())?;
        for _ in 0..before {
            wire.send(get("/good"))?;
            wire.answer("GET").context("before the rule")?;
        }
        old.push(wire);
    }
    rule(&agent, "admin", &["--path", "/admin", "--port", &port])?;
    for (at, mut wire) in old.into_iter().enumerate() {
        if at % 2 == 1 {
            wire.send(get("/good"))?;
            ensure!(wire.answer("GET")?.status()? == 404);
        }
        wire.send(get("/admin"))?;
        refused(&mut wire).with_context(|| format!("connection {at}"))?;
    }
    ensure!(nginx.logged(10)?.len() == 10, "{:#?}", nginx.log()?);
    agent.finish()
}

/// Go reads no chunks of HTTP/1.0, and takes a path behind a scheme alone; Apache and Python's WSGI any method.
#[test]
fn what_other_servers_make_of_it() -> Result<()> {
    let go = Runtime::start(Serve::Go)?;
    let apache = Apache::start(Mpm::Event)?;
    let agent = enforcing(&[])?;
    let ask = |address, request: &str| -> Result<bool> {
        let mut wire = Wire::connect(address)?;
        let _ = wire.send(request);
        Ok(wire.answer("GET").is_ok())
    };
    let apache_address = ([127, 0, 0, 1], apache.port()).into();
    rule(&agent, "go", &["--path", "/fixed", "--port", &go.port().to_string()])?;
    rule(&agent, "apache", &["--path", "/f/1", "--port", &apache.port().to_string()])?;
    for target in ["x:/fixed/1", "http:/fixed/1", "foo://a/fixed/1", "x:/a/..//fixed/1"] {
        ensure!(!ask(go.address(), &format!("GET {target} HTTP/1.1\r\n{HOST}\r\n"))?, "{target} was answered");
    }
    for (method, target) in [("G@T", "/f/1"), ("[GET", "/f/1"), ("GET", "ftp://a/f/1"), ("GET", "y:/f/1")] {
        // Accepted with the first one: what comes with the handshake is refused unanswered.
        let mut wire = Wire::connect(apache_address)?;
        wire.send(format!("GET /f/100 HTTP/1.1\r\n{HOST}\r\n"))?;
        ensure!(wire.answer("GET")?.status()? == 200);
        let _ = wire.send(format!("{method} {target} HTTP/1.1\r\n{HOST}\r\n"));
        refused(&mut wire).with_context(|| format!("{method} {target}"))?;
    }
    rule(&agent, "strict", &["--path", "/none", "--strict", "--port", &go.port().to_string()])?;
    let old = |version: &str, line: &str| {
        let head =
            format!("POST /echo HTTP/{version}\r\n{HOST}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n");
        ask(go.address(), &format!("{head}{line}"))
    };
    ensure!(!old("1.0", "a /status/200 HTTP/1.1\r\nHost: a\r\n\r\n")?, "chunks of HTTP/1.0 were answered");
    ensure!(!old("1.1", "a x\r\n0123456789\r\n0\r\n\r\n")?, "a word in a chunk's size was answered");
    ensure!(old("1.1", "a ;x=y\r\n0123456789\r\n0\r\n\r\n")?, "an extension of a chunk was dropped");
    agent.finish()
}
