//! What it costs to know who is who: 10 000 processes, and the metadata of 5 000 pods from a real API server.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::{
    agent::Agent,
    cluster::{Account, Cluster},
    ledger::count,
    place::{self, Scratch},
    process::{self, Process},
    wait,
};

use super::{
    load,
    memory::status,
    sample::Samples,
    table::{Budget, Report, Row},
};
use crate::{repo, shell};

const PROCESSES: usize = 10_000;
const PODS: usize = 5_000;
/// Requests a second, and for how long, while it is counted what the agent reads.
const RATE: u64 = 1000;
const LOAD: Duration = Duration::from_secs(10);
/// Until the pods must be made, and must be known.
const MADE: Duration = Duration::from_mins(5);

/// Children that sleep and share everything with their parent.
const CROWD: &str = "
import os, signal, sys
for n in range(int(sys.argv[1])):
    if os.fork() == 0:
        signal.pause()
print('ready', flush=True)
signal.pause()
";

/// Builds what names processes without the kernel half, an example of the agent's package.
fn build() -> Result<()> {
    shell::run(
        Command::new("cargo")
            .args(["build", "--quiet", "--release", "--package", "weir", "--example", "lookups"])
            .current_dir(repo::root()),
    )
}

/// Processes that sleep; all of them end with this.
struct Crowd(Process);

impl Crowd {
    fn start(scratch: &Scratch) -> Result<Self> {
        let mut command = Command::new(place::program("python3")?);
        command.arg(scratch.write("crowd.py", CROWD)?).arg(PROCESSES.to_string());
        let crowd = Self(Process::start(command, "crowd", scratch)?);
        wait::until(Duration::from_mins(2), "the processes", || Ok(crowd.0.output()?.contains("ready").then_some(())))?;
        Ok(crowd)
    }
}

/// Measures starts `rounds` times, the rest once.
pub(crate) fn rows(rounds: u32, report: &mut Report) -> Result<()> {
    build()?;
    let scratch = Scratch::new("identity")?;
    let cluster = Cluster::start()?;
    cluster.namespace("crowd")?;
    let pods: Vec<Value> = (0..PODS).map(pod).collect();
    cluster.make_all("/api/v1/namespaces/crowd/pods", &pods, MADE)?;
    eprintln!("bench: identity: {PODS} pods are made");
    let crowd = Crowd::start(&scratch)?;
    let server = load::server(false)?;

    let file = format!("kubernetes.kubeconfig={}", cluster.kubeconfig(Account::Agent).display());
    let start = || Agent::start(&[&file, "kubernetes.node=node-a", "recent.memory=16MiB"]);
    let mut ready = Vec::new();
    for _ in 1..rounds {
        let agent = start()?;
        ready.push(agent.ready().as_secs_f64());
        agent.finish()?;
    }
    let begin = Instant::now();
    let agent = start()?;
    ready.push(agent.ready().as_secs_f64());
    let row = Row::new("start beside 10 000 processes", "s", Samples(ready), Some(Budget::AtMost(1.0)));
    report.rows.push(row.because("the API server that has just made 5 000 pods works on the same cores".to_owned()));
    let mut one = |name: &str, unit: &'static str, value: f64, budget| {
        report.rows.push(Row::new(name, unit, Samples(vec![value]), budget));
    };
    one("until sockets older than the agent have owners", "s", begin.elapsed().as_secs_f64(), None);
    wait::until(MADE, "the pods to be known", || {
        let report = agent.json(&["doctor"])?;
        let rows = report["rows"].as_array().context("no rows")?;
        let known = |row: &&Value| row["subject"] == "kubernetes pods";
        let detail = rows.iter().find(known).and_then(|row| row["detail"].as_str());
        Ok(detail.is_some_and(|detail| detail.starts_with(&format!("{PODS} known"))).then_some(()))
    })?;
    one("until 5 000 pods are known", "s", begin.elapsed().as_secs_f64(), None);
    one("memory meanwhile, highest", "MiB", status(agent.pid(), "VmHWM:")?, Some(Budget::AtMost(96.0)));

    load::constant(server.address(), Some(RATE), Duration::from_secs(2))?;
    let (before, calls) = (reads(agent.pid())?, seen(&agent)?);
    load::constant(server.address(), Some(RATE), LOAD)?;
    let calls = wait::until(Duration::from_secs(10), "the calls", || {
        let now = seen(&agent)? - calls;
        Ok(Some(now).filter(|now| *now > 0.0))
    })?;
    let read = (reads(agent.pid())? - before) as f64 / calls;
    let row = Row::new("reads by the agent a call", "", Samples(vec![read]), Some(Budget::AtMost(0.05)));
    report
        .rows
        .push(row.because("they are of its own page and clock, and of what else begins on this machine".to_owned()));
    agent.finish()?;

    let mut command = Command::new(repo::target().join("release/examples/lookups"));
    let said = process::run(command.arg(crowd.0.pid().to_string()), Duration::from_mins(2))?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let figure = |key: &str| said[key].as_f64().with_context(|| format!("no {key} in {said}"));
    ensure!(said["processes"].as_f64().map(count) == Some(PROCESSES as u64), "{said}");
    let mut one = |name: &str, unit: &'static str, value: f64, budget| {
        report.rows.push(Row::new(name, unit, Samples(vec![value]), budget));
    };
    one("processes named for the first time", "look-ups/s", figure("first")?, None);
    one("processes named again", "look-ups/s", figure("again")?, None);
    let polled = figure("read_last")? - figure("read_first")?;
    one("reads of /proc by a million look-ups of known processes", "", polled, Some(Budget::AtMost(0.0)));
    Ok(())
}

/// A pod as a Deployment of some size has it.
fn pod(n: usize) -> Value {
    let app = format!("app-{}", n / 10);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{app}-5d9f7c6b8-{n:05}"),
            "labels": { "app.kubernetes.io/name": app, "pod-template-hash": "5d9f7c6b8", "app.kubernetes.io/version": "1.2.3" },
            "annotations": { "example.org/checksum": format!("{n:064}"), "resource.opentelemetry.io/team": "blue" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-5d9f7c6b8"), "controller": true,
                "uid": format!("7f6f3c1e-2222-4333-8444-{:012}", n / 10),
            }],
        },
        "spec": { "nodeName": "node-a", "containers": [{ "name": "app", "image": "local/test:1" }] },
    })
}

/// Calls of `read` and its like so far.
fn reads(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("syscr:"));
    Ok(line.context("no syscr")?.trim().parse()?)
}

fn seen(agent: &Agent) -> Result<f64> {
    Ok(agent.page()?.sum("weir_calls_total", &[]))
}
