//! As many addresses as a table has room for: both families, rules that overlap them, and more than fits.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::{Agent, ask};
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::place::Scratch;
use weir_tests::{process, wait};

use super::{get, until_source};

const LONG: Duration = Duration::from_mins(1);

/// A status, or none, over IPv6.
fn six(nginx: &Nginx) -> Result<Option<u16>> {
    let mut command = std::process::Command::new(weir_tests::place::program("curl")?);
    command.args(["-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}"]);
    let said = process::say(command.arg(format!("http://[::1]:{}/", nginx.port())), Duration::from_secs(20))?;
    Ok(if said.code == 0 { Some(said.out.trim().parse()?) } else { None })
}

/// 50 000 of each family, none another's neighbour; rules beside them are in force at once, by the documented order.
#[test]
fn a_hundred_thousand_of_both_families_and_rules_beside_them() -> Result<()> {
    let nginx = Nginx::start(&Setup { listen: &["[::]:PORT ipv6only=off"], ..Setup::default() })?;
    let folder = Scratch::new("feed")?;
    let mut text = (0..49_998_u32).fold(String::new(), |mut text, n| {
        let [_, b, c, d] = (2 * n).to_be_bytes();
        let _ = writeln!(text, "100.{}.{c}.{d}\n2001:db8:{n:x}::/48", 64 + b);
        text
    });
    text += "127.0.5.0/25\n127.0.6.7\n::1\n2001:db8:ffff::1\n";
    let path = folder.write("list.txt", &text)?;
    let feed = format!(
        "enforce:\n  mode: enforce\n  audit: ''\n  feeds:\n  - {{name: long, path: {}, mode: enforce, force: true, server: {{port: {}}}}}\n",
        path.display(),
        nginx.port()
    );
    let agent = Agent::configured(Some(&feed), &[])?;
    wait::until(LONG, "all of them", || {
        let told = super::source(&agent, "long").unwrap_or_default();
        Ok((told["entries"] == 100_000).then_some(()))
    })?;
    let refused = |client: &str| -> Result<bool> { Ok(get(&nginx, client)?.is_err()) };
    ensure!(refused("127.0.5.7")? && refused("127.0.6.7")? && six(&nginx)?.is_none());
    ensure!(!refused("127.0.5.200")? && !refused("127.0.6.8")?);
    // A rule of its own beside them: from asking to the first drop.
    let mut times = Vec::new();
    for n in 0..5 {
        let client = format!("127.0.7.{}", n + 1);
        let body = serde_json::json!({
            "id": format!("own{n}"), "mode": "enforce", "force": true, "client": {"address": client},
            "server": {"port": nginx.port()},
        });
        ensure!(!refused(&client)?);
        let begun = Instant::now();
        let (status, said) = ask(&agent.socket(), "POST", "/v1/blocks", &body.to_string())?;
        let asked = begun.elapsed();
        ensure!(status == 200, "{status} {said}");
        ensure!(refused(&client)?, "the answer came before the rule");
        times.push(asked);
    }
    println!("a rule beside 100 000 prefixes is in force after {times:?}");
    // Prefix lengths don't count: an allow wins over denies around it and inside it, a higher priority over both.
    let add = |arguments: &[&str]| -> Result<()> {
        let fixed = ["block", "add", "--reason", "t", "--force", "--mode", "enforce"];
        let said = agent.say(&[&fixed, arguments].concat())?;
        ensure!(said.code == 0, "{}", said.err);
        Ok(())
    };
    let port = nginx.port().to_string();
    add(&["--id", "friends", "--action", "allow", "--client", "127.0.5.0/26", "--port", &port])?;
    ensure!(!refused("127.0.5.7")? && refused("127.0.5.100")?);
    add(&["--id", "stern", "--priority", "1", "--client", "127.0.0.0/16", "--port", &port])?;
    ensure!(refused("127.0.5.7")? && refused("127.0.6.8")?);
    let said = agent.say(&["block", "explain", "friends"])?;
    let won = serde_json::from_str::<serde_json::Value>(&said.out).context(said.err)?["won_by"].clone();
    ensure!(won[0]["rule"] == "stern", "{won}");
    ensure!(agent.say(&["block", "remove", "stern"])?.code == 0);
    ensure!(!refused("127.0.5.7")? && refused("127.0.5.100")? && six(&nginx)?.is_none());
    agent.finish()
}

/// Lists that together have more prefixes than the table: the one that does not fit is refused, the other stays.
#[test]
fn more_than_the_table_has_room_for_is_refused() -> Result<()> {
    let folder = Scratch::new("feed")?;
    let list = |first: u8, count: u32| {
        (0..count).fold(String::new(), |mut text, n| {
            let [_, b, c, d] = (2 * n).to_be_bytes();
            let _ = writeln!(text, "{first}.{}.{c}.{d}", 64 + b);
            text
        })
    };
    let one = folder.write("one.txt", list(100, 150_000))?;
    let feeds = |more: &str| {
        format!("enforce:\n  audit: ''\n  feeds:\n  - {{name: one, path: {}, max: 200000}}\n{more}", one.display())
    };
    let agent = Agent::configured(Some(&feeds("")), &[])?;
    wait::until(LONG, "the first list", || {
        Ok((super::source(&agent, "one").unwrap_or_default()["entries"] == 150_000).then_some(()))
    })?;
    let two = folder.write("two.txt", list(101, 150_000))?;
    agent.rewrite(&feeds(&format!("  - {{name: two, path: {}, max: 200000}}\n", two.display())))?;
    ensure!(agent.say(&["reload"])?.code == 0);
    wait::until(LONG, "a refusal", || {
        Ok(super::source(&agent, "two").unwrap_or_default()["last_error"].is_string().then_some(()))
    })?;
    let told = until_source(&agent, "two", "a refusal", |told| told["last_error"].is_string())?;
    let why = told["last_error"].as_str().unwrap_or_default();
    ensure!(why.contains("more than 262144 client prefixes"), "{told}");
    ensure!(super::source(&agent, "one")?["entries"] == 150_000 && super::ids(&agent)? == ["feed-one"]);
    // A list that is longer than a feed may be.
    folder.write("two.txt", list(101, 1_000_000))?;
    wait::until(LONG, "another refusal", || {
        let told = super::source(&agent, "two").unwrap_or_default();
        Ok(told["last_error"].as_str().filter(|why| why.contains("more than 200000 entries")).map(drop))
    })?;
    agent.stop_lossy()
}
