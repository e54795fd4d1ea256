//! A real API server of Kubernetes with its store, on loopback, without any node: pods are made by hand, and a test
//! gives them the control groups that a kubelet would.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place::{self, Scratch};
use crate::process::{self, Process};
use crate::wait;

/// Until the API server must be ready.
const START: Duration = Duration::from_mins(1);
/// Longest that one request may take.
const REQUEST: Duration = Duration::from_secs(20);

/// Who asks the API server, each with a kubeconfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// May do everything.
    Admin,
    /// The agent's service account: may do what `deploy` gives it.
    Agent,
}

impl Account {
    const ALL: [Self; 2] = [Self::Admin, Self::Agent];

    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Agent => "weir",
        }
    }

    fn token(self) -> String {
        format!("token-of-{}", self.name())
    }

    /// Its line in the API server's list of tokens: token, user, uid, groups.
    fn line(self) -> String {
        let (user, groups) = match self {
            Self::Admin => ("admin", "\"system:masters\""),
            Self::Agent => ("system:serviceaccount:weir:weir", ""),
        };
        format!("{},{user},{},{groups}\n", self.token(), self.name())
    }
}

/// A running API server.
#[derive(Debug)]
pub struct Cluster {
    server: Process,
    store: u16,
    port: u16,
    scratch: Scratch,
    _etcd: Process,
}

impl Cluster {
    /// Starts the store and the API server, waits until it is ready, makes the agent's role.
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new("cluster")?;
        let (store, peer, port) = (place::free_port()?, place::free_port()?, place::free_port()?);
        let mut command = node("etcd")?;
        command.args(["--unsafe-no-fsync", "--log-level", "warn", "--data-dir"]).arg(scratch.join("etcd"));
        for (option, port) in
            [("listen-client-urls", store), ("advertise-client-urls", store), ("listen-peer-urls", peer)]
        {
            command.arg(format!("--{option}=http://127.0.0.1:{port}"));
        }
        let etcd = Process::start(command, "etcd", &scratch)?;
        wait::listening(SocketAddr::from((Ipv4Addr::LOCALHOST, store)), START)
            .with_context(|| etcd.output().unwrap_or_default())?;
        process::run(
            Command::new(place::program("openssl")?).args(["genrsa", "-out"]).arg(scratch.join("sa.key")).arg("2048"),
            REQUEST,
        )?;
        scratch.write("tokens.csv", Account::ALL.map(Account::line).concat())?;
        let server = serve(&scratch, store, port)?;
        let mut cluster = Self { server, store, port, scratch, _etcd: etcd };
        cluster.wait_ready()?;
        for account in Account::ALL {
            cluster.scratch.write(&format!("{}.conf", account.name()), cluster.config(account))?;
        }
        cluster.bind()?;
        Ok(cluster)
    }

    fn config(&self, account: Account) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority": self.scratch.join("cert/apiserver.crt"),
            } }],
            "users": [{ "name": "c", "user": { "token": account.token() } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }],
        });
        config.to_string()
    }

    /// The file that tells where it is, and who asks.
    #[must_use]
    pub fn kubeconfig(&self, account: Account) -> PathBuf {
        self.scratch.join(&format!("{}.conf", account.name()))
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait::until(START, "a ready API server", || {
            ensure!(self.server.ended()?.is_none(), "it ended");
            Ok(self.ask("GET", "/readyz", None).ok().filter(|text| text == "ok").map(drop))
        })
        .with_context(|| self.server.output().unwrap_or_default())
    }

    /// Gives the agent's account its role (again), as `deploy` has it.
    pub fn bind(&self) -> Result<()> {
        let file = place::sources().join("../deploy/kubernetes/rbac.yaml");
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).map(drop)
    }

    /// Makes `WeirPolicy` a kind of this cluster, as `deploy` has it, and waits until it is served.
    pub fn policies(&self) -> Result<()> {
        let file = place::sources().join("../deploy/kubernetes/weirpolicy.yaml");
        self.kubectl(&["apply", "--filename", &file.display().to_string()])?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/weirpolicies.weir.io"])?;
        wait::until(START, "the kind to be served", || {
            Ok(self.get("/apis/weir.io/v1alpha1/weirpolicies").ok().map(drop))
        })
    }

    /// Takes the agent's role away.
    pub fn unbind(&self) -> Result<()> {
        self.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/weir")
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String> {
        let mut command = Command::new(place::program("curl")?);
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        command
            .args(["-sS", "--fail-with-body", "-X", method, "--cacert"])
            .arg(self.scratch.join("cert/apiserver.crt"));
        command.arg("-H").arg(format!("Authorization: Bearer {}", Account::Admin.token()));
        command.arg("-H").arg(format!("Content-Type: {kind}"));
        if let Some(body) = body {
            let file = self.scratch.write("body.json", body.to_string())?;
            command.arg("--data-binary").arg(format!("@{}", file.display()));
        }
        command.arg(format!("https://127.0.0.1:{}{path}", self.port));
        process::run(&mut command, REQUEST)
    }

    /// Makes an object; `path` is that of its kind. Gives it as the server has it.
    pub fn make(&self, path: &str, object: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("POST", path, Some(object))?)?)
    }

    /// Makes many objects over one connection.
    pub fn make_all(&self, path: &str, objects: &[Value], limit: Duration) -> Result<()> {
        let common = format!(
            "cacert = \"{}\"\nheader = \"Authorization: Bearer {}\"\nheader = \"Content-Type: application/json\"\n\
             fail-with-body\noutput = \"/dev/null\"\nurl = \"https://127.0.0.1:{}{path}\"\n",
            self.scratch.join("cert/apiserver.crt").display(),
            Account::Admin.token(),
            self.port
        );
        let one = |object: &Value| format!("{common}data-binary = {}\n", json!(object.to_string()));
        let all: Vec<String> = objects.iter().map(one).collect();
        let file = self.scratch.write("many.curl", all.join("next\n"))?;
        let mut command = Command::new(place::program("curl")?);
        process::run(command.args(["-sS", "--fail-early", "--config"]).arg(file), limit).map(drop)
    }

    /// Changes an object by a merge patch.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("PATCH", path, Some(patch))?)?)
    }

    /// Takes an object away at once.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.ask("DELETE", path, Some(&json!({ "gracePeriodSeconds": 0, "propagationPolicy": "Background" }))).map(drop)
    }

    /// An object, or a list of them.
    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("GET", path, None)?)?)
    }

    /// `kubectl ARGUMENTS`, with all rights.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = node("kubectl")?;
        command.arg("--kubeconfig").arg(self.kubeconfig(Account::Admin)).args(arguments);
        process::run(&mut command, START)
    }

    /// Starts Kubernetes' own controllers for workloads and endpoints.
    pub fn controllers(&self) -> Result<Process> {
        let mut command = node("kube-controller-manager")?;
        let names = ["deployment", "replicaset", "statefulset", "job", "cronjob", "endpointslice", "serviceaccount"];
        command.arg(format!("--controllers={}", names.map(|name| format!("{name}-controller")).join(",")));
        command.arg("--kubeconfig").arg(self.kubeconfig(Account::Admin)).args(["--leader-elect=false"]);
        command.args(["--bind-address=127.0.0.1", &format!("--secure-port={}", place::free_port()?)]);
        command.arg("--cert-dir").arg(self.scratch.join("controllers"));
        Process::start(command, "controllers", &self.scratch)
    }

    /// Starts kwok, which does for every node what a kubelet would, without containers.
    pub fn kwok(&self) -> Result<Process> {
        let mut command = Command::new(place::cached("bin/kwok")?);
        command.args(["--manage-all-nodes=true", "--cidr=10.79.0.0/16", "--config"]).arg(place::cached("kwok.yaml")?);
        command.arg("--kubeconfig").arg(self.kubeconfig(Account::Admin));
        Process::start(command, "kwok", &self.scratch)
    }

    /// Makes a namespace.
    pub fn namespace(&self, name: &str) -> Result<()> {
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        self.make("/api/v1/namespaces", &object).map(drop)
    }

    /// Makes a pod with one container, as it is once a kubelet has started it; `meta` goes into its metadata, which must
    /// have a name, `spec` into its spec. Gives its uid.
    pub fn pod(
        &self,
        namespace: &str,
        meta: &Value,
        spec: &Value,
        ip: &str,
        container: (&str, &str),
    ) -> Result<String> {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": meta,
            "spec": { "containers": [{ "name": container.0, "image": "local/test:1" }] },
        });
        if let (Some(whole), Some(more)) = (object["spec"].as_object_mut(), spec.as_object()) {
            whole.extend(more.clone());
        }
        let all = format!("/api/v1/namespaces/{namespace}/pods");
        let made = self.make(&all, &object)?;
        let text = |key: &str| made["metadata"][key].as_str().map(str::to_owned).with_context(|| format!("no {key}"));
        self.run(namespace, &text("name")?, ip, container)?;
        text("uid")
    }

    /// Says of a pod what a kubelet would once it has started its container.
    pub fn run(&self, namespace: &str, pod: &str, ip: &str, container: (&str, &str)) -> Result<()> {
        let (name, id) = container;
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }],
            "containerStatuses": [{
                "name": name, "image": "local/test:1", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{id}"), "state": { "running": {} },
            }],
        } });
        self.patch(&format!("/api/v1/namespaces/{namespace}/pods/{pod}/status"), &status).map(drop)
    }

    /// `SIGKILL` to the API server; the store stays.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Stops it as it stands, or lets it go on: it accepts, and answers nothing.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.server.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }

    /// Starts the API server again, with what is in the store.
    pub fn again(&mut self) -> Result<()> {
        self.server = serve(&self.scratch, self.store, self.port)?;
        self.wait_ready()
    }
}

fn node(part: &str) -> Result<Command> {
    let mut command = Command::new(place::cached("bin/kubenode")?);
    command.arg(part);
    Ok(command)
}

fn serve(scratch: &Scratch, store: u16, port: u16) -> Result<Process> {
    let mut command = node("kube-apiserver")?;
    let file = |path: &Path| path.display().to_string();
    for (option, value) in [
        ("etcd-servers", format!("http://127.0.0.1:{store}")),
        ("cert-dir", file(&scratch.join("cert"))),
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", port.to_string()),
        ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", file(&scratch.join("sa.key"))),
        ("service-account-signing-key-file", file(&scratch.join("sa.key"))),
        ("token-auth-file", file(&scratch.join("tokens.csv"))),
        ("authorization-mode", "RBAC".to_owned()),
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ("endpoint-reconciler-type", "none".to_owned()),
        ("enable-priority-and-fairness", "false".to_owned()),
    ] {
        command.arg(format!("--{option}={value}"));
    }
    Process::start(command, "apiserver", scratch)
}
