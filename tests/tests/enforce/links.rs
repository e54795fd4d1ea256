//! Addresses that are no host's for all the world: link-local ones with their zone, unique local ones, IPv4 in IPv6.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketType};
use weir_tests::agent::Agent;
use weir_tests::netns::NetNs;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::wire::Wire;

use super::{enforcing, from};

/// A connection from one address of a link to another.
fn on_link(link: &str, client: &str, server: &str, port: u16) -> Result<TcpStream> {
    let index = std::fs::read_to_string("/proc/thread-self/net/if_inet6")?;
    let row = index.lines().find(|row| row.ends_with(&format!(" {link}"))).context("no such link")?;
    let zone = u32::from_str_radix(row.split_whitespace().nth(1).context("no index")?, 16)?;
    let end = |address: &str, port| -> Result<SocketAddr> {
        Ok(SocketAddrV6::new(address.parse::<Ipv6Addr>()?, port, 0, zone).into())
    };
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &end(client, 0)?)?;
    rustix::net::connect(&socket, &end(server, port)?)?;
    Ok(TcpStream::from(socket))
}

fn answered(stream: Result<TcpStream>) -> Result<bool> {
    let Ok(stream) = stream else { return Ok(false) };
    let mut wire = Wire::over(stream)?;
    let sent = wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    Ok(sent.is_ok() && wire.answer("GET").is_ok())
}

fn add(agent: &Agent, client: &str) -> Result<()> {
    let said = agent.say(&["block", "add", "--reason", "t", "--mode", "enforce", "--id", "r", "--client", client])?;
    ensure!(said.code == 0, "{client}: {}", said.err);
    Ok(())
}

#[test]
fn link_local_unique_local_and_mapped_clients() -> Result<()> {
    let (near, far) = (NetNs::new("server")?, NetNs::new("client")?);
    NetNs::cable(
        (&near, "s0", &["fe80::11/64", "fd84::1/64", "10.84.0.1/24"]),
        (&far, "c0", &["fe80::22/64", "fe80::33/64", "fd84::2/64", "fd84::3/64", "10.84.0.2/24", "10.84.0.3/24"]),
    )?;
    // Another link, on which another host may have the same address.
    NetNs::cable((&near, "s1", &["fe80::12/64"]), (&far, "c1", &["fe80::22/64", "fe80::44/64"]))?;
    let nginx = Nginx::start(&Setup { listen: &["[::]:PORT ipv6only=off"], netns: Some(&near), ..Setup::default() })?;
    let agent = enforcing(&[])?;
    let port = nginx.port();
    let link = |link: &str, client: &str, server: &str| far.inside(|| answered(on_link(link, client, server, port)));
    let plain = |client: &str, server: &str| {
        let (client, server): (IpAddr, IpAddr) = (client.parse()?, server.parse()?);
        far.inside(|| answered(from(client, SocketAddr::new(server, port))))
    };
    let all = || -> Result<[bool; 8]> {
        Ok([
            link("c0", "fe80::22", "fe80::11")?,
            link("c0", "fe80::33", "fe80::11")?,
            link("c1", "fe80::22", "fe80::12")?,
            link("c1", "fe80::44", "fe80::12")?,
            plain("fd84::2", "fd84::1")?,
            plain("fd84::3", "fd84::1")?,
            plain("10.84.0.2", "10.84.0.1")?,
            plain("10.84.0.3", "10.84.0.1")?,
        ])
    };
    ensure!(all()? == [true; 8], "{:?}", all()?);
    let mut asked = 8;
    for (rule, refused) in [
        // A zone is nothing that a rule knows: the address is met on every link.
        ("fe80::22", &[0, 2][..]),
        ("fe80::/64", &[0, 1, 2, 3]),
        ("fd84::2", &[4]),
        ("fd84::/64", &[4, 5]),
        ("::ffff:10.84.0.2", &[6]),
        ("::ffff:10.84.0.0/120", &[6, 7]),
        ("10.84.0.2", &[6]),
        ("::ffff:a54:3", &[7]),
    ] {
        add(&agent, rule)?;
        let mut wanted = [true; 8];
        wanted.iter_mut().enumerate().for_each(|(n, one)| *one = !refused.contains(&n));
        let begin = Instant::now();
        let got = all()?;
        ensure!(got == wanted, "{rule}: {got:?}");
        // A refused client hears so at once: its socket's end is bound to the link and found by that only.
        ensure!(begin.elapsed() < Duration::from_secs(3), "{rule}: {:?}", begin.elapsed());
        asked += 8 - refused.len();
        ensure!(agent.say(&["block", "remove", "r"])?.code == 0);
    }
    ensure!(all()? == [true; 8], "what is removed refuses");
    asked += 8;
    ensure!(nginx.logged(asked)?.len() == asked, "the server's own log: {}, not {asked}", nginx.log()?.len());
    for (client, why) in [
        ("fe80::22%c0", "write fe80::22, which is met on every link"),
        ("fe80::/10", "more addresses"),
        ("fc00::/7", "more addresses"),
        ("::ffff:0:0/96", "more addresses"),
        ("fe80::22/64", "write fe80::/64"),
    ] {
        let said = agent.say(&["block", "add", "--reason", "t", "--client", client])?;
        ensure!(said.code == 1 && said.err.contains(why), "{client}: {} {}", said.code, said.err);
    }
    agent.finish()
}
