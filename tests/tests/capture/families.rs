//! A8: address families, namespaces, address translation, segment sizes and offloads.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::call::Call;
use weir_tests::netns::{NetNs, Routed};
use weir_tests::place;
use weir_tests::script::{Case, at_both_ends, client, server};
use weir_tests::truth::{Row, Sides};
use weir_tests::wire::Wire;

/// Small and large, both ways, on one connection.
fn conversation() -> Case {
    let step = |at: usize, up: usize, down: usize| {
        let path = format!("/family/{at}");
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {up}\r\n\r\n{}", "u".repeat(up));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {down}\r\n\r\n{}", "d".repeat(down));
        let row = Row::new("POST", &path, 200, up as u64, down as u64);
        Case::turns("", vec![client(request), server(answer)], row)
    };
    let sizes = [(0, 0), (1, 1), (100, 3000), (3000, 100), (200_000, 10), (10, 200_000), (0, 1)];
    Case::joined("", sizes.into_iter().enumerate().map(|(at, (up, down))| step(at, up, down)).collect())
}

/// Plays the conversation between a listener and a client; gives both ends of the client's and the server's socket.
fn converse(listener: TcpListener, connect: impl FnOnce() -> Result<Wire>) -> Result<(SocketAddr, SocketAddr)> {
    let case = conversation();
    let address = listener.local_addr()?;
    let port = at_both_ends(listener, connect, &case.turns, usize::MAX)?;
    Ok((port, address))
}

/// Both ends show the conversation.
fn whole(name: &str, calls: Vec<Call>) -> Result<Sides> {
    let case = conversation();
    let sides = Sides::of(calls);
    case.check(&format!("{name}, client"), &sides.client)?;
    case.check(&format!("{name}, server"), &sides.server)?;
    Ok(sides)
}

/// Without translation: both ends show the same two addresses, and are linked.
fn direct(agent: &Agent, name: &str, listener: TcpListener, connect: impl FnOnce() -> Result<Wire>) -> Result<()> {
    let (client, server) = converse(listener, connect)?;
    let calls = agent.calls(&[server.port()], 2 * conversation().calls.len())?;
    let sides = whole(name, calls)?;
    sides.linked().context(name.to_owned())?;
    for call in sides.client.iter().chain(&sides.server) {
        ensure!(call.client() == client, "{name}: the client is {client}: {call:?}");
        ensure!(call.server().port() == server.port(), "{name}: the server is {server}: {call:?}");
    }
    Ok(())
}

#[test]
fn a8_families_on_loopback() -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    for (name, bind, connect) in [
        ("IPv4", "127.0.0.1", "127.0.0.1"),
        ("IPv6", "::1", "::1"),
        ("dual stack, IPv4 client", "::", "127.0.0.1"),
        ("dual stack, IPv6 client", "::", "::1"),
        ("mapped on both sides", "::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("mapped client", "127.0.0.1", "::ffff:127.0.0.1"),
    ] {
        let listener = TcpListener::bind((bind.parse::<IpAddr>()?, place::free_port()?))?;
        let port = listener.local_addr()?.port();
        let to = SocketAddr::from((connect.parse::<IpAddr>()?, port));
        direct(&agent, name, listener, || Wire::connect(to))?;
    }
    agent.finish()
}

/// Two namespaces on one cable.
fn cabled() -> Result<(NetNs, NetNs)> {
    let (one, two) = (NetNs::new("one")?, NetNs::new("two")?);
    NetNs::cable((&one, "eth0", &["10.78.0.1/24", "fd78::1/64"]), (&two, "eth0", &["10.78.0.2/24", "fd78::2/64"]))?;
    Ok((one, two))
}

fn listen(netns: &NetNs, address: &str) -> Result<TcpListener> {
    let address: IpAddr = address.parse()?;
    netns.inside(|| Ok(TcpListener::bind((address, 0))?))
}

#[test]
fn a8_a_cable_between_namespaces() -> Result<()> {
    let (one, two) = cabled()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    // Who cuts into segments, and who joins them: device or stack, on both sides of the cable.
    let offloads = [("on", "on"), ("off", "off"), ("off", "on"), ("on", "off")];
    for (mtu, (cut, join)) in [1500, 576, 9000].into_iter().flat_map(|mtu| offloads.map(|offload| (mtu, offload))) {
        for netns in [&one, &two] {
            // IPv6 leaves an interface below 1280 (RFC 8200 §5).
            netns.ip(&format!("link set dev eth0 mtu {mtu}"))?;
            netns.run("ethtool", &format!("-K eth0 gso {cut} tso {cut} gro {join}"))?;
        }
        for address in ["10.78.0.2", "fd78::2"].into_iter().take(if mtu < 1280 { 1 } else { 2 }) {
            for netns in [&one, &two] {
                if mtu >= 1280 {
                    netns.set("net.ipv6.conf.eth0.disable_ipv6", "0")?;
                }
            }
            if mtu >= 1280 && address.contains(':') {
                readdress(&one, "fd78::1/64")?;
                readdress(&two, "fd78::2/64")?;
            }
            let listener = listen(&two, address)?;
            let to = listener.local_addr()?;
            let name = format!("{address}, MTU {mtu}, gso and tso {cut}, gro {join}");
            direct(&agent, &name, listener, || one.inside(|| Wire::connect(to)))?;
        }
    }
    agent.finish()
}

/// An interface loses its IPv6 addresses while its MTU is too small for them.
fn readdress(netns: &NetNs, address: &str) -> Result<()> {
    netns.ip(&format!("-6 addr replace {address} dev eth0 nodad"))
}

#[test]
fn a8_link_local_addresses() -> Result<()> {
    let (one, two) = cabled()?;
    for (netns, address) in [(&one, "fe80::1/64"), (&two, "fe80::2/64")] {
        readdress(netns, address)?;
    }
    let agent = Agent::start(&["privacy.level=standard"])?;
    let index = |netns: &NetNs| -> Result<u32> { Ok(netns.run("cat", "/sys/class/net/eth0/ifindex")?.trim().parse()?) };
    let at = |last: u16, scope: u32| SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last), 0, 0, scope);
    let (here, there) = (index(&one)?, index(&two)?);
    let listener = two.inside(|| Ok(TcpListener::bind(at(2, there))?))?;
    let mut to = at(2, here);
    to.set_port(listener.local_addr()?.port());
    let port = to.port();
    let case = conversation();
    at_both_ends(listener, || one.inside(|| Wire::connect(to.into())), &case.turns, usize::MAX)?;
    let sides = whole("link-local", agent.calls(&[port], 2 * case.calls.len())?)?;
    sides.linked()?;
    agent.finish()
}

#[test]
fn a8_three_namespaces_on_a_bridge() -> Result<()> {
    let bridge = NetNs::new("bridge")?;
    bridge.ip("link add name br0 type bridge")?;
    bridge.ip("link set dev br0 up")?;
    let hosts: Vec<NetNs> = (0..3).map(|_| NetNs::new("host")).collect::<Result<_>>()?;
    for (at, host) in hosts.iter().enumerate() {
        let port = format!("port{at}");
        NetNs::cable((host, "eth0", &[&format!("10.79.0.{}/24", at + 1)]), (&bridge, &port, &[]))?;
        bridge.ip(&format!("link set dev {port} master br0"))?;
    }
    let agent = Agent::start(&["privacy.level=standard"])?;
    for (from, host) in hosts.iter().enumerate() {
        for (to, peer) in hosts.iter().enumerate() {
            let listener = listen(peer, &format!("10.79.0.{}", to + 1))?;
            let address = listener.local_addr()?;
            direct(&agent, &format!("host {from} to {to}"), listener, || host.inside(|| Wire::connect(address)))?;
        }
    }
    agent.finish()
}

#[test]
fn a8_destination_and_source_translated_on_the_way() -> Result<()> {
    let net = Routed::new()?;
    let listener = listen(&net.server, "10.81.0.2")?;
    let real = listener.local_addr()?;
    let named = SocketAddr::from(([10, 80, 0, 254], 8080));
    net.router.rules(&format!(
        "table ip t {{ chain pre {{ type nat hook prerouting priority -100; ip daddr {} tcp dport {} dnat to {real}
 }}
         chain post {{ type nat hook postrouting priority 100; oifname right masquerade
         }}
         }}",
        named.ip(),
        named.port()
    ))?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let case = conversation();
    let from = at_both_ends(listener, || net.client.inside(|| Wire::connect(named)), &case.turns, usize::MAX)?;
    let calls = agent.calls(&[real.port(), named.port()], 2 * case.calls.len())?;
    let sides = whole("translated on the way", calls)?;
    for call in &sides.client {
        ensure!((call.client(), call.server()) == (from, named), "{from} to {named}: {call:?}");
    }
    for call in &sides.server {
        ensure!(call.server() == real, "{real}: {call:?}");
        ensure!(call.client().ip() == IpAddr::from([10, 81, 0, 254]), "behind the masquerade: {call:?}");
    }
    agent.finish()
}

#[test]
fn a8_redirected_on_the_client_s_own_node() -> Result<()> {
    let node = NetNs::new("node")?;
    node.up("lo", &["10.82.0.1/32"])?;
    let listener = listen(&node, "0.0.0.0")?;
    let port = listener.local_addr()?.port();
    node.rules(&format!(
        "table ip t {{ chain out {{ type nat hook output priority -100; ip daddr 10.82.0.1 tcp dport 80 redirect to :{port}
         }}
         }}"
    ))?;
    let named = SocketAddr::from(([10, 82, 0, 1], 80));
    let agent = Agent::start(&["privacy.level=standard"])?;
    let case = conversation();
    at_both_ends(listener, || node.inside(|| Wire::connect(named)), &case.turns, usize::MAX)?;
    let calls: Vec<Call> = agent.calls(&[80, port], 2 * case.calls.len())?;
    let sides = whole("redirected", calls)?;
    for call in &sides.client {
        ensure!(call.server() == named, "{named}: {call:?}");
    }
    for call in &sides.server {
        ensure!(call.server().port() == port, "port {port}: {call:?}");
    }
    agent.finish()
}
