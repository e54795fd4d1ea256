//! Chains as their user sees them: turned on and off, told by `weir doctor`, exported, and across nodes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::{self, Agent};
use weir_tests::call::{Call, Kind};
use weir_tests::cgroup::Cgroup;
use weir_tests::peers::chain::{Chain, Leaf, Middle, drive};
use weir_tests::place::{self, Scratch, program};
use weir_tests::process::{self, Process};
use weir_tests::wait;

/// `GET` of a URL by a program that ends.
fn get(url: &str) -> Result<()> {
    process::run(Command::new(program("curl")?).args(["-sf", "-o", "/dev/null", url]), Duration::from_secs(10))
        .map(drop)
}

/// The calls to these ports whose path ends so, once there are `count`.
fn calls(agent: &Agent, ports: &[u16], tail: &str, count: usize) -> Result<Vec<Call>> {
    wait::until(Duration::from_secs(20), &format!("{count} calls of {tail}"), || {
        let mut calls = agent.calls_now(ports)?;
        calls.retain(|call| call.attributes.path.as_deref().is_some_and(|path| path.contains(tail)));
        Ok(Some(calls).filter(|calls| calls.len() >= count))
    })
}

fn one(calls: &[Call], kind: Kind, port: u16) -> Result<&Call> {
    calls.iter().find(|call| call.kind == kind && call.server().port() == port).context("no such call")
}

/// What `weir doctor` says of the program that tells of reads.
fn standing(agent: &Agent) -> Result<String> {
    let report = agent.json(&["doctor"])?;
    let row = report["rows"].as_array().context("no rows")?.iter().find(|row| row["subject"] == "weir_rcv_space");
    let row = row.context("no such program")?;
    Ok(format!("{} {}", row["standing"].as_str().context("no standing")?, row["detail"].as_str().context("no detail")?))
}

#[test]
fn the_key_turns_it_on_and_off() -> Result<()> {
    let group = Cgroup::new("switch")?;
    group.inside(|| {
        let config = |on: bool| format!("traces: {{ chains: {on} }}\n");
        let cgroup = format!("kernel.cgroup={}", group.path().display());
        let agent = Agent::configured(Some(&config(false)), &["privacy.level=standard", &cgroup])?;
        let leaf = Leaf::start()?;
        let chain = Chain::start(Middle::PythonThreads, &leaf.url())?;
        let ports = [leaf.port(), chain.port()];
        // A thread a connection: the one of before knows nothing of what comes after.
        for (at, on) in [false, true, false, true].into_iter().enumerate() {
            agent.rewrite(&config(on))?;
            let said = agent.say(&["reload"])?;
            ensure!(said.code == 0, "{said:?}");
            let found = standing(&agent)?;
            ensure!(found == if on { "ok attached" } else { "ok turned off: traces.chains" }, "{found}");
            get(&format!("{}/in/{at}/1", chain.url()))?;
            let told =
                [calls(&agent, &ports, &format!("/in/{at}/"), 2)?, calls(&agent, &ports, &format!("/out/{at}/"), 2)?];
            let told = told.concat();
            let (incoming, outgoing) =
                (one(&told, Kind::Server, chain.port())?, one(&told, Kind::Client, leaf.port())?);
            let parent = outgoing.parent_span_id.as_ref();
            ensure!(parent == on.then_some(&incoming.span_id), "{at} {on}: {incoming:?} {outgoing:?}");
            ensure!((outgoing.trace_id == incoming.trace_id) == on, "{at} {on}: {incoming:?} {outgoing:?}");
        }
        let page = agent.page()?;
        let proven = page.sum("weir_chains_total", &[("proof", "thread")]);
        ensure!((proven - 2.0).abs() < 0.5, "{proven}");
        agent.finish()
    })
}

#[test]
fn another_node_is_linked() -> Result<()> {
    let (near, far) = (Cgroup::new("near")?, Cgroup::new("far")?);
    let leaf = far.inside(Leaf::start)?;
    // The other node's agent, which no test's own waits for.
    let scratch = Scratch::new("far")?;
    let socket = scratch.join("control.sock");
    let watch = |group: &Cgroup| format!("kernel.cgroup={}", group.path().display());
    near.inside(|| {
        let agent = Agent::start(&["privacy.level=standard", &watch(&near)])?;
        let mut command = Command::new(place::weir()?);
        command.args(["run", "--output", "none"]).env("NO_COLOR", "1");
        let settings = [
            watch(&far),
            format!("control.socket={}", socket.display()),
            format!("prometheus.listen=127.0.0.1:{}", place::free_port()?),
            "privacy.level=standard".to_owned(),
        ];
        for setting in &settings {
            command.args(["--set", setting]);
        }
        let mut other = Process::start(command, "weir", &scratch)?;
        let ask = |arguments: &[&str]| process::say(agent::command(&socket)?.args(arguments), Duration::from_secs(10));
        wait::until(Duration::from_secs(10), "the other agent", || Ok((ask(&["stats"])?.code == 0).then_some(())))
            .with_context(|| other.output().unwrap_or_default())?;
        let chain = Chain::start(Middle::PythonThreads, &leaf.url())?;
        get(&format!("{}/in/7/1", chain.url()))?;
        let told = calls(&agent, &[leaf.port()], "/out/7/", 1)?;
        let incoming = calls(&agent, &[chain.port()], "/in/7/", 2)?;
        let (incoming, outgoing) =
            (one(&incoming, Kind::Server, chain.port())?, one(&told, Kind::Client, leaf.port())?);
        ensure!(outgoing.parent_span_id.as_ref() == Some(&incoming.span_id), "{incoming:?} {outgoing:?}");
        ensure!(outgoing.trace_id == incoming.trace_id, "{incoming:?} {outgoing:?}");
        let answered = wait::until(Duration::from_secs(20), "the other node's call", || {
            let said = ask(&["calls", "--json"])?.out;
            let calls = said.lines().map(serde_json::from_str::<Call>).collect::<Result<Vec<_>, _>>()?;
            Ok(calls.into_iter().find(|call| call.attributes.path.as_deref() == Some("/out/7/0")))
        })?;
        // Both nodes have computed the same ids, each alone.
        let [link] = &outgoing.links[..] else { anyhow::bail!("no link: {outgoing:?}") };
        ensure!((&link.trace_id, &link.span_id) == (&answered.trace_id, &answered.span_id), "{link:?} {answered:?}");
        ensure!(answered.trace_id != outgoing.trace_id && answered.parent_span_id.is_none(), "{answered:?}");
        ensure!(other.terminate(Duration::from_secs(5))?.success(), "{}", other.output()?);
        agent.finish()
    })
}

#[test]
fn spans_of_the_applications_own_stay_parents() -> Result<()> {
    let group = Cgroup::new("sdk")?;
    group.inside(|| {
        let agent = Agent::start(&["privacy.level=standard", &format!("kernel.cgroup={}", group.path().display())])?;
        let leaf = Leaf::start()?;
        let chain = Chain::start(Middle::Instrumented, &leaf.url())?;
        for (round, headers) in ["none", "traceparent"].into_iter().enumerate() {
            drive(&chain.url(), 50, 8, 2, headers)?;
            let told = calls(&agent, &[leaf.port()], "/out/", 2 * 100 * (round + 1))?;
            let log = chain.logged()?;
            for call in told.iter().filter(|call| call.kind == Kind::Client) {
                let path = call.attributes.path.as_deref().unwrap_or_default();
                let [who, k] = path.split('/').skip(2).collect::<Vec<_>>()[..] else { anyhow::bail!("{call:?}") };
                let parent = call.parent_span_id.as_deref().context("no parent")?;
                let line = format!("span {who} {k} {} {parent}", call.trace_id);
                ensure!(log.contains(&line), "the application has not made {line}");
            }
        }
        agent.finish()
    })
}
