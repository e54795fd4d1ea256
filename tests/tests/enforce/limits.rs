//! E5: rates, by the arithmetic of the token bucket.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use weir_tests::netns::NetNs;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::wire::Wire;

use super::{enforcing, from, refused, rule};

/// Each client passes its burst and then its rate, whatever the others do.
#[test]
fn each_client_has_its_own_rate() -> Result<()> {
    const CLIENTS: u8 = 20;
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    rule(
        &agent,
        "rate",
        &["--path", "/limited", "--rate", "2/s", "--burst", "3", "--port", &nginx.port().to_string()],
    )?;
    let start = Instant::now();
    let mut passed = vec![0_u32; usize::from(CLIENTS)];
    let (mut first, mut last) = (vec![None; usize::from(CLIENTS)], vec![Duration::ZERO; usize::from(CLIENTS)]);
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(3) {
        for client in 0..CLIENTS {
            let address = IpAddr::from(Ipv4Addr::new(127, 0, 9, client + 1));
            let mut wire = Wire::over(from(address, nginx.address())?)?;
            let at = start.elapsed();
            wire.send("GET /limited HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            sent += 1;
            let n = usize::from(client);
            first[n].get_or_insert(at);
            last[n] = start.elapsed();
            passed[n] += u32::from(wire.answer("GET").is_ok());
        }
    }
    for client in 0..usize::from(CLIENTS) {
        let time = last[client].saturating_sub(first[client].unwrap_or_default());
        // Within one of what the bucket gives; a request too few where a client was not there to take its token.
        let most = 3.0 + time.as_secs_f64() * 2.0;
        let got = f64::from(passed[client]);
        ensure!(
            got <= most + 1.0 && got >= most - 2.0,
            "client {client} passed {got} of at most {most:.1} in {time:?}"
        );
    }
    let all: u32 = passed.iter().sum();
    ensure!(sent > 2 * all, "{sent} requests are no test of {all} tokens");
    ensure!(nginx.logged(all as usize)?.len() == all as usize, "the server's own log");
    agent.finish()
}

/// A hundred requests a second for each of some clients that all ask as fast as they can: what passed is the bucket's
/// arithmetic, whenever between sending and answer each request was judged.
#[test]
fn a_hundred_a_second_each() -> Result<()> {
    const CLIENTS: u8 = 4;
    const RATE: f64 = 100.0;
    const BURST: f64 = 100.0;
    let nginx = Nginx::plain()?;
    let agent = enforcing(&["enforce.audit=", "enforce.breaker.clients=0"])?;
    rule(&agent, "rate", &["--path", "/l", "--rate", "100/s", "--burst", "100", "--port", &nginx.port().to_string()])?;
    let nginx = &nginx;
    let ask = &|client: u8| -> Result<(u32, u32, Duration, Duration)> {
        let address = IpAddr::from(Ipv4Addr::new(127, 0, 9, client + 1));
        let (mut sent, mut passed) = (0, 0);
        let (begun, mut first) = (Instant::now(), None);
        let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
        while begun.elapsed() < Duration::from_secs(3) {
            let mut wire = Wire::over(from(address, nginx.address())?)?;
            before = begun.elapsed();
            wire.send("GET /l HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            sent += 1;
            passed += u32::from(wire.answer("GET").is_ok());
            after = begun.elapsed();
            first.get_or_insert((before, after));
        }
        let (earliest, latest) = first.unwrap_or_default();
        Ok((sent, passed, before.saturating_sub(latest), after.saturating_sub(earliest)))
    };
    let told = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || ask(client))).collect();
        asking
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    let mut all = 0;
    for (sent, passed, shortest, longest) in told {
        let (least, most) = (BURST + RATE * shortest.as_secs_f64() - 1.0, BURST + RATE * longest.as_secs_f64() + 1.0);
        let got = f64::from(passed);
        ensure!(least <= got && got <= most, "{got} passed, not {least:.1} to {most:.1}");
        ensure!(f64::from(sent) > most, "{sent} requests are no test of {most:.0} tokens");
        all += passed as usize;
    }
    ensure!(nginx.logged(all)?.len() == all, "the server's own log");
    agent.finish()
}

/// What a bucket lets pass of requests at these times: it holds `burst` tokens and gains one in each `gain`.
fn bucket(times: &[Duration], burst: f64, gain: f64) -> f64 {
    let (mut tokens, mut filled, mut passed) = (burst, Duration::ZERO, 0.0);
    for &time in times {
        tokens = (tokens + time.saturating_sub(filled).as_secs_f64() / gain).min(burst);
        filled = time;
        if tokens >= 1.0 {
            tokens -= 1.0;
            passed += 1.0;
        }
    }
    passed
}

/// A thousand clients, each with its burst and then its rate, within one of the bucket's arithmetic each.
#[test]
fn a_thousand_clients_have_their_own_rates() -> Result<()> {
    const CLIENTS: usize = 1000;
    const ROUNDS: usize = 7;
    let nginx = Nginx::plain()?;
    let agent = enforcing(&["enforce.audit=", "enforce.breaker.clients=0"])?;
    rule(&agent, "rate", &["--path", "/l", "--rate", "1/5s", "--burst", "3", "--port", &nginx.port().to_string()])?;
    let start = Instant::now();
    let (mut times, mut passed) = (vec![Vec::new(); CLIENTS], vec![0_u32; CLIENTS]);
    for _ in 0..ROUNDS {
        for client in 0..CLIENTS {
            let (high, low) = ((client / 250) as u8, (client % 250) as u8);
            let address = IpAddr::from(Ipv4Addr::new(127, 0, 20 + high, low + 1));
            let mut wire = Wire::over(from(address, nginx.address())?)?;
            times[client].push(start.elapsed());
            wire.send("GET /l HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            passed[client] += u32::from(wire.answer("GET").is_ok());
        }
    }
    for (client, times) in times.iter().enumerate() {
        let (got, wanted) = (f64::from(passed[client]), bucket(times, 3.0, 5.0));
        ensure!((got - wanted).abs() <= 1.0, "client {client} passed {got}, not {wanted}, at {times:?}");
    }
    let all: u32 = passed.iter().sum();
    ensure!(all as usize >= 3 * CLIENTS && (all as usize) < ROUNDS * CLIENTS, "{all} passed");
    ensure!(nginx.logged(all as usize)?.len() == all as usize, "the server's own log");
    agent.finish()
}

/// One bucket for all clients together, and requests of one connection each take a token.
#[test]
fn a_rule_s_own_rate_is_one_bucket() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    rule(
        &agent,
        "all",
        &["--path", "/l", "--rate", "1/m", "--burst", "7", "--per", "rule", "--port", &nginx.port().to_string()],
    )?;
    let mut answered = 0;
    for client in 1..=4 {
        let mut wire = Wire::over(from(Ipv4Addr::new(127, 0, 9, client).into(), nginx.address())?)?;
        for _ in 0..2 {
            if wire.send("GET /l HTTP/1.1\r\nHost: a\r\n\r\n").is_ok() && wire.answer("GET").is_ok() {
                answered += 1;
            }
        }
        // Other paths cost nothing.
        let mut wire = Wire::over(from(Ipv4Addr::new(127, 0, 9, client).into(), nginx.address())?)?;
        wire.send("GET /free HTTP/1.1\r\nHost: a\r\n\r\n")?;
        ensure!(wire.answer("GET")?.status()? == 404);
    }
    ensure!(answered == 7, "{answered} passed of 8");
    ensure!(nginx.logged(11)?.len() == 11);
    agent.finish()
}

/// Who has one address of a `/64` has all of them: such clients may share a bucket.
#[test]
fn a_network_has_one_bucket() -> Result<()> {
    let netns = NetNs::new("net64")?;
    for address in ["2001:db8::1/64", "2001:db8::2/64", "2001:db8:0:1::1/64"] {
        netns.ip(&format!("addr add {address} dev lo nodad"))?;
    }
    let nginx = Nginx::start(&Setup { listen: &["[::]:PORT ipv6only=off"], netns: Some(&netns), ..Setup::default() })?;
    let agent = enforcing(&[])?;
    let port = nginx.port();
    let passed = |path: &str, client: &str| -> Result<usize> {
        let client: IpAddr = client.parse()?;
        let server = if client.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { "2001:db8::1".parse()? };
        netns.inside(|| {
            let mut passed = 0;
            for _ in 0..4 {
                let mut wire = Wire::over(from(client, (server, port).into())?)?;
                wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
                passed += usize::from(wire.answer("GET").is_ok());
            }
            Ok(passed)
        })
    };
    let limit = |id, per| {
        let path = format!("/{id}");
        rule(&agent, id, &["--path", &path, "--rate", "1/h", "--burst", "3", "--per", per, "--port", &port.to_string()])
    };
    limit("network", "network")?;
    limit("client", "client")?;
    for (client, of_network, of_client) in [
        ("2001:db8::1", 3, 3),
        ("2001:db8::2", 0, 3),
        ("2001:db8:0:1::1", 3, 3),
        ("127.0.9.1", 3, 3),
        ("127.0.9.2", 3, 3),
    ] {
        let got = (passed("/network", client)?, passed("/client", client)?);
        ensure!(got == (of_network, of_client), "{client}: {got:?}");
    }
    agent.finish()
}

/// Requests in one segment take a token each, however many there are.
#[test]
fn pipelined_requests_take_a_token_each() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    rule(&agent, "rate", &["--path", "/l", "--rate", "1/h", "--burst", "60", "--port", &nginx.port().to_string()])?;
    let mut wire = Wire::connect(nginx.address())?;
    let get = "GET /l HTTP/1.1\r\nHost: a\r\n\r\n";
    wire.send(get.repeat(50))?;
    for n in 0..50 {
        ensure!(wire.answer("GET").is_ok(), "request {n} of a burst of 60 was refused");
    }
    let _ = wire.send(get.repeat(50));
    refused(&mut wire).context("a hundred have passed a burst of 60")?;
    let mut wire = Wire::connect(nginx.address())?;
    let _ = wire.send(get.repeat(11));
    refused(&mut wire).context("more than 60 have passed")?;
    ensure!(nginx.logged(50)?.len() == 50);
    agent.finish()
}

/// More clients than buckets are kept: who is forgotten has a full one again, so that nobody good is refused, and it is
/// counted; whose bucket is kept is judged by it.
#[test]
fn beyond_the_buckets_that_are_kept_requests_pass() -> Result<()> {
    const KEPT: u32 = 65_536;
    const CLIENTS: u32 = KEPT + 4096;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (over, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let serving = std::thread::spawn({
        let over = Arc::clone(&over);
        // One after another: there are too many for a thread each.
        move || -> Result<()> {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let mut wire = Wire::over(stream?)?;
                if wire.request().is_ok_and(|request| request.is_some()) {
                    wire.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
                }
            }
            Ok(())
        }
    });
    let agent = enforcing(&["enforce.audit=", "enforce.breaker.clients=0", "recent.memory=16MiB"])?;
    rule(&agent, "rate", &["--path", "/l", "--rate", "1/h", "--port", &address.port().to_string()])?;
    let passes = |client: u32| -> Result<bool> {
        let client = IpAddr::from(Ipv4Addr::from(0x7f28_0000 + client));
        let mut wire = Wire::over(from(client, address)?)?;
        wire.send("GET /l HTTP/1.1\r\nHost: a\r\n\r\n")?;
        Ok(wire.answer("GET").is_ok())
    };
    for client in 0..CLIENTS {
        ensure!(passes(client)?, "client {client} was refused its first request");
    }
    ensure!(agent.json(&["mode"])?["gate"]["limit_keys"] == CLIENTS, "{}", agent.json(&["mode"])?["gate"]);
    for client in CLIENTS - 200..CLIENTS {
        ensure!(!passes(client)?, "client {client} has a second token");
    }
    // Some of the first ones were forgotten, as many as did not fit at least.
    let again = (0..200).map(passes).collect::<Result<Vec<_>>>()?.into_iter().filter(|passed| *passed).count();
    println!("{again} of the first 200 were forgotten; {CLIENTS} clients in {:?}", begun.elapsed());
    ensure!(again > 0, "{CLIENTS} buckets were kept");
    over.store(true, Ordering::Relaxed);
    drop(Wire::connect(address)?);
    serving.join().map_err(|_| anyhow::anyhow!("the server's thread failed"))??;
    agent.stop_lossy()
}
