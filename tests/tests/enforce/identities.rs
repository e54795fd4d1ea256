//! Rules that name identities come and go; nobody keeps the number of one that is gone.

use anyhow::{Result, ensure};
use serde_json::json;
use weir_tests::agent::{self, Agent};
use weir_tests::call::Kind;
use weir_tests::peers::nginx::Nginx;
use weir_tests::wire::Wire;

use super::{curl, enforcing};

/// The identity of a rule that is gone leaves its number to another one; who had it before is not met.
#[test]
fn a_number_that_is_given_anew_is_nobody_of_before() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let is_answered = || Ok::<_, anyhow::Error>(curl(&[&nginx.url("/one")])?.is_ok());
    for (id, answered, key, name) in [
        ("one", false, "service", "nginx"),
        ("two", true, "service", "somebody-else"),
        ("three", false, "process", "nginx"),
        ("four", true, "process", "somebody-else"),
    ] {
        ensure!(is_answered()?, "before {id}");
        let rule = json!({ "id": id, "server": { key: name }, "mode": "enforce", "force": true }).to_string();
        let (status, said) = agent::ask(&agent.socket(), "POST", "/v1/blocks", &rule)?;
        ensure!(status / 100 == 2, "{id}: {status} {said}");
        ensure!(is_answered()? == answered, "{id}: {key} {name}");
        ensure!(agent.say(&["block", "remove", id])?.code == 0);
    }
    agent.finish()
}

/// All keys of an end hold together, in both modes: who has one of two is not met.
#[test]
fn one_of_two_identities_is_not_enough() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    let ask = || -> Result<bool> {
        let mut wire = Wire::connect(nginx.address())?;
        wire.send("GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        Ok(wire.answer("GET").is_ok())
    };
    // This process is the client: it is known before the rules are, as they ask for.
    ensure!(ask()?);
    let calls = agent.calls(&[nginx.port()], 2)?;
    let name = calls.iter().find(|call| call.kind == Kind::Client).and_then(|call| call.service.name.clone());
    let (name, comm) = (name, std::fs::read_to_string("/proc/self/comm")?.trim().to_owned());
    let mut seen = 2;
    for (n, (key, end, met)) in [
        ("server", json!({ "service": "nginx", "process": "nginx" }), true),
        ("server", json!({ "service": ["somebody-else", "nginx"], "process": ["nginx", "nobody"] }), true),
        ("server", json!({ "service": "nginx", "process": "somebody-else" }), false),
        ("server", json!({ "service": "somebody-else", "process": "nginx" }), false),
        ("server", json!({ "service": "nginx", "unit": "somebody-else" }), false),
        ("server", json!({ "service": "nginx", "address": "127.0.0.1" }), true),
        ("server", json!({ "service": "nginx", "address": "127.0.0.2" }), false),
        ("client", json!({ "service": name, "process": comm }), true),
        ("client", json!({ "service": name, "process": "somebody-else" }), false),
        ("client", json!({ "service": "somebody-else", "process": comm }), false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut rule = json!({ "id": format!("r{n}"), "mode": "enforce", "force": true, "path": "/no" });
        rule[key] = end;
        let (status, said) = agent::ask(&agent.socket(), "POST", "/v1/blocks", &rule.to_string())?;
        ensure!(status / 100 == 2, "{rule}: {status} {said}");
        ensure!(ask()?, "{rule}: dropped in monitor mode");
        seen += 2;
        agent.calls(&[nginx.port()], seen)?;
        let hits = agent.lines(&["block", "list"])?[0]["hits"].clone();
        ensure!(hits == i32::from(met), "{rule}: {hits} hits in monitor mode");
        ensure!(agent.say(&["mode", "enforce"])?.code == 0);
        ensure!(ask()? != met, "{rule}: {met}");
        // A request that is refused where it is sent has no server's side.
        seen += if key == "client" && met { 1 } else { 2 };
        agent.calls(&[nginx.port()], seen)?;
        let hits = agent.lines(&["block", "list"])?[0]["hits"].clone();
        ensure!(hits == 2 * i32::from(met), "{rule}: {hits} hits");
        ensure!(agent.say(&["mode", "monitor"])?.code == 0);
        ensure!(agent.say(&["block", "remove", &format!("r{n}")])?.code == 0);
    }
    agent.finish()
}
