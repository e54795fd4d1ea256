//! The verbs of the command line as their user types them: what goes to stdout and stderr, its shape, exit codes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::agent::{self, Agent};
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::{self, Scratch, program};
use weir_tests::process::{self, Process};
use weir_tests::wait;

const LIMIT: Duration = Duration::from_secs(15);

/// Requests that each verb is asked about: status by status, all of one client.
const ASKED: [(&str, usize); 4] = [("200", 3), ("404", 2), ("500", 1), ("503", 1)];

/// An agent that has seen both ends of [`ASKED`].
fn asked() -> Result<(Nginx, Agent)> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    for (status, count) in ASKED {
        load::curls(u32::try_from(count)?, &nginx.url(&format!("/s/{status}")))?;
    }
    let calls = agent.calls(&[nginx.port()], 14)?;
    ensure!(calls.len() == 14, "{} calls", calls.len());
    Ok((nginx, agent))
}

/// Lines of `weir ARGUMENTS`, which must end with 0 and say nothing on stderr.
fn lines(agent: &Agent, arguments: &[&str]) -> Result<Vec<String>> {
    let said = agent.say(arguments)?;
    ensure!(said.code == 0 && said.err.is_empty(), "{arguments:?}: {}: {}", said.code, said.err);
    Ok(said.out.lines().map(str::to_owned).collect())
}

#[test]
fn each_filter_gives_its_calls_and_no_other() -> Result<()> {
    let (nginx, agent) = asked()?;
    let peer = nginx.address().to_string();
    for (filters, expected) in [
        (&["--peer", &peer][..], 7),
        (&["--service", "nginx"], 7),
        (&["--service", "ng*", "--kind", "server"], 7),
        (&["--service", "nginx", "--kind", "client"], 0),
        (&["--service", "curl", "--status", "5xx"], 2),
        (&["--service", "curl", "--status", "404,5xx"], 4),
        (&["--service", "curl", "--status", "503"], 1),
        (&["--service", "curl", "--errors"], 4),
        (&["--service", "nginx", "--errors"], 2),
        (&["--service", "nginx", "--method", "GET", "--protocol", "http"], 7),
        (&["--service", "nginx", "--method", "POST"], 0),
        (&["--service", "nginx", "--slower-than", "1h"], 0),
        (&["--service", "nginx", "--slower-than", "1ns", "--since", "1h"], 7),
        (&["--service", "nginx", "--since", "2100-01-01T00:00:00Z"], 0),
        (&["--service", "nginx", "--last", "3"], 3),
        (&["--service", "nobody"], 0),
    ] {
        let text = lines(&agent, &[&["calls"], filters].concat())?;
        ensure!(text.len() == expected, "{filters:?}: {} lines, not {expected}", text.len());
        let json = lines(&agent, &[&["calls", "--json"], filters].concat())?;
        ensure!(json.len() == expected, "{filters:?}: {} documents, not {expected}", json.len());
        for line in json {
            let call: Value = serde_json::from_str(&line)?;
            ensure!(call["span_id"].is_string() && call["end"] == "complete", "{line}");
        }
    }
    for (filter, value) in
        [("status", "5x"), ("slower-than", "soon"), ("since", "yesterday"), ("kind", "both"), ("last", "-1")]
    {
        let said = agent.say(&["calls", &format!("--{filter}={value}")])?;
        ensure!(said.code == 2 && said.out.is_empty(), "{filter}: {}: {}", said.code, said.out);
        ensure!(said.err.contains(&format!("--{filter}")), "{filter}: {}", said.err);
    }
    agent.finish()
}

#[test]
fn followed_calls_come_as_they_end() -> Result<()> {
    let (nginx, agent) = asked()?;
    let scratch = Scratch::new("follow")?;
    let mut command = agent::command(&agent.socket())?;
    command.args(["calls", "--follow", "--json", "--service", "nginx", "--status", "4xx", "--last", "1"]);
    let mut follower = Process::start(command, "calls", &scratch)?;
    let shown = |follower: &Process, count: usize| {
        let what = format!("{count} lines");
        wait::until(LIMIT, &what, || Ok(Some(follower.output()?.lines().count()).filter(|&lines| lines >= count)))
    };
    assert_eq!(shown(&follower, 1)?, 1);
    load::curls(2, &nginx.url("/s/404"))?;
    load::curls(2, &nginx.url("/s/200"))?;
    load::curls(1, &nginx.url("/s/404"))?;
    assert_eq!(shown(&follower, 4)?, 4);
    let output = follower.output()?;
    for line in output.lines() {
        let call: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(call["attributes"]["http.response.status_code"] == 404, "{line}");
    }
    ensure!(follower.ended()?.is_none(), "it ended by itself");
    agent.finish()
}

#[test]
fn lists_and_documents_have_their_shape() -> Result<()> {
    let (nginx, agent) = asked()?;
    let services = agent.lines(&["services"])?;
    for name in ["nginx", "curl"] {
        let found = services.iter().filter(|row| row["service"]["service.name"] == name).count();
        ensure!(found == 1, "{found} rows of {name}: {services:?}");
    }
    // An open connection: both of its ends, each with the other's name.
    let mut stream = TcpStream::connect(nginx.address())?;
    let request = b"GET /s/200 HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request)?;
    ensure!(stream.read(&mut [0; 4096])? > 0, "no answer");
    let local = stream.local_addr()?.to_string();
    let rows = wait::until(LIMIT, "both ends", || {
        let rows = agent.lines(&["connections"])?;
        let of_this =
            |row: &Value| (row["local"] == local.as_str() || row["remote"] == local.as_str()) && row["calls"] == 1;
        Ok(Some(rows.into_iter().filter(of_this).collect::<Vec<_>>()).filter(|rows| rows.len() == 2))
    })?;
    for row in &rows {
        ensure!(row["visibility"] == "plaintext" && row["protocol"] == "http", "{row}");
        let server = row["role"] == "server";
        let ours = if server { "/service/service.name" } else { "/peer/service.name" };
        ensure!(row.pointer(ours).is_some_and(|name| name == "nginx"), "{row}");
        let sent = row[if server { "bytes_received" } else { "bytes_sent" }].as_u64();
        ensure!(sent == Some(request.len() as u64), "{row}");
    }
    // No terminal: addresses are whole, for whoever looks for them.
    let table = lines(&agent, &["connections"])?;
    ensure!(table.iter().filter(|line| line.contains(&local)).count() == 2, "{table:?}");
    drop(stream);
    let stats = agent.json(&["stats"])?;
    ensure!(stats["pid"].as_u64() == Some(u64::from(agent.pid())), "{stats}");
    let doctor = agent.json(&["doctor"])?;
    ensure!(doctor["fit"] == true && doctor["agent_running"] == true, "{doctor}");
    for row in doctor["rows"].as_array().context("no rows")? {
        let missing = row["standing"] != "ok" && row["standing"] != "unknown" && row["remedy"] == "";
        ensure!(!missing, "no remedy: {row}");
    }
    // The same answers without our client.
    let mut curl = Command::new(program("curl")?);
    curl.args(["-sS", "--fail", "--unix-socket"]).arg(agent.socket()).arg("http://weir/v1/calls?last=20");
    assert_eq!(process::run(&mut curl, LIMIT)?, agent.say(&["calls", "--json"])?.out);
    agent.finish()
}

#[test]
fn an_agent_in_the_foreground_writes_a_document_a_call() -> Result<()> {
    let _node = Agent::none()?;
    let nginx = Nginx::plain()?;
    let scratch = Scratch::new("foreground")?;
    for output in ["json", "live"] {
        let port = place::free_port()?;
        let socket = scratch.join(&format!("{output}.sock"));
        let mut command = agent::command(&socket)?;
        command.args(["run", "--log=error", "--output", output, &format!("--set=prometheus.listen=127.0.0.1:{port}")]);
        let mut process = Process::start(command, output, &scratch)?;
        wait::until(LIMIT, "a ready agent", || {
            ensure!(process.ended()?.is_none(), "it ended: {}", process.output()?);
            Ok(load::curl(&["-f", &format!("http://127.0.0.1:{port}/readyz")]).ok())
        })?;
        load::curls(3, &nginx.url("/s/404"))?;
        wait::until(LIMIT, "six lines", || Ok((process.output()?.lines().count() >= 6).then_some(())))?;
        ensure!(process.terminate(LIMIT)?.success(), "{}", process.output()?);
        let said = process.output()?;
        assert_eq!(said.lines().count(), 6, "{said}");
        for line in said.lines() {
            if output == "json" {
                let call: Value = serde_json::from_str(line)?;
                ensure!(call["attributes"]["http.response.status_code"] == 404, "{line}");
            } else {
                ensure!(line.contains("GET /s/{id}") && line.contains(" 404 ") && !line.contains('\x1b'), "{line}");
            }
        }
        ensure!(!socket.exists(), "the socket is left behind");
    }
    Ok(())
}

/// What `weir ARGUMENTS` writes to a terminal of 80 columns.
fn on_terminal(agent: &Agent, arguments: &str, no_color: &str) -> Result<String> {
    let mut command = Command::new(program("script")?);
    let line = format!("stty cols 80; {} {arguments}", place::weir()?.display());
    command.args(["-qec", &line, "/dev/null"]).env("WEIR_CONTROL__SOCKET", agent.socket()).env("NO_COLOR", no_color);
    process::run(&mut command, LIMIT)
}

#[test]
fn terminals_get_colours_and_lines_that_fit() -> Result<()> {
    let (nginx, agent) = asked()?;
    let _open = TcpStream::connect(nginx.address())?;
    for verb in ["calls", "connections", "services", "stats", "doctor"] {
        let plain = on_terminal(&agent, verb, "1")?;
        ensure!(!plain.contains('\x1b'), "{verb}: colours in spite of NO_COLOR");
        for line in plain.lines() {
            let line = line.trim_end_matches('\r');
            ensure!(line.chars().count() <= 80, "{verb}: {} columns: {line}", line.chars().count());
        }
        ensure!(on_terminal(&agent, verb, "")?.contains('\x1b'), "{verb}: no colours");
    }
    ensure!(on_terminal(&agent, "connections", "1")?.contains(&format!(":{} ", nginx.port())), "the port is cut");
    agent.finish()
}

#[test]
fn a_reader_that_goes_is_no_failure() -> Result<()> {
    let (_nginx, agent) = asked()?;
    let mut command = Command::new(program("bash")?);
    command.args(["-c", "set -o pipefail; \"$0\" calls --json | head -n 1"]).arg(place::weir()?);
    let said = process::say(command.env("WEIR_CONTROL__SOCKET", agent.socket()), LIMIT)?;
    ensure!(said.code == 0 && said.err.is_empty() && said.out.lines().count() == 1, "{said:?}");
    agent.finish()
}

#[test]
fn without_an_agent() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("cli")?;
    let socket = scratch.join("nobody.sock");
    let weir = |arguments: &[&str]| process::say(agent::command(&socket)?.args(arguments), LIMIT);
    for verb in ["calls", "connections", "services", "stats", "graph", "reload"] {
        let said = weir(&[verb])?;
        ensure!(said.code == 3 && said.out.is_empty(), "{verb}: {said:?}");
        ensure!(said.err.contains(&socket.display().to_string()), "{verb}: {}", said.err);
        let help = weir(&[verb, "--help"])?;
        ensure!(help.code == 0 && help.out.contains("Usage: weir ") && help.err.is_empty(), "{verb}: {help:?}");
        for line in help.out.lines() {
            ensure!(line.chars().count() <= 120, "{verb} --help: {line}");
        }
    }
    let doctor = weir(&["doctor", "--json"])?;
    let report: Value = serde_json::from_str(&doctor.out)?;
    ensure!(doctor.code == 0 && report["agent_running"] == false && report["fit"] == true, "{doctor:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let said = weir(&["completions", shell])?;
        ensure!(said.code == 0 && said.out.contains("connections") && said.err.is_empty(), "{shell}: {}", said.err);
    }
    ensure!(weir(&["man"])?.out.contains(".TH weir 1"), "no manual page");
    let schema: Value = serde_json::from_str(&weir(&["config", "schema"])?.out)?;
    ensure!(schema["properties"]["otlp"].is_object(), "{schema}");
    for wrong in
        [&["nosuch"][..], &["completions", "nosuch"], &["graph", "--format", "x"], &["run", "--output", "x"], &[]]
    {
        let said = weir(wrong)?;
        ensure!(said.code == 2 && said.out.is_empty() && !said.err.is_empty(), "{wrong:?}: {said:?}");
    }
    Ok(())
}

/// Bytes of a simple generator: any, but the same each time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

/// Hands the bytes over, reads until the other side has had enough of them or says nothing for a while.
fn hostile(mut stream: impl Read + Write, bytes: &[u8]) {
    // A refusal, a reset and silence are all good answers: what counts is how the agent is afterwards.
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 4096]);
}

#[test]
fn hostile_bytes_at_its_doors_do_not_hurt_it() -> Result<()> {
    let (nginx, agent) = asked()?;
    let before = agent.resident()?;
    let mut cases: Vec<Vec<u8>> = (1..40).map(|seed| noise(seed, 4096)).collect();
    cases.extend([
        [b"GET /v1/calls HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(100_000)].concat(),
        [b"GET /".to_vec(), b"a".repeat(4 << 20)].concat(),
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"GET /v1/calls?since=%ff%00&last=99999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        Vec::new(),
    ]);
    for bytes in &cases {
        let door = UnixStream::connect(agent.socket())?;
        door.set_read_timeout(Some(Duration::from_millis(100)))?;
        door.set_write_timeout(Some(Duration::from_secs(1)))?;
        hostile(&door, bytes);
        let page = TcpStream::connect(agent.metrics())?;
        page.set_read_timeout(Some(Duration::from_millis(100)))?;
        page.set_write_timeout(Some(Duration::from_secs(1)))?;
        hostile(&page, bytes);
        let _ = page.shutdown(Shutdown::Both);
        // And through what it watches.
        let served = TcpStream::connect(nginx.address())?;
        served.set_read_timeout(Some(Duration::from_millis(100)))?;
        served.set_write_timeout(Some(Duration::from_secs(1)))?;
        hostile(&served, bytes);
    }
    ensure!(agent.say(&["stats", "--json"])?.code == 0, "it does not answer");
    let grown = agent.resident()?.saturating_sub(before);
    ensure!(grown < 32 << 20, "{grown} bytes more are resident");
    agent.finish()
}

#[test]
fn calls_on_disk_outlive_sigkill() -> Result<()> {
    let nginx = Nginx::plain()?;
    let disk = Scratch::new("disk")?;
    let path = format!("recent.disk.path={}", disk.join("calls.redb").display());
    let mut agent = Agent::start(&[&path, "recent.disk.size=256MiB"])?;
    load::curls(10, &nginx.url("/s/200"))?;
    let mut first: Vec<String> = agent.calls(&[nginx.port()], 20)?.into_iter().map(|call| call.span_id).collect();
    first.sort();
    ensure!(first.len() == 20, "{} calls", first.len());
    // What is kept is written at intervals; then it is killed in the middle of more.
    std::thread::sleep(Duration::from_secs(6));
    let url = nginx.url("/s/200");
    for _ in 0..3 {
        std::thread::scope(|scope| -> Result<()> {
            let load = scope.spawn(|| load::h2load(30_000, 8, std::slice::from_ref(&url)));
            std::thread::sleep(Duration::from_millis(300));
            agent.kill()?;
            let load = load.join().map_err(|_| anyhow::anyhow!("the load's thread failed"))??;
            ensure!((load.answered, load.errors) == (30_000, 0), "{load:?}");
            Ok(())
        })?;
        agent.again()?;
        let kept = agent.calls_now(&[nginx.port()])?;
        let kept: std::collections::BTreeSet<&str> = kept.iter().map(|call| call.span_id.as_str()).collect();
        let gone = first.iter().filter(|span| !kept.contains(span.as_str())).count();
        ensure!(gone == 0, "{gone} of the first calls are gone");
    }
    agent.stop()
}
