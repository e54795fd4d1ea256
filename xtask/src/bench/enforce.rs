//! What the gate costs, how soon a rule counts, and what a flood of refused connections leaves of a server.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use weir_tests::{
    agent::{self, Agent},
    netns::NetNs,
    peers::{
        flood::Flood,
        nginx::{Nginx, Setup},
    },
    process,
    wire::Wire,
};

use super::{
    cost::{self, Statistics},
    load,
    sample::Samples,
    table::{Budget, Report, Row},
};

/// Client prefixes of the three measurements.
const SIZES: [u32; 3] = [0, 1_000, 100_000];
/// The server, its clients and who floods it.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const ATTACKED: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 1);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 2);

/// All rows.
pub(crate) fn rows(rounds: u32, time: Duration, report: &mut Report) -> Result<()> {
    verdicts(rounds, time, report)?;
    changes(rounds, report)?;
    floods(rounds, time.min(Duration::from_secs(8)), report)
}

/// Addresses of one rule: as many as one may have.
const EACH: u32 = 250;

/// An agent in enforce mode with so many client prefixes, none of them the load's, and a rule about paths where heads are
/// to be read.
fn enforcing(prefixes: u32, port: u16, reads: bool) -> Result<Agent> {
    let agent = Agent::start(&["log.level=warn", "enforce.audit=", "enforce.mode=enforce"])?;
    let add = |body: serde_json::Value| -> Result<()> {
        let (status, text) = agent::ask(&agent.socket(), "POST", "/v1/blocks", &body.to_string())?;
        ensure!(status == 200 || status == 201, "{status} {text}");
        Ok(())
    };
    for first in (0..prefixes).step_by(EACH as usize) {
        let addresses: Vec<_> =
            (first..prefixes.min(first + EACH)).map(|n| Ipv4Addr::from(0x0b00_0000 + n * 16)).collect();
        add(serde_json::json!({"id": format!("r{first}"), "mode": "enforce", "client": {"address": addresses}}))?;
    }
    if reads {
        add(serde_json::json!({
            "id": "path", "mode": "enforce", "force": true, "server": {"port": port}, "path": "/never",
        }))?;
    }
    Ok(agent)
}

fn verdicts(rounds: u32, time: Duration, report: &mut Report) -> Result<()> {
    let cases: Vec<(u32, bool)> = SIZES.iter().map(|size| (*size, false)).chain([(100_000, true)]).collect();
    let mut each = vec![Samples::default(); cases.len()];
    let mut ratio = vec![Samples::default(); cases.len()];
    for round in 0..rounds {
        let server = load::server(false)?;
        let monitor = {
            let _agent = Agent::start(&["log.level=warn"])?;
            load::saturate(server.address(), time)?.per_second
        };
        for (case, (size, reads)) in cases.iter().enumerate() {
            let server = load::server(false)?;
            let port = server.port();
            let _agent = enforcing(*size, port, *reads)?;
            let fast = load::saturate(server.address(), time)?.per_second;
            let statistics = Statistics::on()?;
            let before = cost::programs()?;
            load::saturate(server.address(), Duration::from_secs(2))?;
            let added = cost::since(&cost::programs()?, &before);
            drop(statistics);
            let gate = added.get("weir_gate_in").context("the gate did not run")?;
            let ns = gate.ns as f64 / gate.count as f64;
            eprintln!("bench: round {} of {rounds}: {size} prefixes, heads read: {reads}: {ns:.0} ns a run", round + 1);
            if let (Some(each), Some(ratio)) = (each.get_mut(case), ratio.get_mut(case)) {
                each.push(ns);
                ratio.push(fast / monitor);
            }
        }
    }
    for (((size, reads), each), ratio) in cases.iter().zip(each).zip(ratio) {
        let what = format!("{size} client prefixes{}", if *reads { ", every head read for a path" } else { "" });
        report.rows.push(Row::new(&format!("a run of weir_gate_in, {what}"), "ns", each, None));
        report.rows.push(Row::new(&format!("throughput in enforce mode / in monitor mode, {what}"), "", ratio, None));
    }
    Ok(())
}

/// From asking for a rule to the first request that it refuses, on a connection that asks without pause.
fn changes(rounds: u32, report: &mut Report) -> Result<()> {
    let server = load::server(false)?;
    let agent = Agent::start(&["log.level=warn", "enforce.audit="])?;
    let said = agent.say(&["mode", "enforce"])?;
    ensure!(said.code == 0, "{}", said.err);
    let mut times = Samples::default();
    for round in 0..rounds.max(20) {
        let id = format!("r{round}");
        let address = server.address();
        let asking = thread::spawn(move || -> Result<Instant> {
            let mut wire = Wire::connect(address)?;
            loop {
                let refused =
                    wire.send("GET /bench HTTP/1.1\r\nHost: a\r\n\r\n").is_err() || wire.answer("GET").is_err();
                if refused {
                    return Ok(Instant::now());
                }
            }
        });
        thread::sleep(Duration::from_millis(30));
        let body = serde_json::json!({
            "id": id, "mode": "enforce", "force": true, "path": "/bench", "server": {"port": address.port()},
        });
        let begin = Instant::now();
        let (status, text) = agent::ask(&agent.socket(), "POST", "/v1/blocks", &body.to_string())?;
        ensure!(status == 200 || status == 201, "{status} {text}");
        let first = asking.join().map_err(|_| anyhow!("the asking thread failed"))??;
        times.push(first.saturating_duration_since(begin).as_secs_f64() * 1e3);
        let (status, text) = agent::ask(&agent.socket(), "DELETE", &format!("/v1/blocks/{id}"), "")?;
        ensure!(status == 200 || status == 204, "{status} {text}");
    }
    report.rows.push(Row::new("from asking for a rule to its first drop", "ms", times, Some(Budget::AtMost(50.0))));
    Ok(())
}

fn floods(rounds: u32, time: Duration, report: &mut Report) -> Result<()> {
    let (server, client, attacker) = (NetNs::new("server")?, NetNs::new("client")?, NetNs::new("attacker")?);
    NetNs::cable((&server, "eth0", &[&format!("{SERVER}/24")]), (&client, "eth0", &["10.78.0.2/24"]))?;
    NetNs::cable((&server, "eth1", &[&format!("{ATTACKED}/24")]), (&attacker, "eth0", &[&format!("{ATTACKER}/24")]))?;
    let body = format!("location = /bench {{ return 200 \"{}\"; }}", "x".repeat(345));
    let setup =
        Setup { listen: &["0.0.0.0:PORT"], server: &body, netns: Some(&server), silent: true, ..Setup::default() };
    let nginx = Nginx::start(&setup)?;
    let goodput = || -> Result<f64> {
        let mut command = client.command("wrk")?;
        command.args(["-t", "1", "-c", "16", "-d", &format!("{}s", time.as_secs())]);
        command.arg(format!("http://{SERVER}:{}/bench", nginx.port()));
        let text = process::run(&mut command, time + Duration::from_secs(30))?;
        let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok());
        rate.with_context(|| format!("wrk said {text}"))
    };
    let attacked = || -> Result<(f64, f64)> {
        let flood = Flood::default();
        thread::scope(|scope| {
            let sender = scope.spawn(|| flood.run(&attacker, ATTACKER, SocketAddrV4::new(ATTACKED, nginx.port())));
            let start = Instant::now();
            let rate = goodput();
            flood.done.store(true, Ordering::Relaxed);
            let sent = flood.sent.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
            sender.join().map_err(|_| anyhow!("the flood's thread failed"))??;
            Ok((rate?, sent))
        })
    };
    let mut left = Goodput::default();
    let rules = format!(
        "table ip bench {{\nchain input {{\ntype filter hook input priority 0\nip saddr {ATTACKER} drop\n}}\n}}"
    );
    for round in 0..rounds {
        let bare = goodput()?;
        let (unprotected, _) = attacked()?;
        let (calm, (ours, rate)) = {
            let agent = Agent::start(&["log.level=warn", "enforce.audit="])?;
            ensure!(agent.say(&["mode", "enforce"])?.code == 0);
            let said = agent.say(&[
                "block",
                "add",
                "--mode",
                "enforce",
                "--end",
                "drop",
                "--client",
                &ATTACKER.to_string(),
                "--reason",
                "flood",
            ])?;
            ensure!(said.code == 0, "{}", said.err);
            (goodput()?, attacked()?)
        };
        server.rules(&rules)?;
        let filtered = goodput()?;
        let (theirs, _) = attacked()?;
        let (both, _) = {
            let _agent = Agent::start(&["log.level=warn"])?;
            attacked()?
        };
        server.run("nft", "delete table ip bench")?;
        eprintln!(
            "bench: round {} of {rounds}: {bare:.0} requests/s alone; under {rate:.0} SYNs/s: {unprotected:.0} unprotected, {ours:.0} with Weir ({calm:.0} without the flood), {theirs:.0} with nftables ({filtered:.0}), {both:.0} with nftables while Weir observes",
            round + 1
        );
        left.sent.push(rate);
        left.open.push(unprotected / bare);
        left.weir.push(ours / bare);
        left.nft.push(theirs / bare);
        left.between.push(ours / theirs);
        left.observed.push(ours / both);
        left.calm.push(filtered);
        left.we_keep.push(ours / calm);
        left.they_keep.push(theirs / filtered);
        left.kept.push(ours / calm / (theirs / filtered));
    }
    left.told(report);
    Ok(())
}

/// What a flood leaves of a server's requests a second.
#[derive(Default)]
struct Goodput {
    /// SYNs a second.
    sent: Samples,
    /// Of what it is alone: unprotected, and dropped by nftables or Weir.
    open: Samples,
    nft: Samples,
    weir: Samples,
    /// With Weir, of what is left with nftables, alone and while Weir observes.
    between: Samples,
    observed: Samples,
    /// Of what it is without the flood and with the same protection; and Weir's share of nftables'.
    we_keep: Samples,
    they_keep: Samples,
    kept: Samples,
    /// Requests a second with nftables' rule and no flood: what these differ by, no share is better than.
    calm: Samples,
}

impl Goodput {
    fn told(self, report: &mut Report) {
        let Self { sent, open, nft, weir, between, observed, we_keep, they_keep, kept, calm } = self;
        report.rows.push(Row::new("SYNs of the flood", "/s", sent, None));
        report.rows.push(Row::new("goodput under the flood / alone, unprotected", "", open, None));
        report.rows.push(Row::new("goodput under the flood / alone, dropped by nftables", "", nft, None));
        report.rows.push(Row::new(
            "goodput under the flood / alone, dropped by Weir (and every call observed)",
            "",
            weir,
            None,
        ));
        let two = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"));
        let why = format!(
            "Weir keeps {} of its requests, nftables {}; without the flood nftables' runs differ by a factor of {}",
            two(we_keep.median()),
            two(they_keep.median()),
            two(calm.spread().map(|(least, greatest)| greatest / least))
        );
        report.rows.push(Row::new("goodput with the flood / without it, nftables in both", "", they_keep, None));
        report.rows.push(Row::new("goodput with the flood / without it, Weir in both", "", we_keep, None));
        let what = "goodput with the flood / without it, Weir's / nftables'";
        report.rows.push(Row::new(what, "", kept, Some(Budget::AtLeast(0.9))).because(why));
        let why = format!(
            "Weir observes every call that nftables does not look at; against nftables while Weir observes it is {}",
            two(observed.median())
        );
        let row = Row::new("goodput under the flood, Weir / nftables", "", between, Some(Budget::AtLeast(0.9)));
        report.rows.push(row.because(why));
        let what = "goodput under the flood, Weir / nftables while Weir observes";
        let row = Row::new(what, "", observed, Some(Budget::AtLeast(0.9)));
        report
            .rows
            .push(row.because("Weir refuses a SYN at its socket, behind the hook where nftables drops it".to_owned()));
    }
}
