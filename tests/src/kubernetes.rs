//! A real node of Kubernetes: API server, controllers, scheduler, kubelet, kube-proxy, containerd and a network of pods,
//! in a network namespace that has no way out. All of it is one program but for containerd and runc.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

use crate::agent::{Agent, Node as Place};
use crate::netns::NetNs;
use crate::place::{self, Scratch};
use crate::process;
use crate::wait;

/// Until the node must be ready.
const START: Duration = Duration::from_secs(150);
/// Until a pod must run.
const ROLLOUT: Duration = Duration::from_secs(90);
/// Longest that a command may take.
const COMMAND: Duration = Duration::from_secs(100);

/// How kube-proxy translates addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Rules of iptables.
    Iptables,
    /// A table of nftables.
    Nftables,
}

/// A running node, called `node1`; everything of it ends when it is dropped. While it is there no other agent is: its
/// kubelet ends what it does not know in the control groups of pods.
pub struct KubeNode {
    /// Where the node's own network is.
    pub netns: NetNs,
    work: PathBuf,
    _scratch: Scratch,
    _alone: Place,
}

impl KubeNode {
    /// Starts it with an image `local/test:1` that holds nginx, curl and a shell, waits until it is ready.
    pub fn start(proxy: Proxy) -> Result<Self> {
        let alone = Agent::none()?;
        let scratch = Scratch::new("images")?;
        let image = |name: &str, programs: &[&str], command: &[&str]| -> Result<PathBuf> {
            let out = scratch.join(&format!("{name}.tar"));
            let mut python = Command::new(place::program("python3")?);
            python.arg(place::sources().join("kubernetes/image.py")).arg(&out);
            python.arg(format!("docker.io/local/{name}:1")).args(programs).arg("--").args(command);
            process::run(&mut python, COMMAND)?;
            Ok(out)
        };
        let (nginx, curl) = (place::program("nginx")?, place::program("curl")?);
        let text = |path: &Path| path.display().to_string();
        let rest = ["/bin/sleep", "2147483647"];
        let pause = image("pause", &["/bin/busybox"], &rest)?;
        let test = image("test", &[&text(&nginx), &text(&curl), "/bin/busybox"], &rest)?;
        // Short: the paths of unix sockets are.
        let work = PathBuf::from(format!("/run/weir-node-{}", std::process::id()));
        let node = Self { netns: NetNs::new("kube")?, work, _scratch: scratch, _alone: alone };
        // What outlives the script is to be ours: not every machine's first process takes leave of it.
        set_child_subreaper(Some(getpid()))?;
        let mut up = Command::new(place::program("bash")?);
        up.arg(place::sources().join("kubernetes/up.sh"));
        up.env("KUBENODE", place::cached("bin/kubenode")?).env("W", &node.work).env("NS", node.netns.name());
        up.env("PROXY", if proxy == Proxy::Iptables { "iptables" } else { "nftables" });
        up.env("IMAGES", format!("{} {}", pause.display(), test.display()));
        process::run(&mut up, START).with_context(|| node.logs())?;
        Ok(node)
    }

    /// The ends of what its parts wrote.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut out = String::new();
        for entry in std::fs::read_dir(self.work.join("log")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(8).collect();
            out += &[
                &[format!("-- {}", entry.file_name().display()).as_str()],
                &*lines.into_iter().rev().collect::<Vec<_>>(),
            ]
            .concat()
            .join("\n");
            out.push('\n');
        }
        out
    }

    fn holder(&self) -> Result<u32> {
        let pids = std::fs::read_to_string(self.work.join("pids")).context("reading the node's processes")?;
        Ok(pids.lines().next().context("no process")?.parse()?)
    }

    /// The kubeconfig of an account: `admin` or `weir`.
    #[must_use]
    pub fn kubeconfig(&self, account: &str) -> PathBuf {
        self.work.join(format!("etc/{account}.conf"))
    }

    /// A command on the node.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(place::program("nsenter")?);
        command.args(["-t", &self.holder()?.to_string(), "-m", "-n"]).arg(program);
        Ok(command)
    }

    /// `kubectl ARGUMENTS`, with all rights.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(&place::cached("bin/kubenode")?)?;
        command.args(["kubectl", "--kubeconfig"]).arg(self.kubeconfig("admin")).args(arguments);
        process::run(&mut command, COMMAND)
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.work.join("manifest.yaml");
        std::fs::write(&file, manifest)?;
        self.kubectl(&["apply", "-f", &file.display().to_string()]).map(drop)
    }

    /// An object, or a list of them.
    pub fn get(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], arguments].concat())?)?)
    }

    /// Waits until a Deployment is rolled out.
    pub fn rolled_out(&self, namespace: &str, deployment: &str) -> Result<()> {
        let limit = format!("--timeout={}s", ROLLOUT.as_secs());
        let name = format!("deployment/{deployment}");
        let done = self.kubectl(&["-n", namespace, "rollout", "status", &name, &limit]).map(drop);
        done.with_context(|| {
            format!("{}\n{}", self.kubectl(&["-n", namespace, "describe", "pods"]).unwrap_or_default(), self.logs())
        })
    }

    /// A shell command in a pod, or in a pod of `deployment/NAME`.
    pub fn exec(&self, namespace: &str, pod: &str, shell: &str) -> Result<String> {
        self.kubectl(&["-n", namespace, "exec", pod, "--", "/bin/sh", "-c", shell])
    }
}

impl Drop for KubeNode {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("ending the node: {error:#}");
        }
    }
}

impl KubeNode {
    /// The agent on the node, with the rights that `deploy` gives it.
    pub fn agent(&self, settings: &[&str]) -> Result<Agent> {
        self.kubectl(&["apply", "-f", &place::sources().join("../deploy/kubernetes/rbac.yaml").display().to_string()])?;
        let file = format!("kubernetes.kubeconfig={}", self.kubeconfig("weir").display());
        Agent::inside(&self.netns, &[&[file.as_str(), "kubernetes.node=node1"], settings].concat())
    }

    /// The control group, of version 2, that its pods are in.
    pub fn pods(&self) -> Result<PathBuf> {
        let all = ["/sys/fs/cgroup/unified/kubepods", "/sys/fs/cgroup/kubepods"].map(PathBuf::from);
        wait::until(START, "the kubelet's control group", || {
            Ok(all.iter().find(|path| path.join("cgroup.controllers").exists()).cloned())
        })
    }

    /// The control groups of its pods.
    fn groups(&self) -> Vec<PathBuf> {
        let Ok(pods) = self.get(&["pods", "--all-namespaces"]) else { return Vec::new() };
        let uids = pods["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["uid"].as_str());
        let names: Vec<String> = uids.map(|uid| format!("pod{uid}")).collect();
        let mut find = Command::new("find");
        let found = process::run(
            find.args(["/sys/fs/cgroup", "-type", "d", "-name", "pod*", "-path", "*/kubepods/*"]),
            COMMAND,
        );
        let found = found.unwrap_or_default();
        let ours = found.lines().filter(|path| names.iter().any(|name| path.ends_with(name)));
        ours.map(PathBuf::from).collect()
    }

    fn end(&self) -> Result<()> {
        let groups = self.groups();
        let holder = self.holder()?;
        let space = std::fs::read_link(format!("/proc/{holder}/ns/mnt"))?;
        let pids = std::fs::read_to_string(self.work.join("pids"))?;
        let kill = |pid: i32| {
            if let Some(pid) = Pid::from_raw(pid) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        };
        // The holder last: what lives in its mount namespace is told by it. nsenter execs what was started, so that the
        // ids are those of the parts.
        pids.lines().skip(1).filter_map(|pid| pid.parse().ok()).for_each(kill);
        for group in &groups {
            // One of version 1 has none; its processes are those of the other.
            let _ = std::fs::write(group.join("cgroup.kill"), "1");
        }
        let ours = |pid: &i32| {
            *pid != holder.cast_signed()
                && std::fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|other| other == space)
        };
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            let all = std::fs::read_dir("/proc")?.flatten();
            let left: Vec<i32> = all.filter_map(|it| it.file_name().to_str()?.parse().ok()).filter(ours).collect();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(50));
        }
        kill(holder.cast_signed());
        let _ = wait::until(Duration::from_secs(5), "the holder to end", || {
            Ok((!Path::new(&format!("/proc/{holder}/ns/mnt")).exists()).then_some(()))
        });
        // What was started became ours when the script ended.
        let _ = wait::until(Duration::from_secs(5), "what was started to be taken leave of", || {
            let ended = process::children(std::process::id())?.into_iter().filter(|pid| is_over(*pid));
            let ended: Vec<Pid> = ended.filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect();
            for pid in &ended {
                let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
            }
            Ok(ended.is_empty().then_some(()))
        });
        let _ = wait::until(Duration::from_secs(5), "the pods' control groups to go", || {
            // The kubelet made them, and nobody else has any while it is there.
            for top in tops(&groups) {
                let mut remove = Command::new("find");
                remove.arg(top).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]).stderr(Stdio::null());
                let _ = remove.status();
            }
            Ok(groups.iter().all(|group| !group.exists()).then_some(()))
        });
        std::fs::remove_dir_all(&self.work).with_context(|| format!("removing {}", self.work.display()))
    }
}

/// It has ended, and nobody has asked how.
fn is_over(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// The folders `kubepods` that control groups are in.
fn tops(groups: &[PathBuf]) -> BTreeSet<&Path> {
    let top = |path: &'_ &Path| path.file_name().is_some_and(|name| name == "kubepods");
    groups.iter().filter_map(|group| group.ancestors().find(top)).collect()
}
