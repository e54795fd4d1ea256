//! Data that comes before its connection has a socket: servers that defer accepting, and TCP Fast Open. What is good is
//! answered as if there were no rules; what is refused never arrives.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::netns::NetNs;
use weir_tests::peers::apache::{Apache, Mpm};
use weir_tests::peers::odd::{self, Odd};
use weir_tests::wire::Wire;

use super::{enforcing, refused, rule};

const GOOD: &str = "GET /f/100 HTTP/1.1\r\nHost: a\r\n\r\n";
const BAD: &str = "GET /f/1 HTTP/1.1\r\nHost: a\r\n\r\n";

/// Apache httpd defers accepting for 30 s by default: a request that is dropped until then is an outage.
#[test]
fn a_server_that_defers_accepting() -> Result<()> {
    let apache = Apache::start(Mpm::Event)?;
    let address = ([127, 0, 0, 1], apache.port()).into();
    let agent = enforcing(&[])?;
    rule(&agent, "one", &["--path", "=/f/1", "--port", &apache.port().to_string()])?;
    let connect = || -> Result<Wire> {
        let wire = Wire::connect(address)?;
        wire.stream().set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(wire)
    };
    let mut answered = 0;
    let mut ask = |wire: &mut Wire, bytes: &str| -> Result<()> {
        wire.send(bytes)?;
        let status = wire.answer("GET").context("a good request was dropped")?.status()?;
        ensure!(status == 200, "{status}");
        answered += 1;
        Ok(())
    };
    // Whole, again on the same connection, and with what is refused behind it there.
    for _ in 0..20 {
        let mut wire = connect()?;
        ask(&mut wire, GOOD)?;
        ask(&mut wire, GOOD)?;
        wire.send(BAD)?;
        refused(&mut wire).context("behind good ones")?;
    }
    // In two pieces, of which the first makes the connection.
    for cut in 1..GOOD.len() {
        let mut wire = connect()?;
        wire.send(&GOOD[..cut])?;
        ask(&mut wire, &GOOD[cut..])?;
    }
    for cut in 1..BAD.len() {
        let mut wire = connect()?;
        wire.send(&BAD[..cut])?;
        let _ = wire.send(&BAD[cut..]);
        refused(&mut wire).with_context(|| format!("cut at {cut}"))?;
    }
    // Behind a good one before that is answered, and behind a body in two pieces.
    for (first, second) in [
        (GOOD.to_owned(), BAD.to_owned()),
        (format!("{GOOD}{}", &BAD[..9]), BAD[9..].to_owned()),
        (
            "GET /f/100 HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nGET /f/1 ".to_owned(),
            format!("{:31}{BAD}", "x"),
        ),
    ] {
        let mut wire = connect()?;
        wire.send(&first)?;
        std::thread::sleep(Duration::from_millis(5));
        let _ = wire.send(&second);
        while wire.answer("GET").is_ok() {}
    }
    // With the connection: unanswered, and told so.
    for bytes in [BAD.to_owned(), format!("{GOOD}{BAD}")] {
        let mut wire = connect()?;
        wire.stream().set_read_timeout(Some(Duration::from_secs(1)))?;
        wire.send(&bytes)?;
        ensure!(wire.answer("GET").is_err(), "with its connection, it was answered");
    }
    let log = apache.logged(answered)?;
    // Of a head that came in pieces httpd has the first, which it can't serve.
    ensure!(log.iter().all(|line| line.target != "/f/1" || line.status == 400), "{log:#?}");
    let good = log.iter().filter(|line| line.target == "/f/100" && line.status == 200).count();
    ensure!((answered..=answered + 3).contains(&good), "{good} were served, {answered} answered");
    let row = agent.lines(&["block", "list"])?;
    ensure!(row[0]["attempts"].as_u64().is_some_and(|count| count >= 2), "{row:?}");
    let gate = &agent.json(&["mode"])?["gate"];
    ensure!(gate["segments_early"] == 0 && gate["segments_damaged"] == 0 && gate["segments_unread"] == 0, "{gate}");
    agent.finish()
}

/// The same over the tests' own servers: each of them answers all that no rule meets, and nothing is sent twice.
#[test]
fn data_with_the_handshake() -> Result<()> {
    let netns = NetNs::new("tfo")?;
    netns.set("net.ipv4.tcp_fastopen", "3")?;
    for (mode, client, netns) in [("defer", "plain", None), ("fastopen", "fastopen", Some(&netns))] {
        let server = Odd::start(mode, netns)?;
        let agent = enforcing(&[])?;
        let port = server.port().to_string();
        rule(&agent, "some", &["--path", &format!("=/{client}/21"), "--port", &port])?;
        odd::ask(client, server.port(), 20, netns)?;
        let served = server.served()?;
        ensure!(served.len() == 20, "{mode}: {served:?}");
        let gate = agent.json(&["mode"])?["gate"].clone();
        ensure!(gate["segments_early"] == 0 && gate["segments_damaged"] == 0, "{mode}: {gate}");
        // What comes last is refused.
        let refused = odd::ask(client, server.port(), 22, netns);
        ensure!(refused.is_err(), "{mode}: all were answered");
        let path = format!("/{client}/21");
        ensure!(
            !server.served()?.contains_key(&path) && server.served()?.len() == 21,
            "{mode}: {:?}",
            server.served()?
        );
        agent.finish()?;
    }
    Ok(())
}
