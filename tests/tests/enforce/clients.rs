//! E1: every condition, in monitor mode and in enforce mode, on nginx.

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::call::Kind;
use weir_tests::netns::NetNs;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::wire::Wire;

use super::{RESET, curl, enforcing, from, of, refused, rule};

/// A rule, and what curls it is about and is not about.
struct Case {
    name: &'static str,
    rule: &'static [&'static str],
    met: &'static [&'static [&'static str]],
    passed: &'static [&'static [&'static str]],
}

const FIVE: &[&str] = &["--interface", "127.0.5.7", "/one"];
const SIX: &[&str] = &["--interface", "127.0.6.7", "/one"];

const CASES: &[Case] = &[
    Case { name: "address", rule: &["--client", "127.0.5.7"], met: &[FIVE], passed: &[SIX, &["/one"]] },
    Case {
        name: "cidr",
        rule: &["--client", "127.0.5.0/24"],
        met: &[FIVE, &["--interface", "127.0.5.255", "/"]],
        passed: &[SIX, &["--interface", "127.0.4.255", "/"]],
    },
    Case {
        name: "method",
        rule: &["--client", "127.0.0.0/8", "--method", "DELETE"],
        met: &[&["-X", "DELETE", "/one"], &["-X", "DELETE", "-d", "x", "/"]],
        passed: &[&["/one"], &["-X", "DELET", "/one"], &["-X", "delete", "/one"], &["-d", "DELETE /", "/"]],
    },
    Case {
        name: "prefix",
        rule: &["--path", "/login"],
        met: &[&["/login"], &["/login/x"], &["/login?a=b"], &["-d", "x", "/login"]],
        passed: &[&["/logins"], &["/a/login"], &["/"], &["/LOGIN"], &["/?/login"]],
    },
    Case { name: "exact", rule: &["--path", "=/a/b"], met: &[&["/a/b"]], passed: &[&["/a/b/c"], &["/a"]] },
    Case {
        name: "template",
        rule: &["--path", "/users/{id}/keys"],
        met: &[&["/users/17/keys"], &["/users/x/keys/"]],
        passed: &[&["/users/keys"], &["/users/17"], &["/users/17/key"], &["/users/17/keys/y"]],
    },
    Case {
        name: "host",
        rule: &["--host", "shop.test"],
        met: &[&["-H", "Host: shop.test", "/"], &["-H", "Host: SHOP.test:8080", "/"]],
        passed: &[&["-H", "Host: a.shop.test", "/"], &["-H", "Host: shop.test.evil", "/"], &["/"]],
    },
    Case {
        name: "below",
        rule: &["--host", "*.shop.test"],
        met: &[&["-H", "Host: a.shop.test", "/"]],
        passed: &[&["-H", "Host: shop.test", "/"], &["-H", "Host: ashop.test", "/"]],
    },
    Case {
        name: "both",
        rule: &["--client", "127.0.5.0/24", "--path", "/login", "--method", "POST"],
        met: &[&["--interface", "127.0.5.7", "-d", "x", "/login"]],
        passed: &[
            &["--interface", "127.0.5.7", "/login"],
            &["--interface", "127.0.6.7", "-d", "x", "/login"],
            &["--interface", "127.0.5.7", "-d", "x", "/"],
        ],
    },
    Case { name: "service", rule: &["--to-service", "nginx"], met: &[&["/"], FIVE], passed: &[] },
];

fn ask(nginx: &Nginx, arguments: &[&str]) -> Result<Result<u16, i32>> {
    let (path, rest) = arguments.split_last().context("no path")?;
    let url = nginx.url(path);
    curl(&[rest, &["--path-as-is", &url]].concat())
}

/// Every condition: told in monitor mode, dropped in enforce mode, and nothing else is either.
#[test]
fn every_condition_refuses_what_it_says() -> Result<()> {
    let nginx = Nginx::plain()?;
    let port = nginx.port().to_string();
    let agent = Agent::start(&[])?;
    let (mut asked, mut answered) = (0, 0);
    let (mut would, mut dropped) = (0, 0);
    for case in CASES {
        let here: Vec<&str> = [case.rule, &["--port", &port]].concat();
        // Monitor: all of it reaches the application.
        rule(&agent, case.name, &here)?;
        for arguments in case.met.iter().chain(case.passed) {
            let got = ask(&nginx, arguments)?;
            ensure!(got.is_ok(), "{}: {arguments:?} got {got:?} in monitor mode", case.name);
        }
        (asked, answered) = (asked + case.met.len() + case.passed.len(), answered + case.met.len() + case.passed.len());
        would += case.met.len();
        let calls = agent.calls(&[nginx.port()], 2 * asked)?;
        ensure!(of(&calls, Kind::Server, "would_drop").len() == would, "{}: monitor", case.name);
        // Enforce: none of it does.
        let said = agent.say(&["mode", "enforce"])?;
        ensure!(said.code == 0, "{}", said.err);
        for arguments in case.met {
            let got = ask(&nginx, arguments)?;
            ensure!(matches!(got, Err(code) if RESET.contains(&code)), "{}: {arguments:?} got {got:?}", case.name);
        }
        for arguments in case.passed {
            let got = ask(&nginx, arguments)?;
            ensure!(got.is_ok(), "{}: {arguments:?} got {got:?}", case.name);
        }
        (asked, answered) = (asked + case.met.len() + case.passed.len(), answered + case.passed.len());
        dropped += case.met.len();
        let calls = agent.calls(&[nginx.port()], 2 * asked)?;
        let told = of(&calls, Kind::Server, "dropped");
        ensure!(told.len() == dropped, "{}: {} dropped, not {dropped}", case.name, told.len());
        ensure!(
            told.iter().all(|call| call.end == "reset" && call.attributes.status.is_none()),
            "{}: {told:#?}",
            case.name
        );
        ensure!(of(&calls, Kind::Server, "would_drop").len() == would, "{}: nothing is only told now", case.name);
        ensure!(nginx.logged(answered)?.len() == answered, "{}: the server's own log", case.name);
        let row = agent.lines(&["block", "list"])?;
        ensure!(row.len() == 1 && row[0]["hits"] == 2 * case.met.len(), "{}: {row:?}", case.name);
        ensure!(agent.say(&["mode", "monitor"])?.code == 0);
        ensure!(agent.say(&["block", "remove", case.name])?.code == 0);
    }
    agent.finish()
}

/// A rule about who calls is carried out where the client is: a connection is not even opened, and of a refused request
/// the server sees nothing.
#[test]
fn a_client_process_is_refused_where_it_sends() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let port = nginx.port().to_string();
    rule(&agent, "no-curl", &["--client-process", "curl", "--port", &port])?;
    // "Failed to connect to host", and at once.
    let start = std::time::Instant::now();
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]"] {
        ensure!(curl(&[&format!("http://{host}:{port}/")])? == Err(7), "{host}");
    }
    ensure!(start.elapsed() < std::time::Duration::from_secs(1));
    weir_tests::wait::until(std::time::Duration::from_secs(3), "two hits", || {
        Ok((agent.lines(&["block", "list"])?[0]["hits"] == 2).then_some(()))
    })?;
    ensure!(agent.say(&["block", "remove", "no-curl"])?.code == 0);
    rule(&agent, "no-path", &["--client-process", "curl", "--port", &port, "--path", "/no"])?;
    let got = curl(&[&nginx.url("/no")])?;
    ensure!(got.is_err(), "{got:?}");
    let mut other = Wire::connect(nginx.address())?;
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(other.answer("GET")?.status()? == 404);
    drop(other);
    let calls = agent.calls(&[nginx.port()], 3)?;
    ensure!(
        of(&calls, Kind::Client, "dropped").len() == 1 && of(&calls, Kind::Server, "allowed").len() == 1,
        "{calls:#?}"
    );
    ensure!(nginx.logged(1)?.len() == 1);
    agent.finish()
}

/// A server older than the agent, IPv6, and IPv4 clients of an IPv6 socket.
#[test]
fn both_families_and_older_servers() -> Result<()> {
    let nginx = Nginx::start(&Setup { listen: &["[::]:PORT ipv6only=off"], ..Setup::default() })?;
    let port = nginx.port();
    // Connections of before the gate are judged at their next request.
    let mut old = Wire::over(from("127.0.5.7".parse()?, ([127, 0, 0, 1], port).into())?)?;
    old.send("GET /old HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(old.answer("GET")?.status()? == 404);
    let agent = enforcing(&[])?;
    let text = port.to_string();
    rule(&agent, "six", &["--client", "::1", "--port", &text])?;
    rule(&agent, "mapped", &["--client", "127.0.5.0/24", "--port", &text])?;
    let four = format!("http://127.0.0.1:{port}/");
    let six = format!("http://[::1]:{port}/");
    ensure!(curl(&[&four])? == Ok(404));
    ensure!(matches!(curl(&[&six])?, Err(code) if RESET.contains(&code)));
    ensure!(matches!(curl(&["--interface", "127.0.5.9", &four])?, Err(code) if RESET.contains(&code)));
    old.send("GET /old HTTP/1.1\r\nHost: a\r\n\r\n")?;
    refused(&mut old).context("a connection of before the rule goes on")?;
    ensure!(nginx.logged(2)?.len() == 2);
    ensure!(agent.say(&["block", "remove", "six"])?.code == 0);
    ensure!(curl(&[&six])? == Ok(404), "a removed rule still refuses");
    agent.finish()
}

/// In a namespace of its own, from another one: nobody is on the allow-list there.
#[test]
fn clients_of_another_host() -> Result<()> {
    let (near, far) = (NetNs::new("server")?, NetNs::new("client")?);
    NetNs::cable(
        (&near, "s0", &["10.77.0.1/24", "fd77::1/64"]),
        (&far, "c0", &["10.77.0.2/24", "10.77.0.3/24", "fd77::2/64"]),
    )?;
    let nginx =
        Nginx::start(&Setup { listen: &["10.77.0.1:PORT", "[fd77::1]:PORT"], netns: Some(&near), ..Setup::default() })?;
    let agent = enforcing(&[])?;
    let port = nginx.port();
    let get = |client: &str, server: &str| -> Result<bool> {
        let (client, server) = (client.parse()?, format!("{server}:{port}").parse()?);
        far.inside(|| {
            let mut wire = Wire::over(from(client, server)?)?;
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            Ok(wire.answer("GET").is_ok())
        })
    };
    let add = |id: &str, client: &str, end: &str| -> Result<()> {
        let said = agent.say(&[
            "block", "add", "--reason", "a test", "--mode", "enforce", "--id", id, "--client", client, "--end", end,
        ])?;
        ensure!(said.code == 0, "{}", said.err);
        Ok(())
    };
    ensure!(get("10.77.0.2", "10.77.0.1")? && get("fd77::2", "[fd77::1]")?);
    add("four", "10.77.0.2", "reset")?;
    add("six", "fd77::2", "reset")?;
    ensure!(!get("10.77.0.2", "10.77.0.1")? && !get("fd77::2", "[fd77::1]")?);
    ensure!(get("10.77.0.3", "10.77.0.1")?, "its neighbour is refused too");
    // In silence: not even the handshake is answered.
    add("silent", "10.77.0.3", "drop")?;
    let refused = far.inside(|| {
        let mut command = far.command("curl")?;
        command.args(["-s", "-m", "2", "--interface", "10.77.0.3", &format!("http://10.77.0.1:{port}/")]);
        weir_tests::process::say(&mut command, std::time::Duration::from_secs(10))
    })?;
    ensure!(refused.code == 28, "curl ended with {}, not by its time limit", refused.code);
    let mode = agent.json(&["mode"])?;
    ensure!(mode["gate"]["connections_refused"].as_u64().is_some_and(|count| count > 0), "{mode}");
    ensure!(nginx.logged(3)?.len() == 3);
    // The attempts are told with the rule, and count in its metric.
    let rows = agent.lines(&["block", "list"])?;
    let row = rows.iter().find(|row| row["id"] == "silent").context("no rule")?;
    let attempts = row["attempts"].as_u64().context("no attempts")?;
    ensure!(row["hits"] == 0 && Some(attempts) == mode["gate"]["connections_refused"].as_u64(), "{row} {mode}");
    let counted = agent.page()?.sum("weir_blocked_total", &[("rule", "silent")]);
    ensure!((counted - attempts as f64).abs() < 0.5, "{counted}, not {attempts}");
    // Another rule in its slot begins at none.
    ensure!(agent.say(&["block", "remove", "silent"])?.code == 0);
    add("other", "10.77.0.4", "drop")?;
    let rows = agent.lines(&["block", "list"])?;
    let row = rows.iter().find(|row| row["id"] == "other").context("no rule")?;
    ensure!(row["attempts"].is_null(), "{row}");
    agent.finish()
}
