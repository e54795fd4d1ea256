//! The kernel half and the agent judge alike: generated requests under generated rules, told in monitor mode by the
//! agent, which looks at calls, and carried out in enforce mode by the kernel half, which looks at bytes. Both name the
//! same rule, or both none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::agent::{Agent, ask};
use weir_tests::call::Kind;
use weir_tests::peers::nginx::Nginx;
use weir_tests::wire::Wire;

use super::from;

/// Sets of rules, rules of a set, requests under a set.
const SETS: usize = 12;
const RULES: usize = 10;
const REQUESTS: usize = 130;

/// `SplitMix64`: the same numbers in each run; a failure names its set's seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

const PATHS: [&str; 8] = ["/a", "=/a/b", "/a/{x}/c", "/", "/b", "=/", "/{x}", "/a/b/c"];
const SEGMENTS: [&str; 14] = ["a", "b", "c", "", ".", "..", "%61", "%2F", "a;x", "A", "%zz", "b%", "%2e%2e", "c\\"];
const CLIENTS: [&str; 5] = ["127.0.5.7", "127.0.5.9", "127.0.6.1", "127.0.7.1", "127.0.8.1"];

/// Fields that servers read differently; what comes behind them is still a head.
const ODD: [&str; 8] = [
    "Host: b.h.test\r\n",
    "Host: other.test\r\n",
    "X: a\r\n folded: b\r\n",
    "X : a\r\n",
    "no field\r\n",
    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Content-Length: +0\r\n",
];

fn rule(random: &mut Random, n: usize, port: u16) -> Value {
    let mut rule = json!({
        "id": format!("r{n}"), "mode": "enforce", "force": true, "reason": "generated", "server": {"port": port},
        "action": random.of(&["deny", "deny", "allow"]), "priority": random.of(&[0, 0, 0, 1, -1]),
    });
    match random.below(6) {
        0 => rule["client"] = json!({"address": "127.0.5.0/24"}),
        1 => rule["client"] = json!({"address": ["127.0.5.7", "127.0.8.0/24"]}),
        2 => rule["client"] = json!({"address": "127.0.6.0/23"}),
        _ => {}
    }
    match random.below(4) {
        0 => rule["method"] = "GET".into(),
        1 => rule["method"] = json!(["POST", "PUT"]),
        _ => {}
    }
    // A rule without a path would meet most of all requests.
    if random.below(8) != 0 || rule["client"].is_null() {
        rule["path"] = random.of(&PATHS).into();
    }
    match random.below(5) {
        0 => rule["server"]["host"] = "h.test".into(),
        1 => rule["server"]["host"] = "*.h.test".into(),
        _ => {}
    }
    if random.below(4) == 0 {
        rule["strict"] = true.into();
    }
    rule
}

fn request(random: &mut Random) -> (IpAddr, String) {
    let client = random.of(&CLIENTS).parse().unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let mut target = String::new();
    for _ in 0..=random.below(4) {
        target += "/";
        target += random.of(&SEGMENTS);
    }
    target += random.of(&["", "", "", "?a=/b", "/"]);
    let host = random.of(&["h.test", "a.h.test", "other.test", "H.TEST:80", "xh.test"]);
    if random.below(8) == 0 {
        target = format!("http://{host}{target}");
    }
    let method = random.of(&["GET", "GET", "POST", "PUT", "DELETE"]);
    let body = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
    let (space, odd) = match random.below(24) {
        n @ 0..8 => ("", ODD[n]),
        8 => (" ", ""),
        _ => ("", ""),
    };
    let head = format!("{method} {space}{target} HTTP/1.1\r\nHost: {host}\r\n{odd}{body}Connection: close\r\n\r\n");
    (client, head)
}

/// What the documented order looks at: priority, action, how many conditions.
fn rank(rules: &[Value], id: Option<&str>) -> Option<(i64, String, usize)> {
    let rule = rules.iter().find(|rule| rule["id"].as_str() == id && id.is_some())?;
    let has = |place: &str| usize::from(rule.pointer(place).is_some());
    let conditions = ["/client/address", "/method", "/path", "/server/host"].into_iter().map(has).sum();
    Some((rule["priority"].as_i64()?, rule["action"].as_str()?.to_owned(), conditions))
}

/// Sends all of them, each on a connection of its own; by number, the rule that is told of it, and whether it was
/// answered.
fn send(
    agent: &Agent,
    nginx: &Nginx,
    requests: &[(IpAddr, String)],
    known: &mut BTreeSet<u64>,
) -> Result<Vec<(Option<String>, bool)>> {
    let mut sent: BTreeMap<_, VecDeque<usize>> = BTreeMap::new();
    let mut answered = vec![false; requests.len()];
    for (n, (client, head)) in requests.iter().enumerate() {
        let mut wire = Wire::over(from(*client, nginx.address())?)?;
        sent.entry((*client, wire.port()?)).or_default().push_back(n);
        let method = head.split(' ').next().unwrap_or_default();
        answered[n] = wire.send(head).is_ok() && wire.answer(method).is_ok();
    }
    // Server's and client's side of each. A client's port may come again.
    let mut calls = agent.calls(&[nginx.port()], known.len() + 2 * requests.len())?;
    calls.sort_by(|a, b| a.start.cmp(&b.start));
    let mut out: Vec<_> = answered.into_iter().map(|answered| (None, answered)).collect();
    let mut found = 0;
    for call in calls.iter().filter(|call| call.kind == Kind::Server && !known.contains(&call.connection.cookie)) {
        let client = call.client();
        let n = sent.get_mut(&(client.ip(), client.port())).and_then(VecDeque::pop_front);
        let Some(n) = n else { continue };
        found += 1;
        out[n].0.clone_from(&call.attributes.rule);
    }
    known.extend(calls.iter().map(|call| call.connection.cookie));
    ensure!(found == requests.len(), "{found} calls of {} requests", requests.len());
    Ok(out)
}

#[test]
fn the_kernel_half_and_the_agent_judge_alike() -> Result<()> {
    let agent = Agent::start(&["enforce.audit=", "enforce.breaker.clients=0", "enforce.breaker.errors=0"])?;
    let socket = agent.socket();
    let (mut refused, mut passed) = (0, 0);
    for set in 0..SETS {
        let mut random = Random(set as u64);
        let nginx = Nginx::plain()?;
        let rules: Vec<Value> = (0..RULES).map(|n| rule(&mut random, n, nginx.port())).collect();
        for rule in &rules {
            let (status, text) = ask(&socket, "POST", "/v1/blocks", &rule.to_string())?;
            ensure!(status == 200, "set {set}: {rule}: {status} {text}");
        }
        let requests: Vec<_> = (0..REQUESTS).map(|_| request(&mut random)).collect();
        let mut known = BTreeSet::new();
        let told = send(&agent, &nginx, &requests, &mut known)?;
        ensure!(agent.say(&["mode", "enforce"])?.code == 0);
        let carried = send(&agent, &nginx, &requests, &mut known)?;
        ensure!(agent.say(&["mode", "monitor"])?.code == 0);
        for ((told, carried), (client, head)) in told.iter().zip(&carried).zip(&requests) {
            let context = || {
                let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
                format!("set {set}, {client}: {head:?}\nunder\n{}", rules.join("\n"))
            };
            ensure!(told.1, "not answered in monitor mode: {}", context());
            // Of rules that are equal by the documented order, and so ask for the same, either may be named.
            let alike = rank(&rules, told.0.as_deref()) == rank(&rules, carried.0.as_deref());
            ensure!(
                alike,
                "the agent says {:?}, the kernel half {:?}: {}\n{}",
                told,
                carried,
                context(),
                agent.json(&["mode"])?["gate"]
            );
            ensure!(carried.0.is_some() != carried.1, "{:?} and answered: {}: {}", carried.0, carried.1, context());
            if carried.1 { passed += 1 } else { refused += 1 }
        }
        for n in 0..RULES {
            let (status, text) = ask(&socket, "DELETE", &format!("/v1/blocks/r{n}"), "")?;
            ensure!(status == 200, "{status} {text}");
        }
    }
    println!("{refused} refused, {passed} passed, of {} requests alike", SETS * REQUESTS);
    ensure!(refused > 200 && passed > 200, "{refused} refused, {passed} passed: no test");
    agent.json(&["mode"]).context("no mode")?;
    agent.finish()
}
