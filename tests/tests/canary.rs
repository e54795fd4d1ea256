//! Unique secrets in every part of an HTTP message: none of them may be in any output at privacy level `strict`, in
//! whatever writing.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::collector::{Collector, Ports};
use weir_tests::peers::load;
use weir_tests::wire::{Server, Wire};

/// Where a secret was, and what it is.
const SECRETS: [(&str, &str); 19] = [
    ("path: hexadecimal", "c0ffee91d2a84b7790aa"),
    ("path: UUID", "7d9f1c52-0a3e-4b61-9d55-3f0c1e2a7b90"),
    ("path: number", "4929117263550118"),
    ("path: mail address", "wanda.vex73@mail.test"),
    ("path: token", "Zk3xQ9-vT7_mP2wLb8Rd"),
    ("path: opaque word", "xqzvbnmlkjhgfp"),
    ("path: encoded", "vlad%20tepes%2F1431"),
    ("query key", "pinqueryk3y91"),
    ("query value", "pinqueryval77x"),
    ("header value", "hdr-9f27ac55e1"),
    ("authorization", "Bearer-kk81jz07qq"),
    ("cookie", "sess-55dk20vmq1"),
    ("referer", "ref-path-81hfk2"),
    ("user agent", "Agentium-7781xk"),
    ("request body", "bodysecret-4417xj"),
    ("form field", "formsecret-9923pk"),
    ("response header", "setcookie-1188wq"),
    ("response body", "answersecret-7311zt"),
    ("URL's account", "hunter2-usr-6610"),
];

fn secret(place: &str) -> &'static str {
    SECRETS.iter().find(|(of, _)| *of == place).map_or("", |(_, secret)| secret)
}

/// A text in the ways that it may be written.
fn writings(text: &str) -> Vec<String> {
    let hex = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            // Writing to a string does not fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
    };
    let percent = text.bytes().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "%{byte:02X}");
        out
    });
    let mut all = vec![
        text.to_owned(),
        text.replace("%20", " ").replace("%2F", "/"),
        hex(text),
        hex(text).to_uppercase(),
        percent.to_lowercase(),
        percent,
    ];
    // Base64 looks different for each place modulo three; the first and last characters depend on the neighbours.
    for lead in 0..3 {
        let encoded = base64(&[&vec![b'x'; lead], text.as_bytes()].concat());
        let inner = &encoded[(lead * 8).div_ceil(6)..encoded.len() - 4];
        all.push(inner.to_owned());
        all.push(inner.replace('+', "-").replace('/', "_"));
    }
    all.sort();
    all.dedup();
    all
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            out.push(if at <= three.len() { char::from(DIGITS[(number >> (18 - 6 * at) & 63) as usize]) } else { '=' });
        }
    }
    out
}

#[test]
fn base64_is_that_of_rfc_4648() {
    assert_eq!(base64(b"foobar"), "Zm9vYmFy");
    assert_eq!(base64(b"fooba"), "Zm9vYmE=");
    assert_eq!(base64(b"foob"), "Zm9vYg==");
}

/// Sends all the secrets, a few times; gives the number of requests.
fn send(port: u16) -> Result<usize> {
    let mut sent = 0;
    for (place, secret) in SECRETS.iter().filter(|(place, _)| place.starts_with("path")) {
        for tail in ["", "/orders", "/orders/list"] {
            let url = format!("http://127.0.0.1:{port}/users/{secret}{tail}");
            ensure!(!load::curl(&["-f", &url])?.is_empty(), "{place}");
            sent += 1;
        }
    }
    let url = format!(
        "http://{}:pw@127.0.0.1:{port}/q?{}={}",
        secret("URL's account"),
        secret("query key"),
        secret("query value")
    );
    load::curl(&["-f", &url])?;
    load::curl(&[
        "-f",
        "-H",
        &format!("X-Secret: {}", secret("header value")),
        "-H",
        &format!("Authorization: {}", secret("authorization")),
        "-b",
        &format!("id={}", secret("cookie")),
        "-e",
        &format!("http://elsewhere.test/{}", secret("referer")),
        "-A",
        secret("user agent"),
        "-d",
        &format!("{{\"k\":\"{}\"}}", secret("request body")),
        &format!("http://127.0.0.1:{port}/form"),
    ])?;
    load::curl(&["-f", "-F", &format!("f={}", secret("form field")), &format!("http://127.0.0.1:{port}/upload")])?;
    Ok(sent + 3)
}

/// A server whose answers hold secrets, too.
fn server() -> Result<Server> {
    Server::start(|mut wire| {
        while wire.request()?.is_some() {
            let body = format!("{{\"answer\":\"{}\"}}", secret("response body"));
            let cookie = format!("Set-Cookie: s={}", secret("response header"));
            wire.send(format!("HTTP/1.1 200 OK\r\n{cookie}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))?;
        }
        Ok(())
    })
}

/// Everything that leaves the agent, by name.
fn outputs(agent: &Agent, collector: &Collector, store: &std::path::Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for verb in [
        &["calls", "--last", "1000"][..],
        &["connections"],
        &["services"],
        &["stats"],
        &["doctor"],
        &["config", "show"],
    ] {
        for json in [&[][..], &["--json"]] {
            let said = agent.say(&[verb, json].concat())?;
            ensure!(said.code == 0, "weir {verb:?} ended with {}: {}", said.code, said.err);
            all.push((format!("weir {} {}", verb.join(" "), json.join(" ")), (said.out + &said.err).into_bytes()));
        }
    }
    all.push(("/metrics".to_owned(), agent.get("/metrics")?.1.into_bytes()));
    all.push(("log".to_owned(), agent.log()?.into_bytes()));
    all.push(("OTLP".to_owned(), collector.text()?.into_bytes()));
    all.push(("store on disk".to_owned(), fs::read(store)?));
    Ok(all)
}

fn hits(outputs: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut hits = Vec::new();
    for (name, bytes) in outputs {
        let text = String::from_utf8_lossy(bytes);
        for (place, secret) in SECRETS {
            hits.extend(
                writings(secret)
                    .iter()
                    .filter(|writing| text.contains(writing.as_str()))
                    .map(|writing| format!("{place}: {writing} in {name}")),
            );
        }
    }
    hits
}

/// Runs the load at a privacy level and gives every output.
fn run(level: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let server = server()?;
    let collector = Collector::start(Ports::free()?)?;
    let store = weir_tests::place::Scratch::new("store")?;
    let path = store.join("calls");
    let agent = Agent::start(&[
        &format!("privacy.level={level}"),
        &format!("otlp.endpoint=http://127.0.0.1:{}", collector.ports().grpc),
        "otlp.interval=1s",
        "log.level=debug",
        &format!("recent.disk.path={}", path.display()),
    ])?;
    let sent = send(server.port())? + 1;
    // One stays open, so that there is a connection to show.
    let mut open = Wire::connect(server.address())?;
    open.send(format!("GET /users/{} HTTP/1.1\r\nHost: x\r\n\r\n", secret("path: token")))?;
    ensure!(open.answer("GET")?.status()? == 200);
    assert_eq!(agent.calls(&[server.port()], 2 * sent)?.len(), 2 * sent);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let mut all = outputs(&agent, &collector, &path)?;
    drop(open);
    for (name, bytes) in &all {
        ensure!(!bytes.is_empty(), "{name} is empty");
    }
    agent.finish()?;
    all.push(("OTLP after the stop".to_owned(), collector.text()?.into_bytes()));
    all.push(("store after the stop".to_owned(), fs::read(&path)?));
    Ok(all)
}

#[test]
fn nothing_leaves_at_strict() -> Result<()> {
    let hits = hits(&run("strict")?);
    ensure!(hits.is_empty(), "{} hits:\n{}", hits.len(), hits.join("\n"));
    Ok(())
}

/// The search itself finds something where something is: at `standard` paths leave the process, and nothing else does.
#[test]
fn paths_alone_leave_at_standard() -> Result<()> {
    let hits = hits(&run("standard")?);
    // curl's command line is shown at this level, and it holds what curl was told to send.
    let outside = |hit: &&String| {
        !hit.starts_with("path") && !hit.contains(" in weir calls") && !hit.contains(" in weir services")
    };
    let wrong: Vec<&String> = hits.iter().filter(outside).collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");
    ensure!(hits.iter().any(|hit| hit.starts_with("path: hexadecimal")), "the search finds nothing");
    Ok(())
}
