//! TLS: whom a client asks for stands in its hello, in clear.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::place::{self, Scratch};
use weir_tests::process::{self, Process};
use weir_tests::wait;

use crate::stage::Stage;

/// Where the TLS server is; DNS gave no name for it.
const SERVER: &str = "10.91.0.30";

const PYTHON: &str = "
import socket, ssl, sys
address, port, name = sys.argv[1:]
context = ssl._create_unverified_context()
with socket.create_connection((address, int(port))) as plain, context.wrap_socket(plain, server_hostname=name) as tls:
    tls.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    while tls.recv(4096):
        pass
";

const NODE: &str = "
import tls from 'node:tls'
const [host, port, servername] = process.argv.slice(2)
const socket = tls.connect({ host, port, servername, rejectUnauthorized: false }, () => socket.end('GET / HTTP/1.0\\r\\n\\r\\n'))
socket.resume()
";

/// `openssl s_server -www` outside; gives its port.
fn server(stage: &Stage, scratch: &Scratch) -> Result<(Process, u16)> {
    let (key, certificate) = (scratch.join("key.pem"), scratch.join("certificate.pem"));
    let mut make = Command::new(place::program("openssl")?);
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    make.args(["-subj", "/CN=api.test", "-keyout"]);
    process::run(make.arg(&key).arg("-out").arg(&certificate), Duration::from_mins(1))?;
    let port = place::free_port()?;
    let mut command = stage.outside.command("openssl")?;
    command
        .args(["s_server", "-www", "-accept", &format!("{SERVER}:{port}"), "-key"])
        .arg(key)
        .arg("-cert")
        .arg(certificate);
    let server = Process::start(command, "tls", scratch)?;
    wait::until(Duration::from_secs(30), "the TLS server", || Ok(server.output()?.contains("ACCEPT").then_some(())))?;
    Ok((server, port))
}

#[test]
fn a_tls_client_says_whom_it_asks_for() -> Result<()> {
    let stage = Stage::new(Some(&["--host-record=dns.test,10.91.0.30,1"]), &[])?;
    let scratch = Scratch::new("tls")?;
    let (_server, port) = server(&stage, &scratch)?;
    let text = port.to_string();
    let resolve = |name: &str| format!("{name}:{port}:{SERVER}");
    let url = |name: &str| format!("https://{name}:{port}/");
    for _ in 0..3 {
        stage.run("curl", &["-skf", "--resolve", &resolve("api.test"), &url("API.test")])?;
    }
    // An address is none, and TLS without a name stays an address.
    stage.run("curl", &["-skf", &url(SERVER)])?;
    stage.run("python3", &[&stage.script("snake.py", PYTHON)?, SERVER, &text, "snake.test"])?;
    stage.run("node", &[&stage.script("knot.mjs", NODE)?, SERVER, &text, "knot.test"])?;
    // A hello longer than 2 KiB, as those with keys of new kinds are.
    let protocols: Vec<String> = (0..40).map(|at| format!("{at:050}")).collect();
    let long = ["-connect", &format!("{SERVER}:{port}"), "-servername", "long.test", "-alpn", &protocols.join(",")];
    stage.run("openssl", &[&["s_client", "-quiet", "-no_ign_eof"], &long[..]].concat())?;
    let name = |name: &str| format!("external:{name}");
    stage.is(&[
        ("curl", &name("api.test"), port, (0, 0)),
        ("curl", &name(SERVER), port, (0, 0)),
        ("snake", &name("snake.test"), port, (0, 0)),
        ("knot", &name("knot.test"), port, (0, 0)),
        ("openssl", &name("long.test"), port, (0, 0)),
    ])?;
    let graph = stage.agent.json(&["graph"])?;
    let api = graph["edges"]
        .as_array()
        .context("no edges")?
        .iter()
        .find(|row| row["server"]["service.name"] == "external:api.test");
    let api = api.context("no edge")?;
    ensure!(api["connections"] == 3 && api["tls"] == true && api["protocol"] == "tls", "{api}");
    // While it is open, too; and the name that DNS gave is nearer.
    let hold = "import socket, ssl, sys, time\n\
                tls = ssl._create_unverified_context().wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2]))), \
                server_hostname='held.test')\nprint('open', flush=True)\ntime.sleep(600)\n";
    let held = stage.command("python3", &[&stage.script("held.py", hold)?, SERVER, &text])?;
    let held = Process::start(held, "held", &scratch)?;
    wait::until(Duration::from_secs(30), "the handshake", || Ok(held.output()?.contains("open").then_some(())))?;
    let address: IpAddr = SERVER.parse()?;
    let rows = wait::until(Duration::from_secs(10), "the connection", || {
        let rows = stage.agent.lines(&["connections"])?;
        let remote = std::net::SocketAddr::new(address, port).to_string();
        let rows: Vec<_> =
            rows.into_iter().filter(|row| row["remote"] == remote.as_str() && !row["tls"].is_null()).collect();
        Ok((!rows.is_empty()).then_some(rows))
    })?;
    ensure!(
        rows.len() == 1 && rows[0]["tls"]["server_name"] == "held.test" && rows[0]["visibility"] == "opaque",
        "{rows:?}"
    );
    let said = stage.agent.say(&["connections"])?;
    ensure!(said.out.contains("opaque: tls (held.test)"), "{}", said.out);
    drop(held);
    stage.run("curl", &["-skf", &url("dns.test")])?;
    stage.is(&[
        ("curl", &name("api.test"), port, (0, 0)),
        ("curl", &name("dns.test"), port, (0, 0)),
        ("curl", &name(SERVER), port, (0, 0)),
        ("snake", &name("snake.test"), port, (0, 0)),
        ("knot", &name("knot.test"), port, (0, 0)),
        ("openssl", &name("long.test"), port, (0, 0)),
        ("held", &name("held.test"), port, (0, 0)),
    ])?;
    stage.finish()
}
