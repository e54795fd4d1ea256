//! Pods with a process in each, and the agent that is to name them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_tests::agent::Agent;
use weir_tests::cgroup::Cgroup;
use weir_tests::cluster::{Account, Cluster};
use weir_tests::peers::load;
use weir_tests::place::{self, Scratch};
use weir_tests::process::Process;
use weir_tests::wait;

/// This node's name in the cluster.
pub(crate) const NODE: &str = "node-a";
/// Until what was told to the API server must have arrived.
pub(crate) const ARRIVE: Duration = Duration::from_secs(20);

/// The agent, asking with the rights that it needs.
pub(crate) fn agent(cluster: &Cluster, more: &[&str]) -> Result<Agent> {
    let file = format!("kubernetes.kubeconfig={}", cluster.kubeconfig(Account::Agent).display());
    Agent::start(&[&[file.as_str(), &format!("kubernetes.node={NODE}")], more].concat())
}

/// A container's id made of a digit.
pub(crate) fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

/// A server in the control group of a pod's container.
pub(crate) struct Resident {
    pub(crate) port: u16,
    pub(crate) process: Process,
    _group: Cgroup,
    _scratch: Scratch,
}

impl Resident {
    /// Starts `resident.py` where containerd's cgroupfs driver would.
    pub(crate) fn start(uid: &str, container: &str) -> Result<Self> {
        Self::start_with(uid, container, &[])
    }

    pub(crate) fn start_with(uid: &str, container: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let scratch = Scratch::new("resident")?;
        let log = scratch.write("requests.log", "")?;
        let source = place::sources().join("peers/python/http_server.py");
        let script = scratch.write("resident.py", std::fs::read_to_string(source)?)?;
        let port = place::free_port()?;
        let group = Cgroup::v2(&format!("/kubepods/burstable/pod{uid}/{container}"))?;
        let mut command = Command::new(place::program("python3")?);
        command.arg(script).arg(port.to_string()).arg(log);
        let mut command = group.command(&command);
        command.envs(variables.iter().copied());
        let process = Process::start(command, "resident", &scratch)?;
        wait::listening(([127, 0, 0, 1], port).into(), ARRIVE).with_context(|| process.output().unwrap_or_default())?;
        Ok(Self { port, process, _group: group, _scratch: scratch })
    }

    /// Makes it answer, so that it is seen.
    pub(crate) fn ask(&self, count: u32) -> Result<()> {
        load::curls(count, &format!("http://127.0.0.1:{}/fixed/1", self.port)).map(drop)
    }
}

/// What `weir services` says of the process: its only row.
pub(crate) fn row(agent: &Agent, pid: u32) -> Result<Option<Value>> {
    let mut rows = agent.lines(&["services"])?;
    rows.retain(|row| row["pids"].as_array().is_some_and(|pids| pids.iter().any(|it| *it == pid)));
    ensure!(rows.len() <= 1, "process {pid} is in {} rows: {rows:?}", rows.len());
    Ok(rows.pop())
}

/// Name, rule and attributes of a process, compared whole; asked again until they are right or the time is over.
pub(crate) fn is(agent: &Agent, resident: &Resident, name: &str, by: &str, attributes: &[(&str, &str)]) -> Result<()> {
    let wanted: BTreeMap<String, String> =
        attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut found = Value::Null;
    let reached = wait::until(ARRIVE, "its name", || {
        resident.ask(1)?;
        let Some(row) = row(agent, resident.process.pid())? else { return Ok(None) };
        let told: BTreeMap<String, String> = row["service"]
            .as_object()
            .context("no service")?
            .iter()
            .filter(|(key, _)| !key.starts_with("process.") && *key != "service.name")
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        found = json!([row["service"]["service.name"], row["evidence"], told]);
        Ok((found == json!([name, by, wanted])).then_some(()))
    });
    reached.with_context(|| format!("found    {found:#}\nexpected {:#}", json!([name, by, wanted])))
}

/// `kubernetes KIND` of `weir doctor`: standing, detail, remedy.
pub(crate) fn doctor(agent: &Agent, kind: &str) -> Result<(String, String, String)> {
    let report = agent.json(&["doctor"])?;
    let rows = report["rows"].as_array().context("no rows")?;
    let subject = format!("kubernetes {kind}");
    let row = rows.iter().find(|row| row["subject"] == *subject).with_context(|| format!("no row of {subject}"))?;
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok((text("standing"), text("detail"), text("remedy")))
}

/// Waits until the agent says this of pods, Services and slices.
pub(crate) fn stands(agent: &Agent, standing: &str) -> Result<()> {
    let mut last = Vec::new();
    wait::until(Duration::from_secs(90), &format!("the watch to be {standing}"), || {
        last = ["pods", "services", "endpointslices"]
            .map(|kind| doctor(agent, kind))
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(last.iter().all(|(it, ..)| it == standing).then_some(()))
    })
    .with_context(|| format!("{last:?}\n{}", agent.log().unwrap_or_default()))
}

/// Events that the agent counts as ignored for a reason.
pub(crate) fn ignored(agent: &Agent, reason: &str) -> Result<u64> {
    let stats = agent.json(&["stats"])?;
    let rows = stats["events"].as_array().context("no events")?;
    let row = rows.iter().find(|row| row["stage"] == "ignored" && row["reason"] == reason);
    row.and_then(|row| row["count"].as_u64()).with_context(|| format!("no count of {reason} in {rows:?}"))
}
