//! Rules that name both ends: the server's end hears from the client's end who calls, and where there is none on this
//! node, nobody is met.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::call::Kind;
use weir_tests::cgroup::Cgroup;
use weir_tests::netns::NetNs;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::wire::Wire;
use weir_tests::{place, process};

use super::{RESET, curl, enforcing, of, refused, rule};

/// This process, as the kernel names it.
fn own() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/self/comm")?.trim().to_owned())
}

/// Both ends on one node: only the named client is refused, and only by the named server.
#[test]
fn only_the_named_client_of_the_named_server() -> Result<()> {
    let nginx = Nginx::plain()?;
    // Another server, which is this process.
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}/", other.local_addr()?);
    let serving = std::thread::spawn(move || -> Result<()> {
        for _ in 0..2 {
            let (mut stream, _) = other.accept()?;
            let mut buffer = [0; 4096];
            ensure!(stream.read(&mut buffer)? > 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
        }
        Ok(())
    });
    let agent = enforcing(&[])?;
    // Told first.
    let said = agent.say(&[
        "block",
        "add",
        "--reason",
        "t",
        "--force",
        "--id",
        "pair",
        "--client-process",
        "curl",
        "--to-service",
        "nginx",
    ])?;
    ensure!(said.code == 0, "{}", said.err);
    ensure!(curl(&[&nginx.url("/")])? == Ok(404) && curl(&[&url])? == Ok(204));
    let mut kept = Wire::connect(nginx.address())?;
    kept.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(kept.answer("GET")?.status()? == 404);
    let calls = agent.calls(&[nginx.port()], 4)?;
    let told = of(&calls, Kind::Server, "would_drop");
    ensure!(told.len() == 1 && of(&calls, Kind::Client, "would_drop").is_empty(), "{calls:#?}");
    ensure!(agent.say(&["block", "remove", "pair"])?.code == 0);
    // Then dropped.
    rule(&agent, "pair", &["--client-process", "curl", "--to-service", "nginx"])?;
    for _ in 0..5 {
        let got = curl(&[&nginx.url("/")])?;
        ensure!(matches!(got, Err(code) if RESET.contains(&code)), "{got:?}");
    }
    ensure!(curl(&[&url])? == Ok(204), "a server that is not named refuses");
    kept.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(kept.answer("GET")?.status()? == 404, "a client that is not named is refused");
    // A connection of before its rule is judged at its next request, and one with a path by request.
    rule(&agent, "path", &["--client-process", &own()?, "--to-service", "nginx", "--path", "/no"])?;
    kept.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(kept.answer("GET")?.status()? == 404, "another path is refused");
    kept.send("GET /no HTTP/1.1\r\nHost: a\r\n\r\n")?;
    refused(&mut kept).context("a connection of before the rule goes on")?;
    // Four were answered, and the client's end of a refused one is no drop of its own.
    ensure!(nginx.logged(4)?.len() == 4);
    let calls = agent.calls(&[nginx.port()], 20)?;
    ensure!(of(&calls, Kind::Server, "dropped").len() == 6, "{calls:#?}");
    serving.join().map_err(|_| anyhow::anyhow!("the server's thread failed"))??;
    agent.finish()
}

/// Across namespaces, and where addresses are translated on the way, who calls is still proven.
#[test]
fn a_client_behind_translated_addresses() -> Result<()> {
    let (near, far) = (NetNs::new("server")?, NetNs::new("client")?);
    NetNs::cable((&near, "s0", &["10.78.0.1/24"]), (&far, "c0", &["10.78.0.2/24"]))?;
    let nginx = Nginx::start(&Setup { listen: &["10.78.0.1:PORT"], netns: Some(&near), ..Setup::default() })?;
    let port = nginx.port();
    near.rules(&format!(
        "table ip weir {{
            chain in {{ type nat hook prerouting priority -100
                tcp dport 8888 redirect to :{port}
            }}
            chain out {{ type nat hook input priority 100
                tcp dport {port} snat to 10.78.0.9
            }}
        }}"
    ))?;
    let agent = enforcing(&[])?;
    rule(&agent, "pair", &["--client-process", "curl", "--to-service", "nginx"])?;
    for port in [port, 8888] {
        let url = format!("http://10.78.0.1:{port}/");
        let mut command = far.command("curl")?;
        command.args(["-s", "-o", "/dev/null", "-m", "10", &url]);
        let said = process::say(&mut command, Duration::from_secs(20))?;
        ensure!(
            RESET.contains(&said.code),
            "curl at {port} ended with {}\n{}",
            said.code,
            agent.json(&["mode"])?["gate"]
        );
        far.inside(|| {
            let mut wire = Wire::connect(([10, 78, 0, 1], port).into())?;
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            ensure!(wire.answer("GET")?.status()? == 404);
            Ok(())
        })?;
    }
    ensure!(nginx.logged(2)?.len() == 2);
    agent.finish()
}

/// A client that the agent does not see, as one of another host: unknown is not met.
#[test]
fn an_unknown_client_is_not_met() -> Result<()> {
    let group = Cgroup::new("pairs")?;
    let nginx = group.inside(Nginx::plain)?;
    let agent = Agent::start(&[&format!("kernel.cgroup={}", group.path().display())])?;
    ensure!(agent.say(&["mode", "enforce"])?.code == 0);
    rule(&agent, "pair", &["--client-process", "curl", "--to-service", "nginx"])?;
    ensure!(curl(&[&nginx.url("/")])? == Ok(404), "a client that nobody proved is refused");
    let mut inside = Command::new(place::program("curl")?);
    inside.args(["-s", "-o", "/dev/null", "-m", "10", &nginx.url("/")]);
    let said = process::say(&mut group.command(&inside), Duration::from_secs(20))?;
    ensure!(RESET.contains(&said.code), "curl ended with {}", said.code);
    ensure!(nginx.logged(1)?.len() == 1);
    let row = agent.lines(&["block", "list"])?;
    let row = row.first().context("no rule")?;
    ensure!(row["hits"] == 1, "{row}");
    agent.finish()
}
