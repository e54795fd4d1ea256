//! Proxies in front of a server on one node: what rules before them and behind them refuse, and what becomes of everybody
//! else whose requests take the same connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::netns::NetNs;
use weir_tests::peers::nginx::{Access, Nginx, Setup};
use weir_tests::peers::proxy::Proxy;
use weir_tests::wire::Wire;

use super::{enforcing, from, rule};

/// Clients that ask for good things, and those that ask for what is refused.
const GOOD: usize = 8;
const BAD: usize = 3;

/// Of the server behind.
const OK: &str = "location /ok { return 200 ok; }";
/// Of nginx as a proxy: the host goes with the request, connections are kept.
const PASS: &str = "location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection \"\";
                    proxy_set_header Host $host; }";

/// How a request over a proxy went: its status, or 0 where its connection ended without an answer.
type Answers = BTreeMap<u16, u64>;

/// What a client that asks for what is refused sends.
fn bad(client: usize, n: u64) -> String {
    match client % 3 {
        0 => format!("GET /denied/{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
        1 => format!("PURGE /ok?purge-{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
        _ => format!("GET /ok?host-{n} HTTP/1.1\r\nHost: denied.test\r\n\r\n"),
    }
}

fn good_one(client: usize, n: u64) -> String {
    format!("GET /ok?good-{client}-{n} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// One client's requests until `end`, on a connection kept as long as it lives.
fn client(proxy: SocketAddr, end: Instant, request: impl Fn(u64) -> String) -> Result<Answers> {
    let (mut answers, mut wire) = (Answers::new(), None);
    for n in 0.. {
        if Instant::now() >= end {
            break;
        }
        // Few enough that the server's log is read at once.
        sleep(Duration::from_millis(2));
        let mut open = wire.take().map_or_else(|| Wire::connect(proxy), Ok)?;
        let text = request(n);
        let method = text.split(' ').next().unwrap_or_default().to_owned();
        let answer = open.send(text).and_then(|()| open.answer(&method));
        let status = answer.as_ref().map_or(Ok(0), weir_tests::wire::Message::status)?;
        *answers.entry(status).or_default() += 1;
        let closes = answer.ok().is_none_or(|answer| answer.header("connection").is_some_and(|text| text == "close"));
        wire = (!closes).then_some(open);
    }
    Ok(answers)
}

/// Everybody at once over one proxy: how the good ones' requests went, and the others'.
fn mixed(proxy: SocketAddr, time: Duration) -> Result<(Answers, Answers)> {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let good: Vec<_> = (0..GOOD).map(|c| scope.spawn(move || client(proxy, end, |n| good_one(c, n)))).collect();
        let others: Vec<_> = (0..BAD).map(|c| scope.spawn(move || client(proxy, end, |n| bad(c, n)))).collect();
        let join = |all: Vec<thread::ScopedJoinHandle<'_, Result<Answers>>>| -> Result<Answers> {
            let mut sum = Answers::new();
            for one in all {
                for (status, count) in one.join().map_err(|_| anyhow::anyhow!("a client's thread failed"))?? {
                    *sum.entry(status).or_default() += count;
                }
            }
            Ok(sum)
        };
        Ok((join(good)?, join(others)?))
    })
}

/// What reached the server that should not have.
fn slipped(log: &[Access]) -> Vec<&Access> {
    let denied =
        |line: &&Access| line.target.starts_with("/denied") || line.method == "PURGE" || line.target.contains("host-");
    log.iter().filter(denied).collect()
}

/// Rules by path, method and host at a port.
fn deny(agent: &weir_tests::agent::Agent, port: u16) -> Result<()> {
    let port = port.to_string();
    rule(agent, "path", &["--path", "/denied", "--port", &port])?;
    rule(agent, "method", &["--method", "PURGE", "--port", &port])?;
    rule(agent, "host", &["--host", "denied.test", "--port", &port])
}

/// nginx as a proxy that hands the host on.
fn third(upstream: SocketAddr) -> Result<Nginx> {
    Nginx::start(&Setup {
        http: &format!("upstream behind {{ server {upstream}; keepalive 8; }}"),
        server: PASS,
        ..Setup::default()
    })
}

/// A rule at the server behind a proxy: what it refuses never reaches it, and over the same kept connections everybody else
/// is answered. Who is refused is told by the proxy (502, 503), or his connection ends.
#[test]
fn behind_a_proxy_only_what_is_refused_fails() -> Result<()> {
    let nginx = Nginx::start(&Setup { server: OK, ..Setup::default() })?;
    let agent = enforcing(&["enforce.breaker.clients=0", "enforce.breaker.errors=0"])?;
    deny(&agent, nginx.port())?;
    let haproxy = Proxy::haproxy("mode http\n  http-reuse always", nginx.address(), "")?;
    let envoy = Proxy::envoy("", nginx.address(), "", None)?;
    let third = third(nginx.address())?;
    let mut before = 0;
    for (name, address) in [("haproxy", haproxy.address()), ("envoy", envoy.address()), ("nginx", third.address())] {
        let (good, others) = mixed(address, Duration::from_secs(3))?;
        println!("{name}: good {good:?}, refused {others:?}");
        let count = good.get(&200).copied().unwrap_or_default();
        ensure!(good.len() == 1 && count > 200, "{name}: {good:?}");
        ensure!(others.keys().all(|status| [0, 502, 503].contains(status)), "{name}: {others:?}");
        ensure!(others.values().sum::<u64>() > 20, "{name}: {others:?} is no load");
        let log = nginx.logged(before + count as usize)?;
        ensure!(log.len() == before + count as usize, "{name}: {} lines, {count} answers", log.len() - before);
        ensure!(slipped(&log).is_empty(), "{name}: {:?}", slipped(&log));
        // They did share connections.
        let mut sharing = BTreeMap::<u16, BTreeSet<&str>>::new();
        for line in log.get(before..).unwrap_or_default() {
            let client = line.target.split('-').nth(1).context("no client")?;
            sharing.entry(line.port).or_default().insert(client);
        }
        ensure!(sharing.values().any(|clients| clients.len() > 1), "{name}: nobody shared: {sharing:?}");
        before = log.len();
    }
    agent.stop_lossy()
}

/// A proxy that takes resets for a sick server and takes it out harms everybody where a rule holds behind it; the same rule
/// at the proxy's own port harms nobody.
#[test]
fn before_a_proxy_that_watches_its_servers_nobody_is_harmed() -> Result<()> {
    let nginx = Nginx::start(&Setup { listen: &["127.0.0.1:PORT", "127.0.0.2:PORT"], server: OK, ..Setup::default() })?;
    let agent = enforcing(&["enforce.breaker.clients=0", "enforce.breaker.errors=0"])?;
    let watching = "check inter 60s observe layer7 error-limit 5 on-error mark-down";
    let haproxy = Proxy::haproxy("mode http\n  http-reuse always", nginx.address(), watching)?;
    let outlier = "    outlier_detection: { consecutive_5xx: 5, interval: 1s, base_ejection_time: 30s, max_ejection_percent: 100 }
    common_lb_config: { healthy_panic_threshold: { value: 0 } }
";
    let envoy = Proxy::envoy("", nginx.address(), outlier, None)?;
    let port = nginx.port();
    let pair = |word: &str| {
        Nginx::start(&Setup {
            http: &format!(
                "upstream behind {{ server 127.0.0.1:{port} {word}; server 127.0.0.2:{port} {word}; keepalive 8; }}"
            ),
            server: PASS,
            ..Setup::default()
        })
    };
    let (third, patient) = (pair("")?, pair("max_fails=0")?);
    let all = [
        ("haproxy", haproxy.address(), true),
        ("envoy", envoy.address(), true),
        ("nginx", third.address(), true),
        ("nginx with max_fails=0", patient.address(), false),
    ];
    let mut before = 0;
    for (name, address, _) in all {
        deny(&agent, address.port())?;
        let (good, others) = mixed(address, Duration::from_secs(1))?;
        println!("{name}, before it: good {good:?}, refused {others:?}");
        let count = good.get(&200).copied().unwrap_or_default();
        ensure!(good.len() == 1 && count > 200, "{name}: {good:?}");
        ensure!(others.len() == 1 && others.contains_key(&0), "{name}: {others:?}");
        let log = nginx.logged(before + count as usize)?;
        ensure!(log.len() == before + count as usize && slipped(&log).is_empty(), "{name}: {:?}", slipped(&log));
        before = log.len();
        for id in ["path", "method", "host"] {
            ensure!(agent.say(&["block", "remove", id])?.code == 0, "{name} {id}");
        }
    }
    deny(&agent, port)?;
    for (name, address, takes_out) in all {
        let (good, others) = mixed(address, Duration::from_secs(2))?;
        // And then nothing but refused ones in a row, as a scan is.
        let end = Instant::now() + Duration::from_millis(500);
        let scan = client(address, end, |n| bad(0, n))?;
        let after = client(address, Instant::now() + Duration::from_millis(200), |n| good_one(0, n))?;
        println!("{name}, behind it: good {good:?}, refused {others:?}; after a scan {scan:?} good {after:?}");
        for refused in [others, scan] {
            ensure!(refused.keys().all(|status| [0, 502, 503].contains(status)), "{name}: {refused:?}");
        }
        // Told by the proxy, never in silence.
        for answers in [&good, &after] {
            ensure!(answers.keys().all(|status| [0, 200, 502, 503].contains(status)), "{name}: {answers:?}");
        }
        // README has who does.
        let harmed = [&good, &after].iter().any(|answers| answers.keys().any(|status| *status != 200));
        ensure!(harmed == takes_out, "{name}: good {good:?}, after a scan {after:?}");
    }
    let log = nginx.log()?;
    ensure!(slipped(&log).is_empty(), "{:?}", slipped(&log));
    agent.stop_lossy()
}

/// A client is who holds the connection: before a proxy the client itself, behind it the proxy.
#[test]
fn a_client_is_met_before_its_proxy_and_not_behind_it() -> Result<()> {
    let nginx = Nginx::start(&Setup { server: OK, ..Setup::default() })?;
    let agent = enforcing(&["proxies.trusted=[127.0.0.0/8]"])?;
    let forward = "mode http\n  option forwardfor";
    let haproxy = Proxy::haproxy(forward, nginx.address(), "")?;
    let envoy = Proxy::envoy("          use_remote_address: true\n", nginx.address(), "", None)?;
    let get = |client: IpAddr, proxy: SocketAddr| -> Result<bool> {
        let Ok(stream) = from(client, proxy) else { return Ok(false) };
        let mut wire = Wire::over(stream)?;
        let sent = wire.send("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        Ok(sent.is_ok() && wire.answer("GET").and_then(|answer| answer.status()).is_ok_and(|status| status == 200))
    };
    let (met, other): (IpAddr, IpAddr) = ("127.0.5.7".parse()?, "127.0.6.7".parse()?);
    let mut answered = 0;
    for proxy in [haproxy.address(), envoy.address()] {
        rule(&agent, "behind", &["--client", "127.0.5.7", "--port", &nginx.port().to_string()])?;
        ensure!(get(met, proxy)? && get(other, proxy)?, "{proxy}: the proxy's own connection was refused");
        agent.calls(&[nginx.port()], answered)?;
        let rows = agent.lines(&["block", "list"])?;
        ensure!(rows.len() == 1 && rows[0]["hits"] == 0, "{rows:?}");
        rule(&agent, "before", &["--client", "127.0.5.7", "--port", &proxy.port().to_string()])?;
        ensure!(!get(met, proxy)?, "{proxy}: its client is answered");
        ensure!(get(other, proxy)?, "{proxy}: another client is not");
        answered += 3;
        ensure!(nginx.logged(answered)?.len() == answered, "{proxy}: {:?}", nginx.log()?);
        for id in ["before", "behind"] {
            ensure!(agent.say(&["block", "remove", id])?.code == 0);
        }
    }
    agent.finish()
}

/// A rule for the proxy itself would hit everybody behind it: refused, with figures.
#[test]
fn a_rule_for_a_proxy_is_refused() -> Result<()> {
    let (near, far) = (NetNs::new("server")?, NetNs::new("proxies")?);
    NetNs::cable((&near, "s0", &["10.83.0.1/24"]), (&far, "c0", &["10.83.0.2/24", "10.83.0.3/24"]))?;
    let nginx =
        Nginx::start(&Setup { listen: &["10.83.0.1:PORT"], netns: Some(&near), server: OK, ..Setup::default() })?;
    let upstream: SocketAddr = format!("10.83.0.1:{}", nginx.port()).parse()?;
    let haproxy = Proxy::haproxy_inside("mode http\n  option forwardfor", upstream, "source 10.83.0.2", Some(&far))?;
    let bound = "    upstream_bind_config: { source_address: { address: 10.83.0.3, port_value: 0 } }\n";
    let envoy = Proxy::envoy("          use_remote_address: true\n", upstream, bound, Some(&far))?;
    let agent = enforcing(&[])?;
    for (proxy, address) in [(haproxy.address(), "10.83.0.2"), (envoy.address(), "10.83.0.3")] {
        far.inside(|| {
            for n in 0..12 {
                let mut wire = Wire::over(from(format!("127.0.0.{}", 11 + n % 4).parse()?, proxy)?)?;
                wire.send("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
                ensure!(wire.answer("GET")?.status()? == 200);
            }
            Ok(())
        })?;
        // Until all of them are judged: each proxy has two ends of each, nginx one.
        weir_tests::wait::until(Duration::from_secs(10), "a refusal with figures", || {
            let said = agent.say(&["block", "add", "--reason", "t", "--client", address, "--dry-run"])?;
            let figures =
                "12 of its 12 requests of the last 30 to 60 minutes say that they are forwarded for 4 different";
            Ok((said.code == 1 && said.err.contains(figures)).then_some(()))
        })?;
        for more in [&[][..], &["--path", "/denied"], &["--mode", "enforce"]] {
            let said = agent.say(&[&["block", "add", "--reason", "t", "--client", address], more].concat())?;
            ensure!(said.code == 1 && said.err.contains("a proxy: "), "{more:?}: {} {}", said.code, said.err);
        }
        let (status, text) = weir_tests::agent::ask(
            &agent.socket(),
            "POST",
            "/v1/blocks",
            &format!("{{\"client\":{{\"address\":\"{address}\"}}}}"),
        )?;
        ensure!(status == 422 && text.contains("a proxy: "), "{status} {text}");
    }
    ensure!(agent.lines(&["block", "list"])?.is_empty());
    // One about requests that come over them is taken, with a warning: it resets their connections.
    let port = nginx.port().to_string();
    let add = ["block", "add", "--reason", "t", "--id", "path", "--path", "/ok", "--port", &port];
    let said = agent.say(&[&add[..], &["--dry-run"]].concat())?;
    let told: serde_json::Value = serde_json::from_str(&said.out)?;
    let proxies = told["proxies"].as_array().context("no proxies")?;
    let clients: Vec<_> = proxies.iter().filter_map(|proxy| proxy["client"].as_str()).collect();
    ensure!(clients == ["10.83.0.2", "10.83.0.3"], "{told}");
    let warns = |err: &str| {
        ["10.83.0.2 is a proxy: 12 of its 12", "10.83.0.3 is a proxy", "proxy's port"]
            .iter()
            .all(|text| err.contains(text))
    };
    ensure!(said.code == 0 && warns(&said.err), "{}", said.err);
    let said = agent.say(&add)?;
    ensure!(said.code == 0 && warns(&said.err), "{}", said.err);
    let said = agent.say(&["block", "add", "--reason", "t", "--method", "PURGE", "--port", &port])?;
    ensure!(said.code == 0 && said.err.is_empty(), "{}", said.err);
    agent.finish()
}
