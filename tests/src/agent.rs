//! The agent under test, started as its user would start it and asked through its own doors.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::call::Call;
use crate::ledger::{Ledger, Page};
use crate::netns::{self, NetNs};
use crate::place::{self, Scratch};
use crate::process::{self, Process, Said};
use crate::wait;

/// Its configuration file, where it has one.
const FILE: &str = "weir.yaml";
/// Until the agent must be ready, or have ended.
const START: Duration = Duration::from_secs(10);
/// Until what passed on the wire must be shown.
const SHOW: Duration = Duration::from_secs(15);
/// How long nothing may be added before a count is called final, once all that was seen is delivered: ten times the
/// longest sleep of who reads it.
const QUIET: Duration = Duration::from_millis(100);

/// A node has one agent: whoever holds this may start it.
#[derive(Debug)]
pub struct Node(File);

impl Node {
    fn take() -> Result<Self> {
        let path = std::env::temp_dir().join("weir-tests.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(Self(file))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The lock goes with the file in any case.
        drop(self.0.unlock());
    }
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    settings: Vec<String>,
    wrapper: Vec<String>,
    metrics: SocketAddr,
    scratch: Scratch,
    /// Name of the network namespace that it runs in, where that is not the tests'.
    network: Option<String>,
    ready: Duration,
    _node: Option<Node>,
}

impl Agent {
    /// Holds the node's place of an agent without starting one: for tests that start it in their own way.
    pub fn none() -> Result<Node> {
        Node::take()
    }

    /// Starts it with `--set` for each of `settings` (`privacy.level=standard`), waits until it is ready.
    pub fn start(settings: &[&str]) -> Result<Self> {
        Self::configured(None, settings)
    }

    /// Starts it by a program that runs it (`unshare --fork`); killed with that one, it can't be ended in order.
    pub fn under(wrapper: &[&str], settings: &[&str]) -> Result<Self> {
        Self::launched(wrapper, None, settings, Some(Node::take()?))
    }

    /// Starts it with a configuration file of this content, and settings beside it.
    pub fn configured(file: Option<&str>, settings: &[&str]) -> Result<Self> {
        Self::launched(&[], file, settings, Some(Node::take()?))
    }

    /// The same on a host of another name, beside other agents: it must have a cgroup of its own (`kernel.cgroup`), and
    /// whoever starts several holds the node's place ([`Agent::none`]).
    pub fn on_host(host: &str, file: &str, settings: &[&str]) -> Result<Self> {
        // A name is a namespace's; the shell takes it and becomes the agent.
        let wrapper = ["unshare", "--uts", "/bin/sh", "-c", "hostname \"$0\" && exec \"$@\"", host];
        Self::launched(&wrapper, Some(file), settings, None)
    }

    /// Starts it in a network namespace. Who calls holds the node's place already.
    pub fn inside(netns: &NetNs, settings: &[&str]) -> Result<Self> {
        // Unlike `ip netns exec` it leaves the mounts of control groups where they are.
        let namespace = format!("--net=/run/netns/{}", netns.name());
        Self::launched_in(Some(netns.name()), &["nsenter", &namespace], None, settings, None)
    }

    fn launched(wrapper: &[&str], file: Option<&str>, settings: &[&str], node: Option<Node>) -> Result<Self> {
        Self::launched_in(None, wrapper, file, settings, node)
    }

    fn launched_in(
        network: Option<&str>,
        wrapper: &[&str],
        file: Option<&str>,
        settings: &[&str],
        node: Option<Node>,
    ) -> Result<Self> {
        let scratch = Scratch::new("agent")?;
        if let Some(content) = file {
            scratch.write(FILE, content)?;
        }
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, place::free_port()?));
        let mut all = vec![
            format!("control.socket={}", scratch.join("control.sock").display()),
            format!("prometheus.listen={metrics}"),
            "recent.memory=1GiB".to_owned(),
            format!("enforce.state={}", scratch.join("state").display()),
        ];
        if !file.is_some_and(|file| file.contains("audit")) {
            // Agents that run at once would break one log's chain.
            all.push(format!("enforce.audit={}", scratch.join("audit.log").display()));
        }
        all.extend(settings.iter().map(|&setting| setting.to_owned()));
        let wrapper: Vec<String> = wrapper.iter().map(|&word| word.to_owned()).collect();
        let process = launch(&wrapper, &all, &scratch)?;
        let network = network.map(str::to_owned);
        let ready = Duration::ZERO;
        let mut agent = Self { process, settings: all, wrapper, metrics, scratch, network, ready, _node: node };
        agent.wait_ready()?;
        Ok(agent)
    }

    /// From its start until it said that it captures: before it knows who holds what was there already.
    #[must_use]
    pub fn ready(&self) -> Duration {
        self.ready
    }

    fn wait_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        wait::until(START, "a ready agent", || {
            if let Some(status) = self.process.ended()? {
                bail!("the agent ended with {status}:\n{}", self.process.output()?);
            }
            Ok(self.get("/readyz").ok().filter(|(status, _)| *status == 200).map(drop))
        })
        .with_context(|| self.process.output().unwrap_or_default())?;
        self.ready = begin.elapsed();
        wait::until(START, "what is older than the agent to be known", || {
            let (status, report) = ask(&self.socket(), "GET", "/v1/doctor", "")?;
            ensure!(status == 200, "/v1/doctor answered {status}");
            let report: Value = serde_json::from_str(&report)?;
            let rows = report["rows"].as_array().context("no rows")?;
            let row = rows.iter().find(|row| row["subject"] == "older sockets").context("no row of older sockets")?;
            Ok((row["standing"] != "unknown").then_some(()))
        })
    }

    /// Writes its configuration file anew; it is read at the next reload.
    pub fn rewrite(&self, content: &str) -> Result<()> {
        self.scratch.write(FILE, content).map(drop)
    }

    /// Starts it again with the same settings after [`Agent::kill`] or [`Agent::stop`].
    pub fn again(&mut self) -> Result<()> {
        ensure!(self.process.ended()?.is_some(), "the agent still runs");
        self.process = launch(&self.wrapper, &self.settings, &self.scratch)?;
        self.wait_ready()
    }

    /// `SIGKILL`.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// `SIGTERM`; it must end with 0 within 5 s and must have logged no error.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.terminate(Duration::from_secs(5))?;
        ensure!(status.success(), "the agent ended with {status}:\n{}", self.process.output()?);
        self.no_errors()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged.
    pub fn log(&self) -> Result<String> {
        self.process.output()
    }

    /// Its own folder: control socket, what a test puts there.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.scratch.join("control.sock")
    }

    /// Address of its Prometheus page.
    #[must_use]
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Its log has no line at error level.
    pub fn no_errors(&self) -> Result<()> {
        let log = self.log()?;
        // The level is the second word of a line; a panic's message has none.
        let bad = |line: &&str| line.split_whitespace().nth(1) == Some("ERROR") || line.contains("panicked");
        let errors: Vec<&str> = log.lines().filter(bad).collect();
        ensure!(errors.is_empty(), "the agent logged errors:\n{}", errors.join("\n"));
        Ok(())
    }

    /// `weir ARGS` against this agent.
    pub fn say(&self, arguments: &[&str]) -> Result<Said> {
        process::say(command(&self.socket())?.args(arguments), SHOW)
    }

    /// `weir ARGS --json` of one document.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.say(&[arguments, &["--json"]].concat())?;
        ensure!(said.code == 0, "weir {arguments:?} ended with {}: {}", said.code, said.err);
        serde_json::from_str(&said.out).with_context(|| format!("weir {arguments:?} said {}", said.out))
    }

    /// `weir ARGS --json` of a document a line.
    pub fn lines(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let said = self.say(&[arguments, &["--json"]].concat())?;
        ensure!(said.code == 0, "weir {arguments:?} ended with {}: {}", said.code, said.err);
        said.out.lines().map(|line| serde_json::from_str(line).with_context(|| format!("the line {line}"))).collect()
    }

    /// All calls kept now whose server's end has one of `ports`, oldest first per connection.
    pub fn calls_now(&self, ports: &[u16]) -> Result<Vec<Call>> {
        let mut child = command(&self.socket())?
            .args(["calls", "--last", "1000000", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::with_capacity(1 << 18, child.stdout.take().context("no output")?);
        let mut calls = Vec::new();
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let call: Call = serde_json::from_slice(&line)
                .with_context(|| format!("the line {}", String::from_utf8_lossy(&line)))?;
            if ports.contains(&call.server().port()) {
                calls.push(call);
            }
            line.clear();
        }
        let status = child.wait()?;
        ensure!(status.success(), "weir calls ended with {status}");
        calls.sort_by(|a, b| (a.connection.cookie, &a.start).cmp(&(b.connection.cookie, &b.start)));
        Ok(calls)
    }

    /// The calls to `ports`, once there are `expected` of them and no more come; after a limit whatever is there, for
    /// the caller's comparison to name what is missing.
    pub fn calls(&self, ports: &[u16], expected: usize) -> Result<Vec<Call>> {
        let reached = wait::until(SHOW, "all calls", || {
            // Counting first is cheap: the page says how many calls there are at all.
            let total = self.page()?.sum("weir_calls_total", &[]);
            if total < expected as f64 {
                return Ok(None);
            }
            Ok(Some(self.calls_now(ports)?).filter(|calls| calls.len() >= expected))
        });
        drop(reached);
        // A look at the page has what was seen before it delivered.
        self.page()?;
        std::thread::sleep(QUIET);
        self.calls_now(ports)
    }

    /// Live connections with this port at either end, once the ones that are closed have gone.
    pub fn connections(&self, port: u16) -> Result<Vec<Value>> {
        let tail = format!(":{port}");
        let of_port = |line: &Value| {
            let end = |name: &str| line.get(name).and_then(Value::as_str).is_some_and(|end| end.ends_with(&tail));
            end("local") || end("remote")
        };
        let mut last = Vec::new();
        let gone = wait::until(Duration::from_secs(3), "closed connections to go", || {
            last = self.lines(&["connections"])?.into_iter().filter(of_port).collect();
            Ok(last.is_empty().then_some(()))
        });
        drop(gone);
        Ok(last)
    }

    /// `GET` on the Prometheus listener: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let connect = || Ok(TcpStream::connect_timeout(&self.metrics, Duration::from_secs(1))?);
        let mut stream = match &self.network {
            Some(name) => netns::inside(name, connect)?,
            None => connect()?,
        };
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: weir\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        Ok((status, body.to_owned()))
    }

    /// The Prometheus page.
    pub fn page(&self) -> Result<Page> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics answered {status}");
        Page::parse(&body)
    }

    /// The ledger, once it is balanced (what is between two stages settles within moments).
    pub fn ledger(&self) -> Result<Ledger> {
        let mut last = None;
        let balanced = wait::until(Duration::from_secs(3), "a balanced ledger", || {
            let ledger = Ledger::read(&self.page()?)?;
            last = Some(ledger.clone());
            Ok(Some(ledger).filter(Ledger::balanced))
        });
        balanced.with_context(|| format!("{last:?}"))
    }

    /// What a case ends with in which records were lost on purpose: ledger balanced, no error logged, a clean stop.
    pub fn stop_lossy(mut self) -> Result<()> {
        self.ledger()?;
        self.stop()
    }

    /// What every case ends with: ledger balanced, nothing lost, no error logged, a clean stop.
    pub fn finish(mut self) -> Result<()> {
        let ledger = self.ledger()?;
        ensure!(ledger.lost() == 0, "lost: {:?}", ledger.lost);
        self.stop()
    }

    /// Resident memory now, bytes, without the ring: that is the kernel's memory, and mapped twice.
    pub fn resident(&self) -> Result<u64> {
        place::resident(self.pid())
    }

    /// Memory of its maps in the kernel now, bytes, without what sockets keep in their own storage.
    pub fn map_memory(&self) -> Result<u64> {
        place::map_memory(self.pid())
    }
}

/// The command `weir` that speaks to the agent at `socket`.
pub fn command(socket: &Path) -> Result<Command> {
    let mut command = Command::new(place::weir()?);
    command.env("WEIR_CONTROL__SOCKET", socket).env("NO_COLOR", "1");
    Ok(command)
}

/// A request to the control API: status and body.
pub fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

fn launch(wrapper: &[String], settings: &[String], scratch: &Scratch) -> Result<Process> {
    let mut command = match wrapper {
        [] => Command::new(place::weir()?),
        [program, arguments @ ..] => {
            let mut command = Command::new(place::program(program)?);
            command.args(arguments).arg(place::weir()?);
            command
        }
    };
    command.args(["run", "--output", "none"]).env("NO_COLOR", "1").current_dir(scratch.path());
    let file = scratch.join(FILE);
    if file.exists() {
        command.arg("--config").arg(file);
    }
    for setting in settings {
        command.args(["--set", setting]);
    }
    Process::start(command, "weir", scratch)
}
