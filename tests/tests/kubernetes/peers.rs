//! Addresses of the cluster are named as peers and in the graph, where only one can be behind them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_tests::agent::Agent;
use weir_tests::call::Kind;
use weir_tests::cgroup::Cgroup;
use weir_tests::cluster::Cluster;
use weir_tests::netns::NetNs;
use weir_tests::place::{self, Scratch};
use weir_tests::process::{self, Process};
use weir_tests::wait;

use crate::stage::{ARRIVE, NODE, agent, doctor, id, stands};

/// Two pods with a cable between them. What the first sends to these addresses arrives at the second's port 8080, as
/// kube-proxy would have it. The agent watches one control group only: of each connection it sees one end, as it does
/// when the other one is on another node.
struct Stage {
    caller: NetNs,
    server: NetNs,
    seen: Cgroup,
    scratch: Scratch,
}

const CALLER: &str = "10.78.0.5";
const SERVER: &str = "10.78.0.6";
/// A Service's, a pod's of another node, and one that a node's own pods share.
const ADDRESSES: [&str; 3] = ["10.96.0.10", "10.79.0.7", "10.99.0.9"];

impl Stage {
    fn new() -> Result<Self> {
        let (caller, server) = (NetNs::new("caller")?, NetNs::new("server")?);
        NetNs::cable((&caller, "c0", &[&format!("{CALLER}/24")]), (&server, "s0", &[&format!("{SERVER}/24")]))?;
        caller.ip(&format!("route add default via {SERVER}"))?;
        let rules: String = ADDRESSES
            .iter()
            .flat_map(|address| {
                [80, 8080].map(|port| format!("ip daddr {address} tcp dport {port} dnat to {SERVER}:8080\n"))
            })
            .chain([format!("ip daddr {} tcp dport 8081 dnat to {SERVER}:8081\n", ADDRESSES[0])])
            .collect();
        caller.rules(&format!("table ip nat {{ chain out {{ type nat hook output priority -100\n{rules}}}\n}}"))?;
        let seen = Cgroup::v2(&format!("/weir-half-{}", std::process::id()))?;
        Ok(Self { caller, server, seen, scratch: Scratch::new("peers")? })
    }

    /// A server of the second pod; the agent sees its end, or does not.
    fn serve(&self, port: u16, seen: bool) -> Result<Process> {
        let log = self.scratch.write("requests.log", "")?;
        let source = std::fs::read_to_string(place::sources().join("peers/python/http_server.py"))?;
        let script = self.scratch.write("backend.py", source.replace("127.0.0.1", "0.0.0.0"))?;
        let mut command = self.server.command("python3")?;
        command.arg(script).arg(port.to_string()).arg(log);
        let command = if seen { self.seen.command(&command) } else { command };
        let server = Process::start(command, &format!("backend-{port}"), &self.scratch)?;
        wait::until(Duration::from_secs(10), "the server", || {
            let list = self.server.run("ss", "-Hltn")?;
            Ok(list.contains(&format!(":{port} ")).then_some(()))
        })
        .with_context(|| server.output().unwrap_or_default())?;
        Ok(server)
    }

    /// curls of the first pod; the agent sees their end, or does not.
    fn ask(&self, address: &str, port: u16, count: u32, seen: bool) -> Result<()> {
        let mut command = self.caller.command("curl")?;
        command.args(["-s", "-f", "-m", "10", "-o", "/dev/null", &format!("http://{address}:{port}/fixed/1")]);
        let mut command = if seen { self.seen.command(&command) } else { command };
        (0..count).try_for_each(|_| process::run(&mut command, Duration::from_secs(20)).map(drop))
    }
}

/// Names of the peers of the calls that one end saw, in order, once there are `count`.
fn peers(agent: &Agent, kind: Kind, server: (&str, u16), count: usize) -> Result<Vec<Option<String>>> {
    let end = SocketAddr::new(server.0.parse()?, server.1);
    wait::until(ARRIVE, &format!("{count} calls to {end}"), || {
        let mut calls = agent.calls_now(&[server.1])?;
        calls.retain(|call| call.kind == kind && call.server() == end);
        calls.sort_by(|a, b| a.start.cmp(&b.start));
        let names: Vec<_> = calls.into_iter().map(|call| call.peer.and_then(|peer| peer.name)).collect();
        Ok(Some(names).filter(|names| names.len() >= count))
    })
}

fn service(name: &str, ip: Option<&str>) -> Value {
    let mut spec = json!({ "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] });
    spec["clusterIP"] = ip.unwrap_or("None").into();
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

fn slice(name: &str, of: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": of } },
        "endpoints": [{ "addresses": [address] }], "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

/// With `kubernetes.cluster` also what stands behind no Service: pods of another node, and that node itself.
#[test]
fn addresses_elsewhere_are_named() -> Result<()> {
    const NODES: &str = "/api/v1/nodes";
    let stage = Stage::new()?;
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    let meta = json!({ "name": "cron-1", "labels": { "app.kubernetes.io/name": "cron" } });
    cluster.pod("shop", &meta, &json!({ "nodeName": "node-b" }), ADDRESSES[1], ("app", &id('d')))?;
    cluster.make(NODES, &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-b" } }))?;
    let status = json!({ "status": { "addresses": [
        { "type": "Hostname", "address": "node-b" }, { "type": "InternalIP", "address": ADDRESSES[2] },
    ] } });
    cluster.patch(&format!("{NODES}/node-b/status"), &status)?;
    // One that shares its node's address does not own it.
    let shared = json!({ "nodeName": "node-b", "hostNetwork": true });
    cluster.pod("shop", &json!({ "name": "proxy" }), &shared, ADDRESSES[2], ("app", &id('e')))?;
    let inside = format!("kernel.cgroup={}", stage.seen.path().display());
    let agent = agent(&cluster, &[&inside, "kubernetes.cluster=true"])?;
    stands(&agent, "ok")?;
    wait::until(ARRIVE, "the node", || Ok(doctor(&agent, "nodes")?.1.starts_with("1 known").then_some(())))?;
    ensure!(doctor(&agent, "pods")?.1.starts_with("2 known"));
    let outside = stage.serve(8080, false)?;
    for (address, name) in [(ADDRESSES[1], "cron"), (ADDRESSES[2], "node-b")] {
        stage.ask(address, 8080, 2, true)?;
        let found = peers(&agent, Kind::Client, (address, 8080), 2)?;
        ensure!(found == vec![Some(name.to_owned()); 2], "{address}: {found:?}");
    }
    cluster.delete("/api/v1/namespaces/shop/pods/cron-1")?;
    cluster.delete(&format!("{NODES}/node-b"))?;
    for address in [ADDRESSES[1], ADDRESSES[2]] {
        wait::until(ARRIVE, "the name to go", || {
            stage.ask(address, 8080, 1, true)?;
            std::thread::sleep(Duration::from_millis(200));
            Ok(peers(&agent, Kind::Client, (address, 8080), 1)?.last().is_some_and(Option::is_none).then_some(()))
        })?;
    }
    drop(outside);
    agent.finish()
}

#[test]
fn addresses_of_the_cluster_are_named() -> Result<()> {
    const SERVICES: &str = "/api/v1/namespaces/shop/services";
    const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
    let stage = Stage::new()?;
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    cluster.make(SERVICES, &service("orders", Some(ADDRESSES[0])))?;
    cluster.make(SERVICES, &service("stock", None))?;
    cluster.make(SLICES, &slice("stock-1", "stock", ADDRESSES[1]))?;
    let meta = json!({ "name": "frontend", "labels": { "app.kubernetes.io/name": "front" } });
    cluster.pod("shop", &meta, &json!({ "nodeName": NODE }), CALLER, ("app", &id('d')))?;
    // A pod that shares the node's address does not own it.
    let shared = json!({ "nodeName": NODE, "hostNetwork": true });
    cluster.pod("shop", &json!({ "name": "proxy" }), &shared, ADDRESSES[2], ("app", &id('e')))?;
    let inside = format!("kernel.cgroup={}", stage.seen.path().display());
    let agent = agent(&cluster, &[&inside])?;
    stands(&agent, "ok")?;
    let (outside, within) = (stage.serve(8080, false)?, stage.serve(8081, true)?);

    // As clients: a Service, an endpoint at its port, not at another one, and an address that nobody owns.
    let name = |name: &str| Some(name.to_owned());
    for (address, port, count, expected) in [
        (ADDRESSES[0], 80, 3, name("orders")),
        (ADDRESSES[1], 8080, 2, name("stock")),
        (ADDRESSES[1], 80, 2, None),
        (ADDRESSES[2], 80, 2, None),
    ] {
        stage.ask(address, port, count, true)?;
        let found = peers(&agent, Kind::Client, (address, port), count as usize)?;
        ensure!(found == vec![expected; count as usize], "{address}:{port}: {found:?}");
    }
    // As a server: a pod of this node.
    stage.ask(SERVER, 8081, 3, false)?;
    let found = peers(&agent, Kind::Server, (SERVER, 8081), 3)?;
    ensure!(found == vec![name("front"); 3], "{found:?}");

    // A Service whose endpoint is on this node: the edge leads to the process, by way of the Service.
    stage.ask(ADDRESSES[0], 8081, 4, true)?;
    let found = peers(&agent, Kind::Client, (ADDRESSES[0], 8081), 4)?;
    ensure!(found == vec![name("backend"); 4], "{found:?}");

    let graph = agent.json(&["graph"])?;
    let edges = graph["edges"].as_array().context("no edges")?;
    let by = edges.iter().find(|edge| edge["client"]["service.name"] == "curl" && edge["server_port"] == 8081);
    let by = by.map(|edge| &edge["via"]);
    ensure!(by == Some(&json!([{ "service.name": "orders", "service.namespace": "shop", "calls": 4 }])), "{by:?}");
    for (client, server, port, calls) in [
        ("curl", "orders", 80, 3),
        ("curl", "stock", 8080, 2),
        ("curl", "external:10.79.0.7", 80, 2),
        ("curl", "external:10.99.0.9", 80, 2),
        ("front", "backend", 8081, 3),
        ("curl", "backend", 8081, 4),
    ] {
        let wanted = json!([client, server, port, calls]);
        let row = |edge: &Value| {
            json!([edge["client"]["service.name"], edge["server"]["service.name"], edge["server_port"], edge["calls"]])
        };
        ensure!(edges.iter().any(|edge| row(edge) == wanted), "no {wanted} in {edges:#?}");
    }
    ensure!(edges.len() == 6, "{edges:#?}");

    // Another Service with the same endpoint makes it uncertain; a Service that is gone names nothing.
    cluster.make(SLICES, &slice("other-1", "other", ADDRESSES[1]))?;
    cluster.delete(&format!("{SERVICES}/orders"))?;
    for (address, port) in [(ADDRESSES[0], 80), (ADDRESSES[1], 8080)] {
        wait::until(ARRIVE, "the name to go", || {
            stage.ask(address, port, 1, true)?;
            std::thread::sleep(Duration::from_millis(200));
            Ok(peers(&agent, Kind::Client, (address, port), 1)?.last().is_some_and(Option::is_none).then_some(()))
        })?;
    }
    drop((outside, within));
    agent.finish()
}
