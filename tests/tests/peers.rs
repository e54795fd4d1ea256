//! The peers themselves, without Weir: each starts, serves, and counts what it did. What the other suites compare with
//! is only worth as much as this.
//!
//! test-threads: 2

use std::time::Duration;

use anyhow::Result;
use weir_tests::collector::{Collector, Ports};
use weir_tests::netns::NetNs;
use weir_tests::peers::apache::{Apache, Mpm};
use weir_tests::peers::foreign::Foreign;
use weir_tests::peers::load;
use weir_tests::peers::nginx::{Nginx, STATUSES, content};
use weir_tests::peers::proxy::{self, Proxy};
use weir_tests::peers::runtime::{Ask, Runtime, Serve, ask, printed, script};
use weir_tests::process;
use weir_tests::shop::Shop;
use weir_tests::shop::truth::{Counts, Truth};
use weir_tests::wait;
use weir_tests::wire::{Server, Wire};

#[test]
fn nginx_logs_every_request() -> Result<()> {
    let nginx = Nginx::plain()?;
    let urls: Vec<String> = STATUSES.iter().map(|status| nginx.url(&format!("/s/{status}"))).collect();
    let load = load::h2load(1200, 12, &urls)?;
    let log = nginx.logged(1200)?;
    assert_eq!(log.len(), 1200);
    for hundred in 2..=5 {
        let logged = log.iter().filter(|line| u64::from(line.status / 100) == hundred).count() as u64;
        assert_eq!(load.classes[hundred as usize - 1], logged);
    }
    assert_eq!(load.errors, 0);
    Ok(())
}

#[test]
fn wrk_and_ab_count() -> Result<()> {
    let nginx = Nginx::plain()?;
    let load = load::wrk(Duration::from_secs(1), 8, nginx.address(), &["/s/200", "/s/404"])?;
    // wrk stops with a request in flight on each connection; nginx may have logged it.
    let logged = nginx.log()?.len() as u64;
    assert!((load.answered..=load.answered + 8).contains(&logged), "{load:?}, {logged} logged");
    let nginx = Nginx::plain()?;
    assert_eq!(load::ab(500, 10, false, &nginx.url("/s/200"))?.answered, 500);
    assert_eq!(load::ab(500, 10, true, &nginx.url("/s/200"))?.answered, 500);
    assert_eq!(nginx.logged(1000)?.len(), 1000);
    Ok(())
}

#[test]
fn curls_have_ids_of_their_own() -> Result<()> {
    let nginx = Nginx::plain()?;
    let mut ids = load::curls(20, &nginx.url("/s/200?{}"))?;
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
    assert_eq!(nginx.logged(20)?.iter().filter(|line| line.nth == 1).count(), 20);
    Ok(())
}

#[test]
fn apache_serves_files() -> Result<()> {
    for mpm in [Mpm::Prefork, Mpm::Event] {
        let apache = Apache::start(mpm)?;
        let url = format!("http://127.0.0.1:{}/f/4096", apache.port());
        assert_eq!(load::curl(&[&url])?.as_bytes(), content(4096));
        assert_eq!(load::ab(200, 4, true, &url)?.answered, 200);
        assert_eq!(apache.logged(201)?.len(), 201);
    }
    Ok(())
}

#[test]
fn every_client_speaks_the_script() -> Result<()> {
    let server = Runtime::start(Serve::Go)?;
    let rows = script(12);
    for client in Ask::ALL {
        assert_eq!(ask(client, &server.url(), 12)?.1, printed(&rows), "{client:?}");
    }
    assert_eq!(server.logged(48 * Ask::ALL.len())?.len(), 48 * Ask::ALL.len());
    Ok(())
}

#[test]
fn every_server_speaks_the_script() -> Result<()> {
    let rows = script(12);
    for serve in Serve::ALL {
        let server = Runtime::start(serve)?;
        assert_eq!(ask(Ask::Go, &server.url(), 12)?.1, printed(&rows), "{serve:?}");
        assert_eq!(server.logged(48)?.len(), 48, "{serve:?}");
    }
    Ok(())
}

#[test]
fn proxies_pass_the_script_on() -> Result<()> {
    let behind = Runtime::start(Serve::Go)?;
    let rows = script(6);
    for kind in [proxy::Kind::Haproxy, proxy::Kind::Splice, proxy::Kind::Envoy] {
        let front = Proxy::start(kind, behind.address())?;
        assert_eq!(ask(Ask::Go, &front.url(), 6)?.1, printed(&rows), "{kind:?}");
    }
    let front = proxy::nginx(behind.address())?;
    assert_eq!(ask(Ask::Requests, &front.url(""), 6)?.1, printed(&rows));
    assert_eq!(behind.logged(24 * 4)?.len(), 24 * 4);
    Ok(())
}

#[test]
fn foreign_protocols_run() -> Result<()> {
    Foreign::redis()?.redis_load(1000)?;
    Foreign::postgres()?.postgres_load(40)?;
    Foreign::tls()?.tls_load(3)?;
    Foreign::grpc()?.grpc_load(20)?;
    assert!(Foreign::iperf()?.iperf_load(1)? > 1e8);
    Ok(())
}

#[test]
fn the_shop_takes_orders_and_logs_what_it_called() -> Result<()> {
    const ORDERS: u64 = 20;
    let shop = Shop::open()?;
    shop.order(ORDERS, 50.0, &|| true)?;
    let truth = Truth::of(&shop)?;
    assert_eq!(truth.orders(), (1..=ORDERS).collect::<Vec<_>>());
    // Six hops by HTTP, one of them refused; three to stores.
    let (calls, stores): (Vec<_>, Vec<_>) = truth.edges.values().copied().partition(|counts| counts.calls > 0);
    assert_eq!(calls, [Counts { calls: ORDERS, errors: 1, connections: 0 }; 6]);
    assert_eq!(stores, [Counts { calls: 0, errors: 0, connections: ORDERS }; 3]);
    Ok(())
}

#[test]
fn namespaces_are_joined_by_a_cable() -> Result<()> {
    let (one, two) = (NetNs::new("one")?, NetNs::new("two")?);
    NetNs::cable((&one, "a", &["10.77.0.1/24", "fd77::1/64"]), (&two, "b", &["10.77.0.2/24", "fd77::2/64"]))?;
    for address in ["10.77.0.2", "fd77::2"] {
        let listener = two.inside(|| Ok(std::net::TcpListener::bind((address.parse::<std::net::IpAddr>()?, 0))?))?;
        let server = Server::on(listener, |mut wire| {
            while let Some(request) = wire.request()? {
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()))?;
                wire.send(&request.body)?;
            }
            Ok(())
        })?;
        let mut wire = one.inside(|| Wire::connect(server.address()))?;
        wire.send_by(1, "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")?;
        let answer = wire.answer("POST")?;
        assert_eq!((answer.status()?, answer.body.as_slice()), (200, b"abc".as_slice()));
        drop(wire);
        server.stop()?;
    }
    assert!(process::run(one.command("ip")?.arg("link"), Duration::from_secs(5))?.contains("a@"));
    Ok(())
}

#[test]
fn the_collector_writes_what_it_receives() -> Result<()> {
    let collector = Collector::start(Ports::free()?)?;
    let span = r#"{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","kind":2,"name":"GET",
        "startTimeUnixNano":"1","endTimeUnixNano":"2","attributes":[{"key":"a","value":{"intValue":"7"}}]}"#;
    let request = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
    let url = format!("http://127.0.0.1:{}/v1/traces", collector.ports().http);
    load::curl(&["-f", "-H", "Content-Type: application/json", "-d", &request, &url])?;
    let spans =
        wait::until(Duration::from_secs(5), "the span", || Ok(Some(collector.spans()?).filter(|s| !s.is_empty())))?;
    assert_eq!(spans.len(), 1);
    assert_eq!((spans[0].span.kind, spans[0].attributes.get("a")), (2, Some(&7.into())));
    Ok(())
}
