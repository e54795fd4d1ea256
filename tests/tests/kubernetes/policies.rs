//! `WeirPolicy` objects of a real API server: what they refuse, who may ask for it, and what is said of them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_tests::agent::Agent;
use weir_tests::cgroup::Cgroup;
use weir_tests::cluster::Cluster;
use weir_tests::netns::NetNs;
use weir_tests::place::Scratch;
use weir_tests::process::{self, Process};
use weir_tests::wait;

use crate::stage::{ARRIVE, NODE, agent, doctor, id};

const CLIENT: &str = "10.78.3.5";
const SERVER: &str = "10.78.3.6";

/// Two pods of two namespaces with an nginx each, at ports of one address, and a client beyond a cable: neither is on
/// the allow-list.
struct Stage {
    client: NetNs,
    _server: NetNs,
    scratch: Scratch,
    _nginx: Vec<(Process, Cgroup)>,
}

impl Stage {
    fn new(cluster: &Cluster) -> Result<Self> {
        let (client, server) = (NetNs::new("client")?, NetNs::new("server")?);
        NetNs::cable((&client, "c0", &[&format!("{CLIENT}/24")]), (&server, "s0", &[&format!("{SERVER}/24")]))?;
        let scratch = Scratch::new("policies")?;
        let mut running = Vec::new();
        for (namespace, port, digit) in [("shop", 8081, 'a'), ("bank", 8082, 'b')] {
            cluster.namespace(namespace)?;
            let meta = json!({ "name": "web-0", "labels": { "app.kubernetes.io/name": "web" } });
            let uid = cluster.pod(namespace, &meta, &json!({ "nodeName": NODE }), SERVER, ("app", &id(digit)))?;
            let folder = scratch.path().display();
            let settings = scratch.write(
                &format!("{namespace}.conf"),
                format!(
                    "daemon off; worker_processes 1; user root; pid {folder}/{namespace}.pid; error_log stderr;\n\
                     events {{}}\nhttp {{ access_log {folder}/{namespace}.log; server {{ listen {port}; location / {{ return 200 ok; }} }} }}\n"
                ),
            )?;
            let group = Cgroup::v2(&format!("/kubepods/burstable/pod{uid}/{}", id(digit)))?;
            let mut command = server.command("nginx")?;
            command.arg("-c").arg(settings).args(["-e", "stderr"]);
            let process = Process::start(group.command(&command), namespace, &scratch)?;
            wait::until(ARRIVE, "nginx", || {
                Ok(server.run("ss", "-Hltn")?.contains(&format!(":{port} ")).then_some(()))
            })
            .with_context(|| process.output().unwrap_or_default())?;
            running.push((process, group));
        }
        Ok(Self { client, _server: server, scratch, _nginx: running })
    }

    /// A status, or none where it was refused: the connection is ended, although its server is older than the agent and
    /// in another network namespace.
    fn get(&self, port: u16, path: &str) -> Result<Option<u16>> {
        let mut command: Command = self.client.command("curl")?;
        command.args(["-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"]);
        command.arg(format!("http://{SERVER}:{port}{path}"));
        let said = process::say(&mut command, Duration::from_secs(20))?;
        ensure!([0, 52, 56].contains(&said.code), "curl ended with {}", said.code);
        Ok(if said.code == 0 { Some(said.out.trim().parse()?) } else { None })
    }

    fn until(&self, port: u16, path: &str, answered: bool) -> Result<()> {
        let what = format!("{path} at {port} to be {}", if answered { "answered" } else { "refused" });
        wait::until(ARRIVE, &what, || Ok((self.get(port, path)?.is_some() == answered).then_some(())))
    }

    /// Requests for a path that reached an application.
    fn reached(&self, namespace: &str, path: &str) -> Result<usize> {
        let log = std::fs::read_to_string(self.scratch.join(&format!("{namespace}.log")))?;
        Ok(log.lines().filter(|line| line.contains(&format!("GET {path} "))).count())
    }
}

fn policy(name: &str, rules: &Value) -> Value {
    json!({ "apiVersion": "weir.io/v1alpha1", "kind": "WeirPolicy", "metadata": { "name": name }, "spec": { "rules": rules } })
}

fn path(namespace: &str) -> String {
    format!("/apis/weir.io/v1alpha1/namespaces/{namespace}/weirpolicies")
}

/// This node's entry in a policy's status, once `is_so`.
fn entry(cluster: &Cluster, name: &str, agent: &Agent, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let (namespace, policy) = name.split_once('/').context("namespace/name")?;
    let mut last = Value::Null;
    let found = wait::until(Duration::from_secs(40), &format!("the status of {name}"), || {
        last = cluster.get(&format!("{}/{policy}", path(namespace)))?;
        let nodes = last["status"]["nodes"].as_array().cloned().unwrap_or_default();
        Ok(nodes.into_iter().find(|node| node["name"] == NODE).filter(&is_so))
    });
    found.with_context(|| format!("{last:#}\n{}", agent.log().unwrap_or_default()))
}

/// Status, reason and message of a condition.
fn condition<'a>(entry: &'a Value, kind: &str) -> (&'a str, &'a str, &'a str) {
    let all = entry["conditions"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|it| it["type"] == kind).unwrap_or(&Value::Null);
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

/// The row of `weir mode` about policies.
fn source(agent: &Agent) -> Result<Value> {
    let mode = agent.json(&["mode"])?;
    let rows = mode["sources"].as_array().context("no sources")?;
    rows.iter().find(|row| row["name"] == "policies").cloned().with_context(|| format!("no policies in {mode}"))
}

fn deny(id: &str, at: &str) -> Value {
    json!({ "id": id, "client": { "address": [CLIENT] }, "path": [at], "mode": "enforce", "reason": "a test" })
}

/// A policy drops at its own namespace's pods and nowhere else; a bad one changes nothing and is told why; what holds,
/// holds without the API server; what is deleted is gone.
#[test]
fn policies_are_carried_out_and_answered() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.policies()?;
    let stage = Stage::new(&cluster)?;
    let agent = agent(&cluster, &["enforce.mode=enforce", "enforce.audit="])?;
    ensure!(stage.get(8081, "/login")? == Some(200) && stage.get(8082, "/login")? == Some(200));
    let scan = format!("{}/scan", path("shop"));

    cluster.make(&path("shop"), &policy("scan", &json!([deny("a", "/login")])))?;
    stage.until(8081, "/login", false)?;
    let before = stage.reached("shop", "/login")?;
    for _ in 0..4 {
        ensure!(stage.get(8081, "/login")?.is_none() && stage.get(8082, "/login")? == Some(200));
        ensure!(stage.get(8081, "/other")? == Some(200));
    }
    ensure!(stage.reached("shop", "/login")? == before && stage.reached("shop", "/other")? == 4);
    // As many hits as requests were refused: those of above, and one of `until`.
    let rows = agent.lines(&["block", "list"])?;
    ensure!(rows.len() == 1 && rows[0]["id"] == "shop:scan:a" && rows[0]["source"] == "policy shop/scan", "{rows:#?}");
    let hits = rows[0]["hits"].as_u64().context("no hits")?;
    ensure!(hits == 5, "{hits}");
    let told = entry(&cluster, "shop/scan", &agent, |entry| entry["hits"] == hits)?;
    ensure!(condition(&told, "Accepted") == ("True", "Accepted", ""), "{told:#}");
    ensure!(condition(&told, "Enforced") == ("True", "Enforced", ""), "{told:#}");
    ensure!(told["observedGeneration"] == 1 && told["rules"] == 1 && told["lastHit"].is_string(), "{told:#}");

    // What the schema does not take is refused at the door, what the agent does not take is told in the status.
    let spec = |rules: &Value| json!({ "spec": { "rules": rules } });
    ensure!(cluster.patch(&scan, &spec(&json!([{ "mode": "sometimes" }]))).is_err());
    for (rules, reason, said) in [
        (json!([deny("a", "/else"), { "clint": {}, "path": ["/x"] }]), "InvalidRule", "unknown field `clint`"),
        (json!([deny("a", "/else"), deny("a", "/more")]), "InvalidRule", "rules[1].id: a is another rule's"),
        (json!([{ "server": { "pod": ["bank/web-0"] }, "path": ["/x"] }]), "InvalidRule", "another namespace"),
        (json!([{ "path": ["/x"], "force": true }]), "InvalidRule", "rules[0].force"),
        (json!([{ "path": ["/x"], "blob": "x".repeat(1_000_000) }]), "TooLarge", "its spec has 10000"),
    ] {
        let generation = cluster.patch(&scan, &spec(&rules))?["metadata"]["generation"].clone();
        let told = entry(&cluster, "shop/scan", &agent, |entry| entry["observedGeneration"] == generation)?;
        let (status, found, message) = condition(&told, "Accepted");
        ensure!((status, found) == ("False", reason) && message.contains(said), "{told:#}");
        ensure!(message.contains("the rules of generation 1 hold"), "{message}");
        ensure!(condition(&told, "Enforced").0 == "True", "{told:#}");
        ensure!(stage.get(8081, "/login")?.is_none() && stage.get(8081, "/else")? == Some(200));
        let row = source(&agent)?;
        ensure!(row["left_out"] == 1 && row["last_error"].as_str().is_some_and(|it| it.contains(said)), "{row}");
    }
    let resident = agent.resident()?;
    ensure!(resident < 128 << 20, "{resident} bytes after a policy of a megabyte");

    // A good one replaces it, and counts on.
    cluster.patch(&scan, &spec(&json!([deny("a", "/admin")])))?;
    stage.until(8081, "/admin", false)?;
    stage.until(8081, "/login", true)?;
    ensure!(source(&agent)?["last_error"].is_null());
    // A client that is named by identity: known where it is on this node.
    let both = json!([{ "client": { "process": ["curl"] }, "path": ["/admin"], "mode": "enforce" }]);
    cluster.make(&path("bank"), &policy("both", &both))?;
    let told = entry(&cluster, "bank/both", &agent, |entry| condition(entry, "Enforced").0 == "True")?;
    ensure!(condition(&told, "Enforced").2.contains("own node"), "{told:#}");
    stage.until(8082, "/admin", false)?;
    cluster.delete(&format!("{}/both", path("bank")))?;
    stage.until(8082, "/admin", true)?;

    // Without the API server everything stays, and its age is told.
    cluster.kill()?;
    wait::until(ARRIVE, "the age of what is known", || {
        let row = source(&agent)?;
        Ok((row["last_error"].is_string() && row["age_seconds"].as_f64() > Some(1.0)).then_some(()))
    })?;
    let (standing, detail, _) = doctor(&agent, "weirpolicies")?;
    ensure!(standing == "degraded" && detail.starts_with("1 known"), "{standing}: {detail}");
    ensure!(stage.get(8081, "/admin")?.is_none() && stage.get(8082, "/admin")? == Some(200));
    cluster.again()?;
    cluster.delete(&scan)?;
    stage.until(8081, "/admin", true)?;
    ensure!(agent.lines(&["block", "list"])?.is_empty());
    agent.finish()
}

/// A cluster without the kind, an account that may not read or write, and a namespace that may name all.
#[test]
fn what_is_not_there_or_not_allowed_is_said() -> Result<()> {
    let cluster = Cluster::start()?;
    let stage = Stage::new(&cluster)?;
    let wide = ["enforce.mode=enforce", "enforce.audit=", "enforce.cluster_namespaces=[security]"];
    let agent = agent(&cluster, &wide)?;
    let stands = |agent: &Agent, wanted: &str, said: &str| {
        let mut last = (String::new(), String::new(), String::new());
        wait::until(Duration::from_secs(90), &format!("{wanted}: {said}"), || {
            last = doctor(agent, "weirpolicies")?;
            Ok((last.0 == wanted && last.1.contains(said)).then_some(()))
        })
        .with_context(|| format!("{last:?}"))
    };
    stands(&agent, "ok", "no such kind")?;
    let row = wait::until(ARRIVE, "the row", || Ok(source(&agent).ok()))?;
    ensure!(row["last_error"].as_str().is_some_and(|it| it.contains("weirpolicy.yaml")), "{row}");
    ensure!(row["errors"].as_object().is_some_and(serde_json::Map::is_empty), "{row}");

    // The kind comes while the agent runs; a namespace that has no pod here may name all pods, where the node says so.
    cluster.policies()?;
    cluster.namespace("security")?;
    cluster.namespace("idle")?;
    for namespace in ["security", "idle"] {
        cluster.make(&path(namespace), &policy("all", &json!([deny("a", &format!("/{namespace}"))])))?;
    }
    stands(&agent, "ok", "2 known")?;
    stage.until(8081, "/security", false)?;
    stage.until(8082, "/security", false)?;
    ensure!(stage.get(8081, "/idle")? == Some(200) && stage.get(8082, "/idle")? == Some(200));
    entry(&cluster, "security/all", &agent, |entry| condition(entry, "Enforced").0 == "True")?;
    let idle = cluster.get(&format!("{}/all", path("idle")))?;
    ensure!(idle["status"].is_null(), "{idle:#}");
    // A pod of that namespace comes to this node, and goes.
    cluster.pod("idle", &json!({ "name": "late" }), &json!({ "nodeName": NODE }), "10.78.3.9", ("app", &id('c')))?;
    entry(&cluster, "idle/all", &agent, |entry| condition(entry, "Accepted").0 == "True")?;
    cluster.delete("/api/v1/namespaces/idle/pods/late")?;
    let mut last = Value::Null;
    wait::until(ARRIVE, "the entry to go", || {
        last = cluster.get(&format!("{}/all", path("idle")))?;
        Ok(last["status"]["nodes"].as_array().is_none_or(Vec::is_empty).then_some(()))
    })
    .with_context(|| format!("{last:#}\n{}", agent.log().unwrap_or_default()))?;

    // May read, but not write.
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/weir";
    let mut rules = cluster.get(role)?["rules"].clone();
    let all = rules.as_array_mut().context("no rules")?;
    all.retain(|rule| rule["resources"][0] != "weirpolicies/status");
    cluster.patch(role, &json!({ "rules": all }))?;
    let more = json!({ "spec": { "rules": [deny("a", "/security"), deny("b", "/more")] } });
    cluster.patch(&format!("{}/all", path("security")), &more)?;
    stage.until(8082, "/more", false)?;
    wait::until(ARRIVE, "the missing permission to be told", || {
        last = agent.json(&["doctor"])?;
        let rows = last["rows"].as_array().context("no rows")?;
        let row = rows.iter().find(|row| row["subject"] == "kubernetes weirpolicies/status");
        Ok(row.filter(|row| row["remedy"].as_str().is_some_and(|it| it.contains("ClusterRole"))).map(drop))
    })
    .with_context(|| format!("{last:#}"))?;

    // Turned off, it takes everything with it.
    agent.finish()?;
    let off = crate::stage::agent(&cluster, &["enforce.mode=enforce", "enforce.audit=", "enforce.policies=false"])?;
    crate::stage::stands(&off, "ok")?;
    ensure!(doctor(&off, "weirpolicies").is_err() && source(&off).is_err());
    ensure!(stage.get(8081, "/security")? == Some(200));
    off.finish()
}
