//! Requests of every shape, what only looks like one, and rules that come in the middle.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::wire::{Server, Wire};

use super::{enforcing, refused, rule};

/// Whether bytes sent in pieces of this size are answered.
fn answered(nginx: &Nginx, bytes: &str, size: usize) -> Result<bool> {
    let mut wire = Wire::connect(nginx.address())?;
    let _ = wire.send_by(size, bytes);
    let method = bytes.split(' ').next().unwrap_or_default();
    Ok(wire.answer(method).is_ok())
}

/// A host comes late, in any case, with a port, a dot, or in the target, which then counts alone (RFC 9112 §3.2.2).
#[test]
fn hosts_in_every_spelling() -> Result<()> {
    let nginx = Nginx::start(&Setup { server: "large_client_header_buffers 4 32k;", ..Setup::default() })?;
    let agent = enforcing(&[])?;
    rule(&agent, "shop", &["--host", "shop.test", "--port", &nginx.port().to_string()])?;
    let many = (0..60).fold(String::new(), |many, n| many + &format!("X-{n}: {}\r\n", "a".repeat(90)));
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    let met = [
        get("/", "Host: shop.test\r\n"),
        get("/", "HOST:\tSHOP.Test:8080 \r\n"),
        get("/", "host:shop.test.\r\n"),
        get("/", "Host: shop.test.:80\r\n"),
        get("http://shop.test/", "Host: other.test\r\n"),
        get("http://SHOP.test:81/x", "Host: other.test\r\n"),
        get("/", &format!("{many}Host: shop.test\r\n")),
        "HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000)),
    ];
    for request in &met {
        for size in [usize::MAX, 1000] {
            ensure!(!answered(&nginx, request, size)?, "{:?} was answered", &request[..request.len().min(80)]);
        }
    }
    // A first piece that is let pass before the host is known reaches nginx: 400, and no request.
    ensure!(nginx.log()?.iter().all(|line| line.status == 400), "{:?}", nginx.log()?);
    let before = nginx.log()?.len();
    let late = get("/", "A: b\r\nHost: shop.test\r\n");
    for cut in 1..late.len() - 1 {
        let mut wire = Wire::connect(nginx.address())?;
        wire.send(&late[..cut])?;
        let _ = wire.send(&late[cut..]);
        refused(&mut wire).with_context(|| format!("cut at {cut}"))?;
    }
    ensure!(!answered(&nginx, &late, 1)?, "a byte at a time, it was answered");
    let passed = [
        get("/", "Host: other.test\r\n"),
        get("/", "Host: shop.test.evil\r\n"),
        get("/", "Host: xshop.test\r\n"),
        get("/", "Host: shop.test..\r\n"),
        get("http://other.test/", "Host: shop.test\r\n"),
        get("/shop.test", "X-Host: shop.test\r\nHost: other.test\r\n"),
        get("/?Host:shop.test", &format!("{many}Host: other.test\r\n")),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\nConnection: close\r\n\r\nHost: shop.test\r\n".to_owned(),
    ];
    for request in &passed {
        for size in [usize::MAX, 1] {
            ensure!(answered(&nginx, request, size)?, "{:?} was dropped", &request[..request.len().min(80)]);
        }
    }
    let log = nginx.logged(before + 2 * passed.len())?;
    let served = log.iter().filter(|line| line.status != 400 || line.method != "-").count();
    ensure!(served >= 2 * passed.len() - 2, "{log:#?}");
    agent.finish()
}

/// Methods are compared as spelled, and every other one passes.
#[test]
fn methods_of_every_kind() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    rule(&agent, "some", &["--method", "HEAD", "--method", "PURGE", "--port", &port])?;
    let ask =
        |method: &str| answered(&nginx, &format!("{method} /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 3);
    for method in ["HEAD", "PURGE"] {
        ensure!(!ask(method)?, "{method} was answered");
    }
    let passed = ["GET", "OPTIONS", "TRACE", "head", "HEADS", "HEA", "PURG", "DELETE", "PROPFIND", "X-Y!"];
    for method in passed {
        ensure!(ask(method)?, "{method} was dropped");
    }
    agent.finish()
}

/// Answers, tunnels and datagrams that hold the bytes of a request that a rule refuses.
#[test]
fn what_only_looks_like_a_request() -> Result<()> {
    const BAD: &str = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let server = Server::start(|mut wire| {
        while let Some(request) = wire.request()? {
            if request.start().starts_with("GET /socket") {
                wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
                // A masked frame each way (RFC 6455 §5.2), its payload as it comes.
                let frame = wire.read_exact(6 + BAD.len())?;
                wire.send([&[0x81, BAD.len() as u8][..], BAD.as_bytes(), &frame[..1]].concat())?;
                continue;
            }
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BAD.len()))?;
            // A segment of its own, which begins as a request does.
            sleep(Duration::from_millis(20));
            wire.send(BAD)?;
        }
        Ok(())
    })?;
    let agent = enforcing(&[])?;
    let port = server.port().to_string();
    rule(&agent, "served", &["--path", "/admin", "--port", &port])?;
    let comm = std::fs::read_to_string("/proc/self/comm")?;
    rule(&agent, "called", &["--path", "/admin", "--client-process", comm.trim()])?;
    let mut wire = Wire::connect(server.address())?;
    for n in 0..3 {
        wire.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
        let answer = wire.answer("GET")?;
        ensure!(answer.body == BAD.as_bytes(), "{answer:?}");
    }
    wire.send("GET /socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
    let switched = wire.read_until(b"\r\n\r\n")?.context("no answer")?;
    ensure!(switched.starts_with(b"HTTP/1.1 101"));
    // Masked with zeros: the payload stands there in clear.
    wire.send([&[0x81, 0x80 | BAD.len() as u8, 0, 0, 0, 0][..], BAD.as_bytes()].concat())?;
    let frame = wire.read_exact(3 + BAD.len())?;
    ensure!(frame.ends_with(&[0x81]), "{frame:?}");
    drop(wire);
    // Datagrams are nobody's requests.
    let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    one.send_to(BAD.as_bytes(), other.local_addr()?)?;
    let mut buffer = [0; 100];
    other.set_read_timeout(Some(Duration::from_secs(10)))?;
    ensure!(other.recv(&mut buffer)? == BAD.len());
    // And the rules are there.
    let mut wire = Wire::connect(server.address())?;
    let _ = wire.send(BAD);
    refused(&mut wire)?;
    agent.finish()
}

/// A rule that comes in the middle of a head or a body harms no good request, and meets the next one.
#[test]
fn rules_come_in_the_middle() -> Result<()> {
    let (served, serves) = mpsc::channel();
    // It answers what it has whole: until then nothing is known of where the next request begins.
    let server = Server::start(move |mut wire| {
        while let Some(request) = wire.request()? {
            served.send(request.start())?;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })?;
    let agent = enforcing(&[])?;
    let port = server.port().to_string();
    let bad = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut good, mut gone) = (0, 0);
    for (n, (before, after)) in [
        ("GET /go", "od HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 32\r\n\r\nGET /adm", "in HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("POST /good HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "c\r\n0\r\n\r\n"),
        ("", "GET /good HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        for there in [false, true] {
            let id = format!("r{n}{there}");
            if there {
                // Heads are read already, by another rule.
                rule(&agent, "other", &["--path", "/other", "--port", &port])?;
            }
            let mut wire = Wire::connect(server.address())?;
            if !before.is_empty() {
                wire.send(before)?;
                sleep(Duration::from_millis(20));
            }
            rule(&agent, &id, &["--path", "/admin", "--port", &port])?;
            wire.send(after)?;
            let status = wire.answer("POST").with_context(|| format!("{before:?}, {there}: dropped"))?.status()?;
            ensure!(status == 200, "{before:?}: {status}");
            good += 1;
            wire.send(bad)?;
            refused(&mut wire).with_context(|| format!("{before:?}, {there}"))?;
            // Gone, it meets nobody from the next request on.
            ensure!(agent.say(&["block", "remove", &id])?.code == 0);
            let mut wire = Wire::connect(server.address())?;
            wire.send(bad)?;
            ensure!(wire.answer("GET").is_ok(), "{id} is gone and refuses");
            gone += 1;
            if there {
                ensure!(agent.say(&["block", "remove", "other"])?.code == 0);
            }
        }
    }
    let starts: Vec<String> = serves.try_iter().collect();
    let refused = starts.iter().filter(|start| start.contains("/admin")).count();
    ensure!((starts.len(), refused) == (good + gone, gone), "{starts:?}");
    agent.finish()
}

/// A head that has begun when rules about heads change passes with its request: who reads on does not know how its
/// beginning compares. The next one on its connection is met, also when its client rests in the middle of it.
#[test]
fn a_head_that_begins_before_its_rule() -> Result<()> {
    let nginx = Nginx::start(&Setup { server: "location / { return 200 ok; }", ..Setup::default() })?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    let pause = || sleep(Duration::from_millis(20));
    for there in [false, true] {
        if there {
            // Heads are read already, by another rule.
            rule(&agent, "other", &["--path", "/other", "--port", &port])?;
        }
        let mut wire = Wire::connect(nginx.address())?;
        wire.send("GET /adm")?;
        pause();
        rule(&agent, "late", &["--path", "/admin", "--port", &port])?;
        wire.send("in HTTP/1.1\r\nHost: a\r\n\r\n")?;
        ensure!(wire.answer("GET")?.status()? == 200, "heads read before: {there}");
        wire.send("GET /admin/ne")?;
        pause();
        let _ = wire.send("xt HTTP/1.1\r\nHost: a\r\n\r\n");
        refused(&mut wire).with_context(|| format!("the next one was answered; heads read before: {there}"))?;
        ensure!(agent.say(&["block", "remove", "late"])?.code == 0);
    }
    // What had come of the second one when its connection was reset is no request to nginx.
    let log = nginx.logged(4)?;
    let told: Vec<_> = log.iter().map(|line| (line.status, line.target.as_str())).collect();
    ensure!(told == [(200, "/admin"), (400, "-"), (200, "/admin"), (400, "-")], "{log:?}");
    agent.finish()
}
