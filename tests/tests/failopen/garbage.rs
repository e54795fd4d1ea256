//! What can't be meant, at every door rules come by: refused with its place, and nothing changes.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::agent::{Agent, ask};
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::Scratch;
use weir_tests::wait;

use super::{answered, unharmed};

/// Bodies, what the answer says, and which field it names.
const BODIES: &[(&str, u16, &str, &str)] = &[
    ("", 400, "not JSON", ""),
    ("{", 400, "not JSON", ""),
    ("null", 400, "no object", ""),
    ("[]", 400, "no object", ""),
    ("[1]", 400, "no object", ""),
    ("{}", 422, "no condition", ""),
    (r#"{"client": "203.0.113.7"}"#, 422, "not a rule", "client"),
    (r#"{"clients": {}}"#, 422, "unknown field", "clients"),
    (r#"{"client": {"adress": "203.0.113.7"}}"#, 422, "unknown field", "client.adress"),
    (r#"{"client": {"address": ["203.0.113.7", {}]}}"#, 422, "not a rule", "client.address[1]"),
    (r#"{"client": {"address": "0.0.0.0/0"}}"#, 422, "more addresses", "client.address"),
    (r#"{"client": {"address": "::ffff:0.0.0.0/96"}}"#, 422, "more addresses", "client.address"),
    (r#"{"client": {"address": "203.0.113.7/33"}}"#, 422, "write an IPv4", "client.address"),
    (r#"{"client": {"address": "fe80::1%eth0"}}"#, 422, "zone", "client.address"),
    (r#"{"client": {"port": 80}}"#, 422, "server.port", "client.port"),
    (r#"{"server": {"port": 65536}}"#, 422, "65536 is not a whole number", "server.port"),
    (r#"{"server": {"port": -1}}"#, 422, "not a rule", "server.port"),
    (r#"{"server": {"port": 0}}"#, 422, "1 to 65535", "server.port"),
    (r#"{"server": {"host": "a b"}}"#, 422, "a b", "server.host"),
    (r#"{"path": "good"}"#, 422, "must start with '/'", "path"),
    (r#"{"method": "GET /"}"#, 422, "token", "method"),
    (r#"{"client": {"address": "203.0.113.7"}, "ttl": "-1s"}"#, 422, "90s", "ttl"),
    (r#"{"client": {"address": "203.0.113.7"}, "ttl": 60}"#, 422, "not a rule", "ttl"),
    (r#"{"client": {"address": "203.0.113.7"}, "mode": "kill"}"#, 422, "monitor or enforce", "mode"),
    (r#"{"client": {"address": "203.0.113.7"}, "id": "a b"}"#, 422, "characters", "id"),
    (r#"{"path": "/x", "id": "stays"}"#, 422, "exists already", "id"),
    (r#"{"client": {"address": "203.0.113.7"}, "limit": {"rate": "0/s"}}"#, 422, "100/s", "limit.rate"),
    (r#"{"client": {"address": "203.0.113.7"}, "limit": {}}"#, 422, "missing field `rate`", "limit"),
];

/// What is asked for by command, and the same as JSON: both are told the same.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["--path", "good"], r#"{"path": "good"}"#),
    (&["--client", "203.0.113.7/33"], r#"{"client": {"address": "203.0.113.7/33"}}"#),
    (&["--client", "0.0.0.0/0"], r#"{"client": {"address": "0.0.0.0/0"}}"#),
    (&["--client", "fe80::1%eth0"], r#"{"client": {"address": "fe80::1%eth0"}}"#),
    (&["--port", "0"], r#"{"server": {"port": 0}}"#),
    (&["--host", "a b"], r#"{"server": {"host": "a b"}}"#),
    (&["--method", "GET /"], r#"{"method": "GET /"}"#),
    (&["--path", "/x", "--ttl", "0s"], r#"{"path": "/x", "ttl": "0s"}"#),
    (&["--path", "/x", "--rate", "0/s"], r#"{"path": "/x", "limit": {"rate": "0/s"}}"#),
    (&["--path", "/x", "--priority", "101"], r#"{"path": "/x", "priority": 101}"#),
    (&["--path", "/x", "--id", "stays"], r#"{"path": "/x", "id": "stays"}"#),
    (&[], "{}"),
];

const FEEDS: &[&[u8]] =
    &[b"", b"<html>moved</html>", b"\xff\xfe\x00", b"0.0.0.0/0\n", b"{\"a\": [", b"127.0.0.1\n", b"x\ny\nz\n"];

const FILES: &[&str] = &[
    "rules: [",
    "rules: {}",
    "rule: []",
    "rules:\n- {}\n",
    "rules:\n- {id: a, client: {address: nowhere}}\n",
    "rules:\n- {id: stays, client: {address: 203.0.113.7}}\n",
    "\u{0}",
];

const CONFIGURATIONS: &[&str] = &[
    "enforce: [",
    "enforce:\n  mode: maybe\n",
    "enforce:\n  breaker: {share: 2}\n",
    "enforce:\n  rules:\n  - {client: {address: ::/0}}\n",
    "enforce:\n  rules:\n  - {id: a, path: /a}\n  - {id: a, path: /b}\n",
    "enforce:\n  feeds:\n  - {name: x}\n",
];

const ARGUMENTS: &[&[&str]] = &[
    &["block", "add"],
    &["block", "add", "--reason", "t", "--port", "http"],
    &["block", "add", "--reason", "t", "--port", "80", "--mode", "kill"],
    &["block", "remove", "a/b"],
    &["mode", "kill"],
];

fn source(agent: &Agent, name: &str) -> Result<Value> {
    let mode = agent.json(&["mode"])?;
    let sources = mode["sources"].as_array().context("no sources")?;
    sources.iter().find(|source| source["name"] == *name).cloned().context("no such source")
}

fn errors(source: &Value) -> u64 {
    source["errors"].as_object().map_or(0, |errors| errors.values().filter_map(Value::as_u64).sum())
}

#[test]
fn garbage_at_every_door_changes_nothing() -> Result<()> {
    let nginx = Nginx::plain()?;
    let port = nginx.port();
    let (folder, lists) = (Scratch::new("rules")?, Scratch::new("lists")?);
    let list = lists.write("list.txt", "203.0.113.1\n203.0.113.2\n")?;
    let file = format!("rules:\n- {{id: filed, mode: enforce, force: true, path: /filed, server: {{port: {port}}}}}\n");
    folder.write("good.yaml", &file)?;
    let good = format!(
        "enforce:\n  mode: enforce\n  audit: ''\n  directory: {}\n  feeds:\n  - {{name: list, path: {}, refresh: 1s}}\n\
         \x20 rules:\n  - {{id: stays, mode: enforce, force: true, path: /stays, server: {{port: {port}}}}}\n",
        folder.path().display(),
        list.display()
    );
    let agent = Agent::configured(Some(&good), &[])?;
    let rules = || -> Result<Vec<String>> {
        let rows = agent.lines(&["block", "list"])?;
        Ok(rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect())
    };
    let same = || -> Result<()> {
        ensure!(rules()? == ["feed-list", "filed", "stays"], "{:?}", rules()?);
        ensure!(!answered(&nginx, "/stays")? && !answered(&nginx, "/filed")?, "a good rule is gone");
        Ok(())
    };
    let soon = Duration::from_secs(10);
    wait::until(soon, "all sources", || Ok((rules()?.len() == 3).then_some(())))?;
    let ((), count) = unharmed(&nginx, || {
        for (body, status, why, field) in BODIES {
            let got = ask(&agent.socket(), "POST", "/v1/blocks", body)?;
            ensure!(got.0 == *status && got.1.contains(why), "{body}: {} {}", got.0, got.1);
            let told: Value = serde_json::from_str(&got.1)?;
            ensure!(told["field"].as_str().unwrap_or_default() == *field, "{body}: {told}");
            let text = told["error"].as_str().unwrap_or_default();
            ensure!(text.contains(field), "{body}: {text} does not name {field}");
        }
        for (arguments, body) in COMMANDS {
            for dry in [&[][..], &["--dry-run"]] {
                let said = agent.say(&[&["block", "add", "--reason", "t"], *arguments, dry].concat())?;
                let got = ask(&agent.socket(), "POST", "/v1/blocks", body)?;
                let told: Value = serde_json::from_str(&got.1)?;
                let text = told["error"].as_str().context("no error")?;
                let taken = dry.len() == 1 && body.contains("stays");
                ensure!(
                    taken || (said.code == 1 && said.err.contains(text)),
                    "{arguments:?} {dry:?}: {} {}: {text}",
                    said.code,
                    said.err
                );
                ensure!(got.0 == 422 && (taken || said.out.is_empty()), "{arguments:?}: {} {}", got.0, said.out);
            }
        }
        let large = format!("{{\"reason\": \"{}\"}}", "x".repeat(2 << 20));
        // Refused before all of it is read: the answer may be lost with the connection.
        drop(ask(&agent.socket(), "POST", "/v1/blocks", &large));
        for arguments in ARGUMENTS {
            let said = agent.say(arguments)?;
            ensure!(said.code == 2, "{arguments:?} ended with {}: {}", said.code, said.err);
        }
        same()?;
        for content in CONFIGURATIONS {
            agent.rewrite(content)?;
            let said = agent.say(&["reload"])?;
            ensure!(said.code == 1 && said.err.contains("everything stays as it was"), "{content}: {}", said.err);
        }
        agent.rewrite(&good)?;
        same()?;
        for content in FILES {
            let before = errors(&source(&agent, "directory")?);
            folder.write("bad.yaml", content)?;
            wait::until(soon, content, || Ok((errors(&source(&agent, "directory")?) > before).then_some(())))?;
            fs::remove_file(folder.join("bad.yaml"))?;
            wait::until(soon, "a folder in order", || {
                Ok(source(&agent, "directory")?["last_error"].is_null().then_some(()))
            })?;
        }
        same()?;
        for content in FEEDS {
            let before = errors(&source(&agent, "list")?);
            fs::write(&list, content)?;
            let what = String::from_utf8_lossy(content);
            wait::until(soon, &what, || Ok((errors(&source(&agent, "list")?) > before).then_some(())))?;
            ensure!(source(&agent, "list")?["entries"] == 2, "{what}");
        }
        same()
    })?;
    ensure!(count > 500, "{count} good requests are no load");
    agent.stop_lossy()
}
