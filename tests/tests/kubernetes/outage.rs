//! An API server that forbids, is gone, slow or endless: less is named, and nothing else changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_tests::agent::Agent;
use weir_tests::cluster::Cluster;
use weir_tests::peers::load;
use weir_tests::place::Scratch;
use weir_tests::wait;
use weir_tests::wire::{Server, Wire};

use crate::stage::{ARRIVE, NODE, Resident, agent, doctor, id, ignored, row, stands};

fn named(agent: &Agent, resident: &Resident, name: &str) -> Result<()> {
    let mut last = None;
    wait::until(ARRIVE, &format!("the name {name}"), || {
        resident.ask(1)?;
        last = row(agent, resident.process.pid())?;
        Ok(last.as_ref().is_some_and(|row| row["service"]["service.name"] == name).then_some(()))
    })
    .with_context(|| format!("{last:?}"))
}

fn pod(cluster: &Cluster, name: &str, digit: char) -> Result<String> {
    let spec = json!({ "nodeName": NODE });
    cluster.pod("shop", &json!({ "name": name }), &spec, &format!("10.78.0.{}", digit as u8), ("app", &id(digit)))
}

/// Killed under load: not one call is lost, what is known stays, with its age; and it is asked again.
#[test]
fn an_api_server_killed_under_load_takes_nothing_away() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    let (first, second) = (pod(&cluster, "first", 'a')?, pod(&cluster, "second", 'b')?);
    let agent = agent(&cluster, &[])?;
    stands(&agent, "ok")?;
    let resident = Resident::start(&first, &id('a'))?;
    named(&agent, &resident, "first")?;
    let before = agent.calls_now(&[resident.port])?.len();
    let url = format!("http://127.0.0.1:{}/fixed/1", resident.port);
    let loaded = std::thread::scope(|scope| -> Result<u64> {
        let load = scope.spawn(|| load::h2load(6000, 4, std::slice::from_ref(&url)));
        std::thread::sleep(Duration::from_millis(500));
        cluster.kill()?;
        let load = load.join().map_err(|_| anyhow::anyhow!("the load failed"))??;
        Ok(load.answered)
    })?;
    let calls = agent.calls(&[resident.port], before + 2 * loaded as usize)?;
    ensure!(calls.len() == before + 2 * loaded as usize, "{} calls of {before} and {loaded}", calls.len());
    stands(&agent, "degraded")?;
    let (_, detail, remedy) = doctor(&agent, "pods")?;
    ensure!(detail.starts_with("2 known, nothing new for") && remedy.contains("API server"), "{detail}; {remedy}");
    named(&agent, &resident, "first")?;
    // A process that starts now, in a pod that was told before.
    let other = Resident::start(&second, &id('b'))?;
    named(&agent, &other, "second")?;
    ensure!(agent.ledger()?.lost() == 0);
    cluster.again()?;
    let third = pod(&cluster, "third", 'c')?;
    let late = Resident::start(&third, &id('c'))?;
    stands(&agent, "ok")?;
    named(&agent, &late, "third")?;
    agent.finish()
}

/// One that accepts and says nothing: the agent is there at once, and takes the names when they come.
#[test]
fn a_silent_api_server_keeps_nobody_waiting() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    let uid = pod(&cluster, "patient", 'a')?;
    cluster.freeze(true)?;
    let begin = Instant::now();
    let agent = agent(&cluster, &[])?;
    let ready = begin.elapsed();
    let resident = Resident::start(&uid, &id('a'))?;
    named(&agent, &resident, "resident")?;
    cluster.freeze(false)?;
    ensure!(ready < Duration::from_secs(5), "ready after {ready:?}");
    stands(&agent, "ok")?;
    named(&agent, &resident, "patient")?;
    agent.finish()
}

/// An account without rights: said once, with what to do, and taken as soon as it is allowed.
#[test]
fn what_is_forbidden_is_said_once() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    let uid = pod(&cluster, "allowed", 'a')?;
    cluster.unbind()?;
    let agent = agent(&cluster, &[])?;
    stands(&agent, "degraded")?;
    let (_, detail, remedy) = doctor(&agent, "services")?;
    ensure!(detail.contains("never told") && detail.contains("forbidden"), "{detail}");
    ensure!(remedy.contains("ClusterRole"), "{remedy}");
    let resident = Resident::start(&uid, &id('a'))?;
    named(&agent, &resident, "resident")?;
    std::thread::sleep(Duration::from_secs(3));
    let log = agent.log()?;
    let warned = log.lines().filter(|line| line.contains("ClusterRole")).count();
    ensure!(warned == 4, "{warned} warnings for four kinds:\n{log}");
    cluster.bind()?;
    stands(&agent, "ok")?;
    named(&agent, &resident, "allowed")?;
    // And taken away again while it watches.
    cluster.unbind()?;
    named(&agent, &resident, "allowed")?;
    agent.finish()
}

#[test]
fn no_kubeconfig_is_no_reason_to_end() -> Result<()> {
    let agent = Agent::start(&["kubernetes.kubeconfig=/nonexistent/kubeconfig", "kubernetes.node=x"])?;
    stands(&agent, "degraded")?;
    let (_, detail, remedy) = doctor(&agent, "pods")?;
    ensure!(
        detail.contains("/nonexistent/kubeconfig") && remedy.contains("kubernetes.kubeconfig"),
        "{detail}; {remedy}"
    );
    agent.finish()?;
    let off = Agent::start(&["kubernetes.mode=off"])?;
    ensure!(doctor(&off, "pods").is_err());
    off.finish()
}

/// Answers a request of the API with a document.
fn answer(wire: &mut Wire, status: u16, document: &Value) -> Result<()> {
    let body = document.to_string();
    wire.send(format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A page of a list; `more` goes on at that place.
fn page(items: &[Value], more: Option<usize>) -> Value {
    let more = more.map(|at| at.to_string()).unwrap_or_default();
    json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "7", "continue": more }, "items": items })
}

/// It forgot its list once.
static FORGOT: AtomicBool = AtomicBool::new(false);

/// A server that gives 160 pods with a megabyte of annotations each, forgets its own list in the middle the first time,
/// and ends each watch at once.
fn endless(mut wire: Wire) -> Result<()> {
    while let Some(request) = wire.request()? {
        let line = request.start();
        let query = |key: &str| line.split(['?', '&', ' ']).find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        if query("watch").is_some() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")?;
        } else if !line.contains("/api/v1/pods") {
            answer(&mut wire, 200, &page(&[], None))?;
        } else {
            let limit: usize = query("limit").context("a list without limit")?.parse()?;
            let from: usize = query("continue").map_or(Ok(0), str::parse)?;
            if from > 0 && !FORGOT.swap(true, Ordering::Relaxed) {
                let gone = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                    "reason": "Expired", "message": "the continue token is too old", "metadata": {} });
                answer(&mut wire, 410, &gone)?;
                continue;
            }
            let pods: Vec<Value> = (from..(from + limit).min(160)).map(|n| {
                json!({ "metadata": {
                    "name": format!("fat-{n}"), "namespace": "shop", "uid": format!("0f4d9a54-1d0c-4a0e-9a53-{n:012}"),
                    "resourceVersion": "7",
                    "annotations": { "example.org/blob": "x".repeat(1 << 20), "resource.opentelemetry.io/blob": "y".repeat(300) },
                } })
            })
            .collect();
            let more = Some(from + limit).filter(|next| *next < 160);
            answer(&mut wire, 200, &page(&pods, more))?;
        }
    }
    Ok(())
}

#[test]
fn megabytes_of_annotations_stay_outside() -> Result<()> {
    let server = Server::start(endless)?;
    let scratch = Scratch::new("endless")?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{ "name": "c", "user": {} }],
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", server.address()) } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }],
    });
    let file = scratch.write("kubeconfig", config.to_string())?;
    let agent =
        Agent::start(&[&format!("kubernetes.kubeconfig={}", file.display()), &format!("kubernetes.node={NODE}")])?;
    let mut most = 0;
    wait::until(Duration::from_mins(1), "160 pods", || {
        most = most.max(agent.resident()?);
        Ok(doctor(&agent, "pods")?.1.starts_with("160 known").then_some(()))
    })
    .with_context(|| agent.log().unwrap_or_default())?;
    let resident = Resident::start("0f4d9a54-1d0c-4a0e-9a53-000000000159", &id('a'))?;
    named(&agent, &resident, "fat-159")?;
    // What reading took goes back to the system within seconds.
    let after = wait::until(Duration::from_secs(15), "less memory", || {
        let now = agent.resident()?;
        Ok(Some(now).filter(|now| *now < 64 << 20))
    });
    println!("160 MiB of annotations: at most {} MiB while they came, then {after:?}", most >> 20);
    ensure!(most < 96 << 20, "{most} bytes");
    after?;
    let refused = ignored(&agent, "unusable_annotation")?;
    ensure!(refused >= 160, "{refused}");
    agent.stop_lossy()?;
    drop(server);
    Ok(())
}
