//! Addresses of Services and nodes stand for many: a rule for one of them is refused unless it is forced.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weir_tests::cluster::Cluster;
use weir_tests::wait;

use crate::stage::{ARRIVE, agent, doctor, stands};

const SERVICES: &str = "/api/v1/namespaces/shop/services";
const NODES: &str = "/api/v1/nodes";

#[test]
fn services_and_nodes_are_no_clients() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    let spec = json!({ "clusterIP": "10.96.0.77", "externalIPs": ["198.51.100.77"], "ports": [{ "port": 80 }] });
    let service: Value =
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "orders" }, "spec": spec });
    cluster.make(SERVICES, &service)?;
    cluster.make(NODES, &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-b" } }))?;
    let addresses = json!([{ "type": "InternalIP", "address": "198.51.100.9" }]);
    cluster.patch(&format!("{NODES}/node-b/status"), &json!({ "status": { "addresses": addresses } }))?;
    let agent = agent(&cluster, &["kubernetes.cluster=true"])?;
    stands(&agent, "ok")?;
    wait::until(ARRIVE, "the node", || Ok(doctor(&agent, "nodes")?.1.starts_with("1 known").then_some(())))?;
    let add = |id: &str, client: &str, more: &[&str]| {
        agent.say(&[&["block", "add", "--reason", "t", "--id", id, "--client", client], more].concat())
    };
    for (client, what) in [
        ("10.96.0.77", "an address of the Service shop/orders"),
        ("198.51.100.77", "an address of the Service shop/orders"),
        ("198.51.100.9", "an address of the node node-b"),
        ("::ffff:198.51.100.9", "an address of the node node-b"),
    ] {
        for dry in [&[][..], &["--dry-run"]] {
            let said = add("no", client, dry)?;
            ensure!(
                said.code == 1 && said.err.contains(what) && said.err.contains("--force"),
                "{client}: {}",
                said.err
            );
        }
    }
    ensure!(agent.lines(&["block", "list"])?.is_empty());
    ensure!(add("forced", "198.51.100.9", &["--force"])?.code == 0 && add("pod", "198.51.100.10", &[])?.code == 0);
    // One that is gone stands for nobody.
    cluster.delete(&format!("{NODES}/node-b"))?;
    wait::until(
        ARRIVE,
        "the node to be forgotten",
        || Ok((add("late", "198.51.100.9", &[])?.code == 0).then_some(())),
    )?;
    agent.finish()
}
