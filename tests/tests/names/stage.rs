//! A client's host that the agent sees, and a cable to what it does not see: a DNS server and servers of HTTP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::agent::Agent;
use weir_tests::cgroup::Cgroup;
use weir_tests::dns::Dns;
use weir_tests::netns::NetNs;
use weir_tests::place::{self, Scratch};
use weir_tests::process;
use weir_tests::wait;
use weir_tests::wire::Server;

/// Where the DNS server answers.
pub(crate) const RESOLVER: &str = "10.91.0.2";

/// Calls and failed connections by client, server and port.
pub(crate) type Edges = BTreeMap<(String, String, u16), (u64, u64)>;

/// The stage. What a client runs is inside `group`, which alone the agent sees.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) group: Cgroup,
    pub(crate) client: NetNs,
    pub(crate) outside: NetNs,
    pub(crate) port: u16,
    server: Server,
    _dns: Option<Dns>,
    scratch: Scratch,
}

impl Stage {
    /// With a DNS server of these options; none: the test answers itself.
    pub(crate) fn new(options: Option<&[&str]>, settings: &[&str]) -> Result<Self> {
        let (client, outside) = (NetNs::new("client")?, NetNs::new("outside")?);
        let addresses: Vec<String> = (2..40).map(|last| format!("10.91.0.{last}/24")).collect();
        let mut far: Vec<&str> = addresses.iter().map(String::as_str).collect();
        far.push("fd91::2/64");
        NetNs::cable((&client, "a", &["10.91.0.1/24", "fd91::1/64"]), (&outside, "b", &far))?;
        client.resolver(RESOLVER)?;
        let dns = options.map(|options| Dns::start(&outside, RESOLVER, options, |command| command)).transpose()?;
        let listener = outside.inside(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, place::free_port()?))?))?;
        let port = listener.local_addr()?.port();
        let server = Server::on(listener, |mut wire| {
            while wire.request()?.is_some() {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
            Ok(())
        })?;
        let group = Cgroup::new("names")?;
        let cgroup = format!("kernel.cgroup={}", group.path().display());
        let agent = Agent::start(&[&[&*cgroup], settings].concat())?;
        let scratch = Scratch::new("names")?;
        Ok(Self { agent, group, client, outside, port, server, _dns: dns, scratch })
    }

    /// A command on the client's host, seen by the agent.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = self.client.command(program)?;
        command.args(arguments);
        Ok(self.group.command(&command))
    }

    /// Runs it to its end, which must be success.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        process::run(&mut self.command(program, arguments)?, Duration::from_mins(1))
    }

    /// A script of this name, so that its process is called so.
    pub(crate) fn script(&self, name: &str, text: &str) -> Result<String> {
        Ok(self.scratch.write(name, text)?.display().to_string())
    }

    /// A folder for what is started.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// `http://HOST:PORT/` of the server outside.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.port)
    }

    /// The graph has exactly these edges, and goes on having them.
    pub(crate) fn is(&self, expected: &[(&str, &str, u16, (u64, u64))]) -> Result<()> {
        let expected: Edges = expected
            .iter()
            .map(|(client, server, port, counts)| (((*client).to_owned(), (*server).to_owned(), *port), *counts))
            .collect();
        let mut found = Edges::new();
        wait::until(Duration::from_secs(15), "the edges", || {
            found = edges(&self.agent)?;
            Ok((found == expected).then_some(()))
        })
        .with_context(|| format!("found    {found:#?}\nexpected {expected:#?}"))?;
        std::thread::sleep(Duration::from_millis(500));
        ensure!(edges(&self.agent)? == expected, "{:#?}", edges(&self.agent)?);
        Ok(())
    }

    /// How often an event was counted.
    pub(crate) fn counted(&self, reason: &str) -> Result<u64> {
        let stats = self.agent.json(&["stats"])?;
        let rows = stats["events"].as_array().context("no events")?;
        let row = rows.iter().find(|row| row["reason"] == reason).with_context(|| format!("no {reason}"))?;
        row["count"].as_u64().context("no count")
    }

    /// Ends it: nothing lost, no error.
    pub(crate) fn finish(self) -> Result<()> {
        self.agent.finish()?;
        self.server.stop()
    }
}

/// Every edge but those to DNS servers.
fn edges(agent: &Agent) -> Result<Edges> {
    let graph = agent.json(&["graph"])?;
    let rows = graph["edges"].as_array().context("no edges")?;
    rows.iter()
        .map(|row| {
            let name = |end: &str| row[end]["service.name"].as_str().map(str::to_owned).context("no name");
            let number = |key: &str| row[key].as_u64().with_context(|| format!("no {key}"));
            let port = u16::try_from(number("server_port")?)?;
            Ok(((name("client")?, name("server")?, port), (number("calls")?, number("failed_connections")?)))
        })
        .collect()
}

/// The peer that each call of a client names, in no order.
pub(crate) fn peers(stage: &Stage, client: &str, expected: usize) -> Result<Vec<Option<String>>> {
    let calls = stage.agent.calls(&[stage.port], expected)?;
    let own = calls.iter().filter(|call| call.service.name.as_deref() == Some(client));
    Ok(own.map(|call| call.peer.as_ref().and_then(|peer| peer.name.clone())).collect())
}

/// Live connections to an address, as JSON.
pub(crate) fn connections(stage: &Stage, remote: IpAddr) -> Result<Vec<Value>> {
    let remote = std::net::SocketAddr::new(remote, stage.port).to_string();
    Ok(stage.agent.lines(&["connections"])?.into_iter().filter(|row| row["remote"] == remote.as_str()).collect())
}
