//! Addresses that are translated on the way: an edge leads from process to process, and tells the name between.

use std::time::Duration;

use anyhow::Result;
use anyhow::ensure;
use weir_tests::agent::Agent;
use weir_tests::dns::Dns;
use weir_tests::netns::{NetNs, Routed};
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::place;
use weir_tests::process;

use crate::stage::{are, via};

fn nginx(at: &NetNs) -> Result<Nginx> {
    Nginx::start(&Setup { listen: &["0.0.0.0:PORT"], netns: Some(at), ..Setup::default() })
}

fn ask(from: &NetNs, url: &str, count: u32) -> Result<()> {
    let mut curl = from.command("curl")?;
    curl.args(["-sf", "-m", "20", "-o", "/dev/null", "-H", "Host: shop.test", url]);
    (0..count).try_for_each(|_| process::run(&mut curl, Duration::from_secs(30)).map(drop))
}

fn named(name: &str, calls: u64) -> (String, u64) {
    (name.to_owned(), calls)
}

#[test]
fn a_service_s_address_on_the_client_s_node_as_kube_proxy_does() -> Result<()> {
    let net = Routed::new()?;
    let _dns = Dns::start(&net.client, "127.0.0.1", &["--host-record=shop.svc.test,10.96.0.10,600"], |it| it)?;
    net.client.resolver("127.0.0.1")?;
    let server = nginx(&net.server)?;
    let port = server.port();
    net.client.rules(&format!(
        "table ip t {{ chain out {{ type nat hook output priority -100; ip daddr 10.96.0.10 tcp dport 80 dnat to 10.81.0.2:{port}
         }}
         }}"
    ))?;
    let agent = Agent::start(&[])?;
    ask(&net.client, "http://shop.svc.test/s/200", 5)?;
    ask(&net.client, &format!("http://10.81.0.2:{port}/s/200"), 2)?;
    are(&agent, &[80, port], &[("curl", "nginx", port, 7)])?;
    ensure!(via(&agent, port)? == [named("external:shop.svc.test", 5)], "{:?}", via(&agent, port)?);
    agent.finish()
}

#[test]
fn both_addresses_translated_by_a_router() -> Result<()> {
    let net = Routed::new()?;
    let server = nginx(&net.server)?;
    let port = server.port();
    net.router.rules(&format!(
        "table ip t {{ chain pre {{ type nat hook prerouting priority -100; ip daddr 10.80.0.254 tcp dport 8080 dnat to 10.81.0.2:{port}
         }}
         chain post {{ type nat hook postrouting priority 100; oifname right masquerade
         }}
         }}"
    ))?;
    let agent = Agent::start(&[])?;
    ask(&net.client, "http://10.80.0.254:8080/s/200", 5)?;
    are(&agent, &[8080, port], &[("curl", "nginx", port, 5)])?;
    ensure!(via(&agent, port)? == [named("external:10.80.0.254", 5)], "{:?}", via(&agent, port)?);
    agent.finish()
}

#[test]
fn redirected_to_another_port_of_the_node() -> Result<()> {
    let node = NetNs::new("node")?;
    node.up("lo", &["10.94.0.1/32"])?;
    let server = nginx(&node)?;
    let port = server.port();
    node.rules(&format!(
        "table ip t {{ chain out {{ type nat hook output priority -100; ip daddr 10.94.0.1 tcp dport 80 redirect to :{port}
         }}
         }}"
    ))?;
    let agent = Agent::start(&[])?;
    ask(&node, "http://10.94.0.1/s/200", 3)?;
    are(&agent, &[80, port], &[("curl", "nginx", port, 3)])?;
    ensure!(via(&agent, port)? == [named("external:10.94.0.1", 3)], "{:?}", via(&agent, port)?);
    agent.finish()
}

#[test]
fn a_load_balancer_is_a_hop() -> Result<()> {
    let net = Routed::new()?;
    let backends = [nginx(&net.server)?, nginx(&net.server)?];
    let port = place::free_port()?;
    let servers =
        backends.iter().map(|it| format!("  server s{0} 10.81.0.2:{0}\n", it.port())).collect::<Vec<_>>().concat();
    let scratch = place::Scratch::new("balancer")?;
    let text = format!(
        "global\n  maxconn 400\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend f\n  bind 10.80.0.254:{port}\n  default_backend b\nbackend b\n  balance roundrobin\n{servers}"
    );
    let mut command = net.router.command("haproxy")?;
    command.arg("-db").arg("-f").arg(scratch.write("haproxy.cfg", text)?);
    let _balancer = process::Process::start(command, "haproxy", &scratch)?;
    weir_tests::wait::until(Duration::from_secs(10), "a balancer", || {
        Ok(net.router.run("ss", "-Hltn")?.contains(&format!(":{port} ")).then_some(()))
    })?;
    let agent = Agent::start(&[])?;
    ask(&net.client, &format!("http://10.80.0.254:{port}/s/200"), 6)?;
    let [one, two] = &backends;
    are(
        &agent,
        &[port, one.port(), two.port()],
        &[("curl", "haproxy", port, 6), ("haproxy", "nginx", one.port(), 3), ("haproxy", "nginx", two.port(), 3)],
    )?;
    ensure!(via(&agent, port)?.is_empty());
    agent.finish()
}
