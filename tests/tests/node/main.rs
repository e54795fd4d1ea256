//! A real node of Kubernetes with kubelet, containerd and kube-proxy: workloads that call each other through a Service are
//! named to the letter and counted exactly, and a kubelet's probes are never refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_tests::agent::Agent;
use weir_tests::kubernetes::{KubeNode, Proxy};
use weir_tests::wait;

/// Until what happened must be told.
const SHOW: Duration = Duration::from_secs(30);

/// A server behind a Service with probes of both kinds, and a client.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: nginx
          image: docker.io/local/test:1
          imagePullPolicy: Never
          command: [/usr/sbin/nginx, -c, /etc/web.conf]
          ports: [{ containerPort: 8080 }]
          readinessProbe: { httpGet: { path: /ready, port: 8080 }, periodSeconds: 1 }
          livenessProbe: { httpGet: { path: /alive, port: 8080 }, periodSeconds: 1, failureThreshold: 2 }
---
apiVersion: v1
kind: Service
metadata: { name: front, namespace: shop }
spec: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: caller, namespace: shop }
spec:
  selector: { matchLabels: { app: caller } }
  template:
    metadata: { labels: { app: caller } }
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{ name: shell, image: docker.io/local/test:1, imagePullPolicy: Never }]
";

/// The shop on a node, with an agent that is older than it.
struct Stage {
    node: KubeNode,
    agent: Agent,
    /// The Service's address.
    service: String,
}

impl Stage {
    fn start(proxy: Proxy, settings: &[&str]) -> Result<Self> {
        let node = KubeNode::start(proxy)?;
        // The pods alone: what else this machine does meanwhile is not looked at.
        let pods = format!("kernel.cgroup={}", node.pods()?.display());
        let agent = node.agent(&[&[pods.as_str()], settings].concat())?;
        node.apply(SHOP)?;
        node.rolled_out("shop", "web")?;
        node.rolled_out("shop", "caller")?;
        let service = node.get(&["-n", "shop", "service", "front"])?["spec"]["clusterIP"].clone();
        let service = service.as_str().context("no address")?.to_owned();
        let stage = Self { node, agent, service };
        // Until kube-proxy translates.
        wait::until(SHOW, "the Service to answer", || Ok((stage.ask(1, "/first")? == 1).then_some(())))?;
        Ok(stage)
    }

    /// Requests from the client's pod through the Service; gives how many were answered.
    fn ask(&self, count: u32, path: &str) -> Result<u32> {
        let url = format!("http://{}{path}", self.service);
        let shell = format!(
            "n=0; i=0; while [ $i -lt {count} ]; do /usr/bin/curl -s -m 5 -o /dev/null {url} && n=$((n+1)); i=$((i+1)); done; echo $n"
        );
        Ok(self.node.exec("shop", "deployment/caller", &shell)?.trim().parse()?)
    }

    /// What must be said of a pod's process, but for its process.
    fn identity(&self, app: &str) -> Result<BTreeMap<String, Value>> {
        let pods = self.node.get(&["-n", "shop", "pods", "-l", &format!("app={app}")])?;
        let pod = &pods["items"][0];
        let set = &pod["metadata"]["ownerReferences"][0];
        let container = &pod["status"]["containerStatuses"][0];
        let id = container["containerID"].as_str().and_then(|id| id.strip_prefix("containerd://")).context("no id")?;
        let all = [
            ("service.name", json!(app)),
            ("service.namespace", json!("shop")),
            ("container.id", json!(id)),
            ("k8s.container.name", container["name"].clone()),
            ("k8s.deployment.name", json!(app)),
            ("k8s.namespace.name", json!("shop")),
            ("k8s.node.name", json!("node1")),
            ("k8s.pod.name", pod["metadata"]["name"].clone()),
            ("k8s.pod.uid", pod["metadata"]["uid"].clone()),
            ("k8s.replicaset.name", set["name"].clone()),
            ("k8s.replicaset.uid", set["uid"].clone()),
        ];
        Ok(all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// The calls for a path, of both sides, once there are so many of each.
    fn calls(&self, path: &str, count: usize) -> Result<[Vec<Value>; 2]> {
        let mut found = [Vec::new(), Vec::new()];
        let reached = wait::until(SHOW, &format!("{count} calls of each side for {path}"), || {
            let all = self.agent.lines(&["calls", "--last", "1000000"])?;
            let of = |kind: &str| {
                let wanted = |call: &&Value| call["kind"] == kind && call["attributes"]["url.path"] == path;
                all.iter().filter(wanted).cloned().collect::<Vec<_>>()
            };
            found = [of("client"), of("server")];
            Ok(found.iter().all(|calls| calls.len() >= count).then_some(()))
        });
        reached.with_context(|| format!("{} and {}", found[0].len(), found[1].len()))?;
        Ok(found)
    }

    fn finish(self) -> Result<()> {
        self.agent.finish()
    }
}

/// A service without what is the process's own.
fn told(service: &Value) -> BTreeMap<String, Value> {
    let all = service.as_object().into_iter().flatten();
    all.filter(|(key, value)| !key.starts_with("process.") && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Thirty requests from pod to pod by way of a Service: both sides, before and after the translation.
fn a_service_is_seen_from_both_sides(proxy: Proxy) -> Result<()> {
    let stage = Stage::start(proxy, &["privacy.level=standard"])?;
    ensure!(stage.ask(30, "/order")? == 30);
    let [client, server] = stage.calls("/order", 30)?;
    ensure!(client.len() == 30 && server.len() == 30, "{} and {} calls", client.len(), server.len());
    let (caller, web) = (stage.identity("caller")?, stage.identity("web")?);
    for call in &client {
        ensure!(told(&call["service"]) == caller, "{call:#}\n{caller:#?}");
        // The Service as it was called, and who answered behind it.
        ensure!(call["peer"]["address"] == *stage.service && call["peer"]["port"] == 80, "{call:#}");
        ensure!(call["peer"]["service.name"] == "web", "{call:#}");
    }
    for call in &server {
        ensure!(told(&call["service"]) == web, "{call:#}\n{web:#?}");
        ensure!(call["peer"]["service.name"] == "caller", "{call:#}");
        ensure!(call["connection"]["local"].as_str().is_some_and(|end| end.ends_with(":8080")), "{call:#}");
    }
    let ids = |calls: &[Value], key: &str| calls.iter().map(|call| call[key].to_string()).collect::<BTreeSet<_>>();
    let (spans, parents) = (ids(&client, "span_id"), ids(&server, "parent_span_id"));
    ensure!(spans.len() == 30 && spans == parents, "{spans:?}\n{parents:?}");
    let graph = stage.agent.json(&["graph"])?;
    let edges = graph["edges"].as_array().context("no edges")?;
    let found: Vec<_> = edges
        .iter()
        // Before kube-proxy translates, connections fail; that is an edge, too.
        .filter(|edge| edge["client"]["service.name"] == "caller" && edge["protocol"] == "http")
        .collect();
    // Each call once, with the one that was answered at the start.
    ensure!(found.len() == 1 && found[0]["server"]["service.name"] == "web", "{graph:#}");
    let told = json!([found[0]["server_port"], found[0]["calls"], found[0]["errors"], found[0]["observed_by"]]);
    ensure!(told == json!([8080, 31, 0, ["client", "server"]]), "{graph:#}");
    stage.finish()
}

#[test]
fn a_service_by_iptables_is_seen_from_both_sides() -> Result<()> {
    a_service_is_seen_from_both_sides(Proxy::Iptables)
}

#[test]
fn a_service_by_nftables_is_seen_from_both_sides() -> Result<()> {
    a_service_is_seen_from_both_sides(Proxy::Nftables)
}

/// A rule that denies every address that pods have refuses the client and never the kubelet: the pod stays ready and is
/// not started anew. The kubelet's address is that of a bridge which is younger than the agent.
#[test]
fn probes_of_a_kubelet_are_never_refused() -> Result<()> {
    let stage = Stage::start(Proxy::Iptables, &["privacy.level=standard", "enforce.mode=enforce", "enforce.audit="])?;
    let policies = weir_tests::place::sources().join("../deploy/kubernetes/weirpolicy.yaml");
    stage.node.kubectl(&["apply", "-f", &policies.display().to_string()])?;
    stage.node.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/weirpolicies.weir.io"])?;
    let rule = json!({ "client": { "address": ["10.0.0.0/8"] }, "server": { "port": [8080] }, "mode": "enforce" });
    let policy = json!({
        "apiVersion": "weir.io/v1alpha1", "kind": "WeirPolicy", "metadata": { "name": "all", "namespace": "shop" },
        "spec": { "rules": [rule] },
    });
    wait::until(SHOW, "the policy to be taken", || Ok(stage.node.apply(&policy.to_string()).ok()))?;
    wait::until(SHOW, "the client to be refused", || Ok((stage.ask(1, "/denied")? == 0).then_some(())))?;
    // Ten probes of each kind from here on, each answered.
    let probes = |path: &str| -> Result<usize> {
        let shell = format!("/bin/busybox grep -c 'GET {path} HTTP/1.1\" 200' /tmp/access.log || true");
        Ok(stage.node.exec("shop", "deployment/web", &shell)?.trim().parse()?)
    };
    let before = [probes("/ready")?, probes("/alive")?];
    wait::until(Duration::from_mins(1), "ten probes of each kind", || {
        let now = [probes("/ready")?, probes("/alive")?];
        Ok((now[0] >= before[0] + 10 && now[1] >= before[1] + 10).then_some(()))
    })?;
    ensure!(stage.ask(3, "/denied")? == 0);
    let pods = stage.node.get(&["-n", "shop", "pods", "-l", "app=web"])?;
    let container = &pods["items"][0]["status"]["containerStatuses"][0];
    ensure!(container["ready"] == true && container["restartCount"] == 0, "{container:#}");
    let mode = stage.agent.json(&["mode"])?;
    let rows = mode["allow_list"].as_array().context("no allow_list")?;
    let row = rows.iter().find(|row| row["address"] == "10.78.0.1").with_context(|| format!("no bridge in {mode}"))?;
    ensure!(row["saved"].as_u64() >= Some(20), "{row}");
    let status = stage.node.get(&["-n", "shop", "weirpolicy", "all"])?;
    ensure!(status["status"]["nodes"][0]["name"] == "node1", "{status:#}");
    stage.finish()
}
