//! More than a table holds: what does not fit is refused whole, with the reason; what is there goes on.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use weir_tests::agent::ask;
use weir_tests::peers::nginx::Nginx;
use weir_tests::rules::{enforcing, rule};

use super::{answered, unharmed};

#[test]
fn full_tables_refuse_and_drop_nothing() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&["enforce.audit="])?;
    rule(&agent, "stays", &["--path", "/stays", "--port", &nginx.port().to_string()])?;
    let socket = agent.socket();
    let add = |id: &str, rule: serde_json::Value| -> Result<(u16, String)> {
        let mut rule = rule;
        rule["id"] = id.into();
        rule["mode"] = "enforce".into();
        ask(&socket, "POST", "/v1/blocks", &rule.to_string())
    };
    let ((), count) = unharmed(&nginx, || {
        // Identities: 64 of them.
        for n in 0..64 {
            let (status, text) = add(&format!("who{n}"), json!({"client": {"process": format!("none{n}")}}))?;
            ensure!(status == 200, "{n}: {status} {text}");
        }
        let (status, text) = add("who64", json!({"client": {"process": "none64"}}))?;
        ensure!(status == 422 && text.contains("all rules together name more than 64"), "{status} {text}");
        // Slots: 256, of which 65 are taken.
        for n in 0..191 {
            let (status, text) = add(&format!("port{n}"), json!({"server": {"port": 50_000 + n}}))?;
            ensure!(status == 200, "{n}: {status} {text}");
        }
        for n in 0..5 {
            let (status, text) = add(&format!("more{n}"), json!({"server": {"port": 60_000 + n}}))?;
            ensure!(status == 422 && text.contains("all 256 are taken"), "{status} {text}");
        }
        // What shares a slot still fits.
        let (status, text) = add("tree", json!({"server": {"port": (1..=20).collect::<Vec<_>>()}}))?;
        ensure!(status == 422 && text.contains("16 combinations"), "{status} {text}");
        ensure!(!answered(&nginx, "/stays")?, "a rule that was there lets pass");
        Ok(())
    })?;
    ensure!(count > 500, "{count} good requests are no load");
    let mode = agent.json(&["mode"])?;
    ensure!(mode["rules"] == 256 && mode["gate"]["segments_damaged"] == 0, "{mode}");
    // One goes, one fits, and the kernel half has it.
    ensure!(agent.say(&["block", "remove", "port0"])?.code == 0);
    rule(&agent, "late", &["--path", "/late", "--port", &nginx.port().to_string()])?;
    ensure!(!answered(&nginx, "/late")? && !answered(&nginx, "/stays")? && answered(&nginx, "/good")?);
    let rows = agent.lines(&["block", "list"])?;
    rows.iter().find(|row| row["id"] == "late").context("no late rule")?;
    agent.stop_lossy()
}
