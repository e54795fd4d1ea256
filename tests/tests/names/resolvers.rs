//! Resolvers of many kinds, all the same on the wire.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::dns::Dns;
use weir_tests::peers::runtime::Ask;
use weir_tests::peers::runtime::client;
use weir_tests::process;

use crate::stage::{RESOLVER, Stage, peers};

/// glibc's `getaddrinfo`.
const GLIBC: &str = "import sys, urllib.request\nurllib.request.urlopen(sys.argv[1]).read()\n";

/// c-ares.
const C_ARES: &str = "
import dns from 'node:dns'
import http from 'node:http'
const [host, port] = process.argv.slice(2)
dns.resolve4(host, (error, [address]) => {
  if (error) throw error
  http.get({ host: address, port, agent: false }, answer => answer.resume())
})
";

/// As musl asks: from a socket that is not connected, both kinds at once under ids of its own.
const UNCONNECTED: &str = "
import socket, struct, sys
host, port, server = sys.argv[1:]
name = b''.join(bytes([len(part)]) + part.encode() for part in host.split('.')) + b'\\0'
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ask.bind(('', 0))
for number, kind in ((7, 1), (8, 28)):
    ask.sendto(struct.pack('>6H', number, 256, 1, 0, 0, 0) + name + struct.pack('>2H', kind, 1), (server, 53))
answers = {struct.unpack('>H', data[:2])[0]: data for data in (ask.recvfrom(512)[0] for _ in range(2))}
address = socket.inet_ntoa(answers[7][-4:])
http = socket.create_connection((address, int(port)))
http.sendall(b'GET / HTTP/1.1\\r\\nHost: ' + address.encode() + b'\\r\\n\\r\\n')
assert http.recv(100).endswith(b'ok')
";

#[test]
fn every_resolver_names_who_is_outside() -> Result<()> {
    let names = [("curl", 11), ("glibc", 12), ("ares", 13), ("go", 14), ("musl", 15), ("refused", 16)];
    let records: Vec<String> =
        names.iter().map(|(name, last)| format!("--host-record={name}.test,10.91.0.{last},300")).collect();
    let options: Vec<&str> = records.iter().map(String::as_str).collect();
    let stage = Stage::new(Some(&options), &[])?;
    let port = stage.port.to_string();
    // The name that DNS gave is nearer to the address than the one that the request names.
    for _ in 0..3 {
        stage.run("curl", &["-sf", "-H", "Host: front.test", &stage.url("curl.test")])?;
    }
    let refused =
        process::say(&mut stage.command("curl", &["-s", "http://refused.test:9/"])?, Duration::from_secs(20))?;
    ensure!(refused.code == 7, "curl ended with {}", refused.code);
    stage.run("python3", &[&stage.script("glibc.py", GLIBC)?, &stage.url("glibc.test")])?;
    stage.run("node", &[&stage.script("ares.mjs", C_ARES)?, "ares.test", &port])?;
    stage.run("python3", &[&stage.script("unconnected.py", UNCONNECTED)?, "musl.test", &port, RESOLVER])?;
    let mut go: Command = client(Ask::Go)?;
    go.args([stage.url("go.test").trim_end_matches('/'), "2"]);
    let program = go.get_program().to_string_lossy().into_owned();
    let arguments: Vec<String> = go.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = [&program[..]].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    stage.run("env", &[&["GODEBUG=netdns=go"], &arguments[..]].concat())?;
    stage.is(&[
        ("curl", "external:curl.test", stage.port, (3, 0)),
        ("curl", "external:refused.test", 9, (0, 1)),
        ("glibc", "external:glibc.test", stage.port, (1, 0)),
        ("ares", "external:ares.test", stage.port, (1, 0)),
        ("unconnected", "external:musl.test", stage.port, (1, 0)),
        ("peer", "external:go.test", stage.port, (8, 0)),
    ])?;
    ensure!(peers(&stage, "unconnected", 14)? == [Some("external:musl.test".to_owned())]);
    stage.finish()
}

#[test]
fn aliases_stubs_on_loopback_and_ipv6() -> Result<()> {
    let stage = Stage::new(
        Some(&[
            "--host-record=shop.test,10.91.0.21,300",
            "--cname=www.test,edge.test,300",
            "--cname=edge.test,shop.test,300",
            "--host-record=six.test,fd91::2,300",
        ]),
        &[],
    )?;
    stage.client.resolver("127.0.0.53")?;
    let forward = format!("--server={RESOLVER}");
    let _stub = Dns::start(&stage.client, "127.0.0.53", &[&forward, "--cache-size=0"], |it| stage.group.command(&it))?;
    stage.run("curl", &["-sf", &stage.url("www.test")])?;
    // A name in capitals, and one that is an address.
    stage.run("curl", &["-sf", "-H", "Host:", &stage.url("SIX.test")])?;
    stage.run("curl", &["-sf", &stage.url("10.91.0.22")])?;
    stage.is(&[
        ("curl", "external:www.test", stage.port, (1, 0)),
        ("curl", "external:six.test", stage.port, (1, 0)),
        ("curl", "external:10.91.0.22", stage.port, (1, 0)),
    ])?;
    stage.finish()
}
