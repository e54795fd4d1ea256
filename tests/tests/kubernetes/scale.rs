//! Five thousand pods on a hundred nodes, which kwok keeps, with churn and an API server that ends in the middle.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_tests::agent::Agent;
use weir_tests::cluster::Cluster;
use weir_tests::wait;

use crate::stage::{NODE, Resident, agent, doctor, id, row};

const NODES: usize = 100;
const PODS: usize = 5000;
/// Pods go and come by the slot, of `PODS / SLOTS` each.
const SLOTS: usize = 20;
const ROUNDS: usize = 3;
/// Slots of a round.
const CHURN: usize = 4;
const ALL: &str = "/api/v1/namespaces/crowd/pods";
/// Until so much is made, or must be known.
const LIMIT: Duration = Duration::from_mins(5);
/// Most that the agent may have resident meanwhile.
const MEMORY: u64 = 96 << 20;

/// Calls of whatever else this machine does are not what is measured.
const KEEP: &str = "recent.memory=16MiB";

/// A node that kwok plays; the first one is the agent's.
fn node(n: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name_of_node(n), "annotations": { "kwok.x-k8s.io/node": "fake" } },
    })
}

fn name_of_node(n: usize) -> String {
    if n == 0 { NODE.to_owned() } else { format!("node-{n:03}") }
}

/// Pods spread over nodes and slots alike: each slot has some on each node.
fn pods(generation: usize, numbers: Range<usize>, slot: Option<usize>) -> Vec<Value> {
    let fits = |n: &usize| slot.is_none_or(|slot| slot_of(*n) == slot);
    let one = |n: usize| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name(generation, n),
                "labels": { "app.kubernetes.io/name": format!("app-{n}-{generation}"), "slot": slot_of(n).to_string() },
                "annotations": { "example.org/checksum": format!("{n:064}") },
            },
            "spec": { "nodeName": name_of_node(n % NODES), "containers": [{ "name": "app", "image": "local/test:1" }] },
        })
    };
    numbers.filter(fits).map(one).collect()
}

fn slot_of(n: usize) -> usize {
    n / NODES % SLOTS
}

fn name(generation: usize, n: usize) -> String {
    format!("pod-{n}-{generation}")
}

/// Waits until the agent knows exactly so many pods; gives the most memory that it had meanwhile.
fn knows(agent: &Agent, count: usize) -> Result<u64> {
    let (mut most, mut last) = (0, None);
    wait::until(LIMIT, &format!("{count} pods to be known"), || {
        most = most.max(agent.resident()?);
        let (standing, detail, _) = doctor(agent, "pods")?;
        let right = standing == "ok" && detail == format!("{count} known");
        last = Some((standing, detail));
        Ok(right.then_some(()))
    })
    .with_context(|| format!("{last:?}\n{}", agent.log().unwrap_or_default()))?;
    Ok(most)
}

/// A process in the control group of a pod goes by that pod, to the letter.
fn is_named(agent: &Agent, cluster: &Cluster, generation: usize, n: usize, digit: char) -> Result<()> {
    let pod = cluster.get(&format!("{ALL}/{}", name(generation, n)))?;
    let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
    let resident = Resident::start(uid, &id(digit))?;
    let wanted = json!([format!("app-{n}-{generation}"), name(generation, n), uid, name_of_node(n % NODES), "crowd"]);
    let mut found = Value::Null;
    wait::until(Duration::from_secs(20), "its name", || {
        resident.ask(1)?;
        let Some(row) = row(agent, resident.process.pid())? else { return Ok(None) };
        let told = &row["service"];
        found = json!([
            told["service.name"],
            told["k8s.pod.name"],
            told["k8s.pod.uid"],
            told["k8s.node.name"],
            told["k8s.namespace.name"],
        ]);
        Ok((found == wanted).then_some(()))
    })
    .with_context(|| format!("found {found}, expected {wanted}"))
}

#[test]
fn the_picture_is_exact_after_churn() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.namespace("crowd")?;
    cluster.make_all("/api/v1/nodes", &(0..NODES).map(node).collect::<Vec<_>>(), LIMIT)?;
    let kwok = cluster.kwok()?;
    cluster.make_all(ALL, &pods(0, 0..PODS, None), LIMIT)?;
    let everywhere = agent(&cluster, &["kubernetes.cluster=true", KEEP])?;
    let mut most = knows(&everywhere, PODS)?;
    is_named(&everywhere, &cluster, 0, 0, 'a')?;
    for round in 0..ROUNDS {
        for slot in (round * CHURN..).take(CHURN) {
            cluster.delete(&format!("{ALL}?labelSelector=slot%3D{slot}"))?;
            if round == 1 && slot == round * CHURN + 1 {
                // Everybody's watch ends, in the middle.
                cluster.kill()?;
                cluster.again()?;
            }
            cluster.make_all(ALL, &pods(round + 1, 0..PODS, Some(slot)), LIMIT)?;
        }
        most = most.max(knows(&everywhere, PODS)?);
    }
    // One that came with the restart, and one that stayed.
    let came = (0..PODS).find(|n| n % NODES == 0 && slot_of(*n) == CHURN + 1).context("no such pod")?;
    let stayed = (0..PODS).find(|n| n % NODES == 0 && slot_of(*n) == SLOTS - 1).context("no such pod")?;
    is_named(&everywhere, &cluster, 2, came, 'b')?;
    is_named(&everywhere, &cluster, 0, stayed, 'c')?;
    println!("{PODS} pods on {NODES} nodes, all of them known: at most {} MiB resident", most >> 20);
    ensure!(most < MEMORY, "{most} bytes");
    everywhere.finish()?;

    // What an agent does by default: its own node's alone, of the same cluster.
    let own = agent(&cluster, &[KEEP])?;
    let most = knows(&own, PODS / NODES)?;
    is_named(&own, &cluster, 2, came, 'd')?;
    cluster.delete(&format!("{ALL}/{}", name(0, stayed)))?;
    let most = most.max(knows(&own, PODS / NODES - 1)?);
    println!("{} of them known, those of one node: at most {} MiB resident", PODS / NODES, most >> 20);
    ensure!(most < MEMORY, "{most} bytes");
    own.finish()?;
    drop(kwok);
    Ok(())
}
