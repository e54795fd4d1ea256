//! E2: the same request in other clothes. nginx is the judge of what a request is.

use std::net::TcpListener;
use std::sync::mpsc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use weir_tests::netns::NetNs;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::tun::{Relay, TWO, Weather, happened};
use weir_tests::wire::{Server, Wire};

use super::{enforcing, refused, rule};

const HOST: &str = "Host: a\r\n";

/// Sends `bytes` in pieces of `size`, and gives the statuses of the answers up to the connection's end.
fn statuses(nginx: &Nginx, bytes: &[u8], size: usize) -> Result<Vec<u16>> {
    let mut wire = Wire::connect(nginx.address())?;
    // A refused connection is reset while it is still sent on.
    let _ = wire.send_by(size, bytes);
    let _ = wire.finish();
    let mut out = Vec::new();
    while let Ok(answer) = wire.answer("GET") {
        out.push(answer.status()?);
    }
    Ok(out)
}

fn paths(nginx: &Nginx) -> Result<Vec<String>> {
    Ok(nginx.log()?.into_iter().map(|line| line.target).collect())
}

/// What nginx takes for a request below /admin is refused in every spelling that the rule's table names.
#[test]
fn no_spelling_of_a_path_slips_past() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    rule(&agent, "admin", &["--path", "/admin", "--port", &nginx.port().to_string()])?;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
    let refused = [
        get("/admin"),
        get("/admin/"),
        get("/admin/x/y"),
        get("/admin?a=/public"),
        get("//admin"),
        get("/%61dmin"),
        get("/%61%64%6d%69%6E"),
        get("/./admin"),
        get("/public/../admin"),
        get("/public/%2e%2e/admin"),
        get("/a/b/../../admin"),
        get("/../admin"),
        get("http://a/admin"),
        get("http://a:80//admin"),
        get("HTTP://user@a/admin"),
        get("foo://a/admin"),
        get("a+b-c.1://a//admin?x"),
        "GET /admin\r\n".to_owned(),
        "GET /admin HTTP/1.0\r\n\r\n".to_owned(),
        format!("GET /admin HTTP/1.1\n{}\n", HOST.replace('\r', "")),
        format!("\r\n\r\n{}", get("/admin")),
        format!("FOO /admin HTTP/1.1\r\n{HOST}\r\n"),
        format!("POST /admin HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc"),
    ];
    for request in &refused {
        let got = statuses(&nginx, request.as_bytes(), usize::MAX)?;
        ensure!(got.is_empty(), "{request:?} was answered with {got:?}");
    }
    ensure!(nginx.log()?.is_empty(), "{:?}", paths(&nginx)?);
    let passed = [get("/adminx"), get("/public/admin"), get("/admin/../public"), get("/?/admin"), get("/%61dminx")];
    for request in &passed {
        let got = statuses(&nginx, request.as_bytes(), usize::MAX)?;
        ensure!(got == [404] || got == [200], "{request:?} was answered with {got:?}");
    }
    ensure!(nginx.logged(passed.len())?.len() == passed.len());
    agent.finish()
}

/// However the segments are cut, and wherever on a connection it comes.
#[test]
fn no_place_on_a_connection_slips_past() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    rule(&agent, "admin", &["--path", "/admin", "--port", &nginx.port().to_string()])?;
    let good = format!("GET /good HTTP/1.1\r\n{HOST}\r\n");
    let bad = format!("GET /admin HTTP/1.1\r\n{HOST}\r\n");
    let mut good_ones = 0;

    // In two pieces, cut at every byte, and a byte at a time.
    for cut in 1..bad.len() {
        let mut wire = Wire::connect(nginx.address())?;
        wire.send(&bad.as_bytes()[..cut])?;
        if cut % 8 == 0 {
            sleep(Duration::from_millis(2));
        }
        let _ = wire.send(&bad.as_bytes()[cut..]);
        refused(&mut wire).with_context(|| format!("cut at {cut}"))?;
    }
    ensure!(statuses(&nginx, bad.as_bytes(), 1)?.is_empty());

    // After others on a connection that is kept alive: those are answered.
    for before in [1, 2, 7] {
        let mut wire = Wire::connect(nginx.address())?;
        for _ in 0..before {
            wire.send(&good)?;
            ensure!(wire.answer("GET")?.status()? == 404);
            good_ones += 1;
        }
        wire.send(&bad)?;
        refused(&mut wire).with_context(|| format!("behind {before} good ones"))?;
    }

    // Behind bodies: what stands in a body is no request, what stands behind it is one.
    let bodies = [
        format!("POST /good HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{bad}", bad.len()),
        format!("POST /good HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{bad}\r\n0\r\n\r\n", bad.len()),
        format!(
            "POST /good HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n1\r\ny\r\n0\r\nT: v\r\n\r\n"
        ),
        format!(
            "POST /good HTTP/1.1\r\n{HOST}Content-Length: 200000\r\n\r\n{}",
            "GET /admin HTTP/1.1\r\n".repeat(10_000).split_at(200_000).0
        ),
    ];
    for body in &bodies {
        let mut wire = Wire::connect(nginx.address())?;
        wire.send(body)?;
        let got = wire.answer("POST").context(body[..60].to_owned())?.status()?;
        ensure!(got == 405 || got == 404, "{got}: {}", &body[..60]);
        good_ones += 1;
        wire.send(&bad)?;
        refused(&mut wire).with_context(|| format!("behind {:?}", &body[..60]))?;
    }

    // Pipelined: what shares a segment with it is refused with it; what came before in its own segment is answered.
    for (before, after) in [(1, 0), (1, 1), (40, 2)] {
        let bytes = format!("{}{bad}{}", good.repeat(before), good.repeat(after));
        ensure!(
            statuses(&nginx, bytes.as_bytes(), usize::MAX)?.is_empty(),
            "pipelined behind {before}, it was answered"
        );
    }
    let mut wire = Wire::connect(nginx.address())?;
    wire.send(&good)?;
    sleep(Duration::from_millis(50));
    let _ = wire.send(format!("{bad}{good}"));
    if wire.answer("GET").is_ok_and(|answer| answer.status().is_ok()) {
        good_ones += 1;
    } else {
        // The reset may overtake the answer; the server's log tells.
        good_ones += usize::from(nginx.log()?.len() > good_ones);
    }

    // A head longer than any window, with the path at its start or behind 20 KiB of fields.
    let long = format!("GET /admin HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "a".repeat(6000));
    ensure!(statuses(&nginx, long.as_bytes(), usize::MAX)?.is_empty());
    // A first piece without the head's end reaches nginx: it logs 400 for a client that went away, and no request.
    let logged = nginx.log()?;
    let whole: Vec<_> = logged.iter().filter(|line| line.status != 400).collect();
    ensure!(whole.len() == good_ones, "{good_ones} were good, and nginx served {}", whole.len());
    if let Some(line) = whole.iter().find(|line| line.target.contains("admin")) {
        bail!("the server saw {line:?}");
    }
    agent.finish()
}

/// Segments that TCP drops for their checksums neither stand for the request that comes in their place nor move what is
/// read past it.
#[test]
fn no_wrong_checksum_slips_a_request_past() -> Result<()> {
    let weather = Weather { mask: true, ..Weather::default() };
    let (one, two) = (NetNs::new("one")?, NetNs::new("two")?);
    let relay = Relay::start(&one, &two, weather)?;
    let listener = two.inside(|| Ok(TcpListener::bind((TWO, 0))?))?;
    let (served, serves) = mpsc::channel();
    let server = Server::on(listener, move |mut wire| {
        while let Some(request) = wire.request()? {
            served.send(request.start())?;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })?;
    let agent = enforcing(&[])?;
    rule(&agent, "admin", &["--path", "/admin", "--port", &server.port().to_string()])?;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "x".repeat(80));
    one.inside(|| {
        for before in [0, 1, 3] {
            let mut wire = Wire::connect(server.address())?;
            for _ in 0..before {
                wire.send(get("/good"))?;
                ensure!(wire.answer("GET")?.status()? == 200);
            }
            wire.send(get("/admin"))?;
            // Retransmissions come after 200, 600 and 1400 ms.
            wire.stream().set_read_timeout(Some(Duration::from_secs(2)))?;
            refused(&mut wire).with_context(|| format!("behind {before} good ones"))?;
            wire.reset()?;
        }
        Ok(())
    })?;
    happened(weather, relay.done())?;
    let starts: Vec<String> = serves.try_iter().collect();
    ensure!(starts == ["GET /good HTTP/1.1"; 4], "the server saw {starts:?}");
    agent.finish()
}

/// What servers read differently is judged by the documented default: met by a strict rule, passed by others.
#[test]
fn what_is_ambiguous_is_met_by_strict_rules_only() -> Result<()> {
    let nginx = Nginx::start(&Setup { server: "merge_slashes on;", ..Setup::default() })?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    let ambiguous = [
        "GET /x%2fy HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /x\\y HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n".to_owned(),
        "GET  /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ];
    rule(&agent, "lax", &["--path", "/admin", "--port", &port])?;
    for request in &ambiguous {
        ensure!(!statuses(&nginx, request.as_bytes(), usize::MAX)?.is_empty(), "{request:?} was not answered");
    }
    rule(&agent, "strict", &["--path", "/admin", "--strict", "--port", &port])?;
    let before = nginx.logged(ambiguous.len())?.len();
    for request in &ambiguous {
        let got = statuses(&nginx, request.as_bytes(), usize::MAX)?;
        ensure!(got.is_empty(), "{request:?} was answered with {got:?}");
    }
    let plain = statuses(&nginx, b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", usize::MAX)?;
    ensure!(plain == [404], "{plain:?}");
    ensure!(nginx.logged(before + 1)?.len() == before + 1);
    let mode = agent.json(&["mode"])?;
    ensure!(mode["gate"]["requests_ambiguous"] == ambiguous.len(), "those that passed are counted: {mode}");
    agent.finish()
}
