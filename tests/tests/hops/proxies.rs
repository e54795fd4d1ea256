//! Real proxies, each with an address of its own on loopback. nginx's realip module judges by the same rule: its word is
//! the truth.

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::load::curl;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::peers::proxy::Proxy;

use crate::stage::{are, clients, counted};

const CLIENT: &str = "127.0.0.9";
const TRUSTED: &str = "proxies.trusted=[127.0.0.2, 127.0.0.3]";

/// nginx that answers with the client as it sees it.
fn judge(listen: &str, header: &str) -> Result<Nginx> {
    let server = format!(
        "set_real_ip_from 127.0.0.2; set_real_ip_from 127.0.0.3; real_ip_header {header}; real_ip_recursive on;
        location = /who {{ return 200 $remote_addr; }}"
    );
    Nginx::start(&Setup { listen: &[listen], server: &server, ..Setup::default() })
}

#[test]
fn a_chain_of_proxies_is_hops_and_the_client_is_behind_it() -> Result<()> {
    let behind = judge("127.0.0.1:PORT", "X-Forwarded-For")?;
    let middle = Nginx::start(&Setup {
        server: &format!(
            "location / {{ proxy_pass http://{}; proxy_bind 127.0.0.3;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}",
            behind.address()
        ),
        ..Setup::default()
    })?;
    let front = Proxy::haproxy("mode http\n  option forwardfor", middle.address(), "source 127.0.0.2")?;
    let agent = Agent::start(&[TRUSTED])?;
    for forged in ["", "1.1.1.1", "1.1.1.1, 127.0.0.2", "nonsense"] {
        let header = format!("X-Forwarded-For: {forged}");
        let said = curl(&["-sf", "--interface", CLIENT, "-H", &header, &format!("{}/who", front.url())])?;
        ensure!(said == CLIENT, "nginx says {said}");
    }
    for port in [front.port(), middle.port(), behind.port()] {
        ensure!(clients(&agent, port, 4)? == [CLIENT; 4], "port {port}: {:?}", clients(&agent, port, 4)?);
    }
    // curl sends no empty header.
    ensure!(counted(&agent, "untrusted_forwarded")? == 3);
    ensure!(counted(&agent, "unusable_forwarded")? == 0);
    are(
        &agent,
        &[front.port(), middle.port(), behind.port()],
        &[
            ("curl", "haproxy", front.port(), 4),
            ("haproxy", "nginx", middle.port(), 4),
            ("nginx", "nginx", behind.port(), 4),
        ],
    )?;
    agent.finish()
}

#[test]
fn the_proxy_protocol_of_both_versions() -> Result<()> {
    for version in ["send-proxy", "send-proxy-v2"] {
        let behind = judge("127.0.0.1:PORT proxy_protocol", "proxy_protocol")?;
        let options = format!("source 127.0.0.2 {version}");
        let front = Proxy::haproxy("mode tcp", behind.address(), &options)?;
        let url = format!("{}/who", front.url());
        // One connection, several requests; a header that the client forges.
        let ask = || {
            let said = curl(&["-sf", "--interface", CLIENT, "-H", "X-Forwarded-For: 1.1.1.1", &url, &url, &url])?;
            ensure!(said == CLIENT.repeat(3), "{version}: nginx says {said}");
            anyhow::Ok(())
        };
        let agent = Agent::start(&[TRUSTED])?;
        ask()?;
        ensure!(clients(&agent, behind.port(), 3)? == [CLIENT; 3], "{version}");
        // HAProxy is told so too, by the client.
        ensure!(counted(&agent, "untrusted_forwarded")? == 6);
        are(&agent, &[behind.port()], &[("haproxy", "nginx", behind.port(), 3)])?;
        agent.finish()?;
        // Nobody is trusted: the hop is all that is known.
        let agent = Agent::start(&[])?;
        ask()?;
        ensure!(clients(&agent, behind.port(), 3)? == ["127.0.0.2"; 3], "{version}");
        // HAProxy is told so too, by the client.
        ensure!(counted(&agent, "untrusted_forwarded")? == 6);
        agent.finish()?;
    }
    Ok(())
}
