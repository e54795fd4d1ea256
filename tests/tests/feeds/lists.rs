//! Lists of addresses, as files and by HTTP.

use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::Scratch;
use weir_tests::wait;
use weir_tests::wire::{Server, Wire};

use super::{ids, logged, not_removed, until_refused, until_source};

fn agent(feeds: &str) -> Result<Agent> {
    Agent::configured(Some(&format!("enforce:\n  mode: enforce\n  audit: ''\n  feeds:\n{feeds}")), &[])
}

/// A file as feed: the kernel follows it, loopback is met where it is forced, and a list that lies changes nothing.
#[test]
fn a_file_is_followed() -> Result<()> {
    let nginx = Nginx::plain()?;
    let folder = Scratch::new("feed")?;
    let path = folder.write("list.txt", "# scanners\n127.0.5.7\n127.0.6.0/24 ; a net\n")?;
    let feed = format!(
        "  - {{name: file, path: {}, mode: enforce, force: true, server: {{port: {}}}}}\n  - {{name: soft, path: {0}, mode: enforce}}\n",
        path.display(),
        nginx.port()
    );
    let agent = agent(&feed)?;
    until_refused(&nginx, "127.0.5.7", true)?;
    until_refused(&nginx, "127.0.6.9", true)?;
    until_refused(&nginx, "127.0.5.8", false)?;
    ensure!(ids(&agent)? == ["feed-file"], "without force loopback is saved, and nothing is left of the list");
    until_source(&agent, "soft", "a refusal", |told| told["last_error"].is_string())?;
    not_removed(&agent, "feed-file", "is of feed file")?;

    let many: String = (0..40).fold("address;note\n".replace(';', ","), |mut text, n| {
        let _ = writeln!(text, "127.0.7.{n},x");
        text
    });
    folder.write("list.txt", many)?;
    until_refused(&nginx, "127.0.7.7", true)?;
    until_refused(&nginx, "127.0.5.7", false)?;
    for (bad, reason) in [
        ("", "empty"),
        ("127.0.7.7\n127.0.7.8\n", "shrunk"),
        ("<html>\nService unavailable\n</html>\n", "unparsable"),
        ("0.0.0.0/0\n127.0.7.7\n", "too_wide"),
        ("{\"data\": 1}", "unparsable"),
    ] {
        folder.write("list.txt", bad)?;
        wait::until(super::SOON, reason, || {
            let count = agent.page()?.sum("weir_feed_errors_total", &[("feed", "file"), ("reason", reason)]);
            Ok((count > 0.5).then_some(()))
        })?;
        until_refused(&nginx, "127.0.7.7", true)?;
        ensure!(agent.page()?.sum("weir_feed_entries", &[("feed", "file")]) > 39.5);
    }
    let told = until_source(&agent, "file", "an error", |told| told["last_error"].is_string())?;
    ensure!(told["entries"] == 40 && told["age_seconds"].as_f64().is_some_and(|age| age > 0.0), "{told}");
    fs::remove_file(&path)?;
    until_source(&agent, "file", "no file", |told| told["errors"]["unreadable"].is_u64())?;
    until_refused(&nginx, "127.0.7.7", true)?;
    folder.write("list.txt", "[\"127.0.8.7\", {\"ip\": \"127.0.8.8\"}]")?;
    // Still much shorter than the one in force.
    until_source(&agent, "file", "shrunk", |told| told["last_error"].as_str().is_some_and(|e| e.contains("shrank")))?;
    agent.finish()
}

/// A list of 100 000 is in force in the kernel within two seconds, and again when one address comes.
#[test]
fn a_hundred_thousand_are_in_force_soon() -> Result<()> {
    let nginx = Nginx::plain()?;
    let folder = Scratch::new("feed")?;
    let path = folder.write("list.txt", "127.0.5.7\n")?;
    let feed = format!(
        "  - {{name: long, path: {}, mode: enforce, force: true, server: {{port: {}}}, max: 100001}}\n",
        path.display(),
        nginx.port()
    );
    let agent = agent(&feed)?;
    until_refused(&nginx, "127.0.5.7", true)?;
    // None of them is another's neighbour.
    let mut text = (0..100_000_u32).fold(String::new(), |mut text, n| {
        let [_, b, c, d] = (2 * n).to_be_bytes();
        let _ = writeln!(text, "100.{}.{c}.{d}", 64 + b);
        text
    });
    for (entries, more, client) in [(100_000, "", None), (100_001, "127.0.6.7\n", Some("127.0.6.7"))] {
        text.push_str(more);
        folder.write("new", &text)?;
        let begun = Instant::now();
        fs::rename(folder.join("new"), &path)?;
        until_source(&agent, "long", "all of them", |told| told["entries"] == entries)?;
        let took = begun.elapsed();
        println!("{entries} prefixes in force after {took:?}");
        ensure!(took < Duration::from_secs(2), "{took:?}");
        if let Some(client) = client {
            until_refused(&nginx, client, true)?;
        }
    }
    let rows = agent.lines(&["block", "list"])?;
    ensure!(rows.len() == 1 && rows[0]["client.addresses"] == 100_001, "{}", rows.len());
    let resident = agent.resident()?;
    println!("resident {} MiB", resident >> 20);
    agent.finish()
}

/// What the server answers next, and what it was asked.
#[derive(Default)]
struct Script {
    answer: String,
    asked: Vec<Option<String>>,
}

/// By HTTP: not sent again while it is the same, kept while the server fails, and ended when it fails for too long.
#[test]
fn a_url_is_followed() -> Result<()> {
    let nginx = Nginx::plain()?;
    let script = Arc::new(Mutex::new(Script::default()));
    let of = Arc::clone(&script);
    let server = Server::start(move |mut wire: Wire| {
        while let Some(request) = wire.request()? {
            let mut script = of.lock().unwrap_or_else(PoisonError::into_inner);
            script.asked.push(request.header("if-none-match"));
            let same =
                request.header("if-none-match").is_some_and(|tag| script.answer.contains(&format!("ETag: {tag}\r")));
            let answer = if same {
                "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned()
            } else {
                script.answer.clone()
            };
            drop(script);
            wire.send(answer)?;
            wire.finish()?;
        }
        Ok(())
    })?;
    let answer = |status: &str, tag: &str, body: &str| {
        let tag = if tag.is_empty() { String::new() } else { format!("ETag: \"{tag}\"\r\n") };
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{tag}Content-Length: {length}\r\n\r\n{body}");
        script.lock().unwrap_or_else(PoisonError::into_inner).answer = text;
    };
    answer("200 OK", "one", "{\"data\":[{\"ip\":\"127.0.5.7\"}]}");
    let feed = format!(
        "  - {{name: web, url: 'http://{}/list?token=hidden', mode: enforce, force: true, refresh: 1s, keep: 4s, server: {{port: {}}}}}\n",
        server.address(),
        nginx.port()
    );
    let agent = agent(&feed)?;
    until_refused(&nginx, "127.0.5.7", true)?;
    wait::until(super::SOON, "a condition", || {
        let script = script.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(script.asked.iter().flatten().any(|tag| tag == "\"one\"").then_some(()))
    })?;
    answer("200 OK", "two", "127.0.6.7\n");
    until_refused(&nginx, "127.0.6.7", true)?;
    until_refused(&nginx, "127.0.5.7", false)?;
    // Longer than it is kept, but it is renewed all the time.
    std::thread::sleep(Duration::from_secs(5));
    until_refused(&nginx, "127.0.6.7", true)?;
    answer("503 Service Unavailable", "", "try later");
    let told = until_source(&agent, "web", "a failure", |told| told["errors"]["status"].as_u64() >= Some(2))?;
    ensure!(told["last_error"].as_str().is_some_and(|error| error.contains("503")), "{told}");
    ensure!(logged(&agent, "503")? == 1 && logged(&agent, "hidden")? == 0, "{}", agent.log()?);
    let age = agent.page()?.sum("weir_feed_age_seconds", &[("feed", "web")]);
    ensure!(age > 0.5, "{age}");
    until_refused(&nginx, "127.0.6.7", true)?;
    // For too long: the rule has ended, in the kernel too.
    wait::until(Duration::from_secs(9), "its end", || Ok(super::get(&nginx, "127.0.6.7")?.is_ok().then_some(())))?;
    until_source(&agent, "web", "none", |told| told["entries"] == 0 && told["rules"] == 0)?;
    answer("200 OK", "", "127.0.7.7\n");
    until_refused(&nginx, "127.0.7.7", true)?;
    agent.finish()?;
    server.stop().context("the server")
}

/// Mistakes in the configuration of feeds name their place.
#[test]
fn bad_feeds_are_refused_at_once() -> Result<()> {
    let folder = Scratch::new("config")?;
    let text = "enforce:\n  feeds:\n  - {name: a, url: 'ftp://x'}\n  - {name: a b, path: /x}\n  - {name: c, path: /x, mode: on}\n  - {name: d}\n  - {name: e, path: x}\n  - {name: f, path: /x, refesh: 1m}\n";
    let file = folder.write("weir.yaml", text)?;
    let mut command = std::process::Command::new(weir_tests::place::weir()?);
    command.args(["config", "check"]).arg(file);
    let said = weir_tests::process::say(&mut command, Duration::from_secs(10))?;
    let all = format!("{}{}", said.out, said.err);
    for wanted in [
        "weir.yaml:3:20: `enforce.feeds[0].url`: no http or https URL",
        "weir.yaml:4:12: `enforce.feeds[1].name`: write 1 to 58 characters",
        "weir.yaml:5:31: `enforce.feeds[2].mode`: \"on\" is not monitor or enforce",
        "weir.yaml:6:5: `enforce.feeds[3].url`: a feed has either `url` or `path`",
        "weir.yaml:7:21: `enforce.feeds[4].path`: `x` is not an absolute path",
        "unknown key `refesh`; did you mean `refresh`?",
    ] {
        ensure!(said.code == 2 && all.contains(wanted), "{wanted} in {}: {all}", said.code);
    }
    Ok(())
}
