//! Headers that lie, are malformed, huge or repeated.

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::wire::{Server, Wire};

use crate::stage::{clients, counted};

fn server() -> Result<Server> {
    Server::start(|mut wire| {
        while wire.request()?.is_some() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })
}

fn ask(wire: &mut Wire, headers: &str) -> Result<()> {
    wire.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n"))?;
    ensure!(wire.answer("GET")?.status()? == 200);
    Ok(())
}

#[test]
fn what_a_trusted_hop_says_counts_where_it_is_sound() -> Result<()> {
    let long = format!("X-Forwarded-For: {}203.0.113.7\r\n", "1.1.1.1, ".repeat(400));
    let endless = format!("X-Forwarded-For: {}\r\n", "1.1.1.1, ".repeat(2000));
    let deep = format!("X-Forwarded-For: 203.0.113.7, {}127.0.0.1\r\n", "127.0.0.1, ".repeat(30));
    let rows: Vec<(&str, &str)> = vec![
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
        ("x-forwarded-for: 1.1.1.1,203.0.113.7:80 , 127.0.0.1\r\n", "203.0.113.7"),
        // A proxy that adds a field of its own (HAProxy): the last one is its.
        ("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
        ("X-Forwarded-For: [2001:db8::7]:443\r\n", "2001:db8::7"),
        ("Forwarded: for=1.1.1.1, for=\"[2001:db8::7]\";proto=http\r\n", "2001:db8::7"),
        ("Forwarded: For=203.0.113.7\r\nX-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
        (&long, "203.0.113.7"),
        // Unusable from here on, but for the one that contradicts.
        ("X-Forwarded-For: unknown\r\n", "-"),
        ("X-Forwarded-For: 203.0.113.7, 999.1.1.1\r\n", "-"),
        ("Forwarded: for=_hidden\r\n", "-"),
        ("Forwarded: proto=http\r\n", "-"),
        ("Forwarded: for=\"203.0.113.7\r\n", "-"),
        (&deep, "-"),
        (&endless, "-"),
        ("Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 203.0.113.7\r\n", "-"),
    ];
    let server = server()?;
    let agent = Agent::start(&["proxies.trusted=[127.0.0.0/8]"])?;
    let mut wire = Wire::connect(server.address())?;
    for (headers, _) in &rows {
        ask(&mut wire, headers)?;
    }
    let expected: Vec<&str> = rows.iter().map(|(_, client)| *client).collect();
    let found = clients(&agent, server.port(), rows.len())?;
    ensure!(found == expected, "{found:?}");
    ensure!(counted(&agent, "unusable_forwarded")? == 7);
    ensure!(counted(&agent, "contradicting_forwarded")? == 1);
    ensure!(counted(&agent, "untrusted_forwarded")? == 0);
    drop(wire);
    server.stop()?;
    agent.finish()
}

#[test]
fn trust_comes_with_a_reload() -> Result<()> {
    const CLAIM: &str = "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=1.1.1.1\r\n";
    let server = server()?;
    let agent = Agent::configured(Some("proxies: { trusted: [10.0.0.0/8, \"::1\"] }\n"), &[])?;
    let mut wire = Wire::connect(server.address())?;
    ask(&mut wire, CLAIM)?;
    ensure!(clients(&agent, server.port(), 1)? == ["127.0.0.1"]);
    ensure!(counted(&agent, "untrusted_forwarded")? == 1);
    agent.rewrite("proxies: { trusted: [127.0.0.1], headers: [x-forwarded-for] }\n")?;
    ensure!(agent.say(&["reload"])?.code == 0);
    ask(&mut wire, CLAIM)?;
    ensure!(clients(&agent, server.port(), 2)? == ["127.0.0.1", "203.0.113.7"]);
    agent.rewrite("proxies: { trusted: [127.0.0.1/8] }\n")?;
    let said = agent.say(&["reload"])?;
    ensure!(said.code != 0 && said.err.contains("127.0.0.0/8"), "{} {}", said.out, said.err);
    drop(wire);
    server.stop()?;
    agent.finish()
}
