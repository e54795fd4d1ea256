//! Names that end, and names that share an address.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use weir_tests::process::Process;
use weir_tests::wait;

use crate::stage::{Stage, connections};

/// Service, peer, and why there is none.
type Told = (String, Option<String>, Option<String>);

/// Asks for each of the names behind the first three arguments, and keeps a connection that speaks no HTTP.
const HOLD: &str = "
import socket, sys
address, port, *names = sys.argv[1:]
for name in names:
    assert socket.gethostbyname(name) == address
held = socket.create_connection((address, int(port)))
print('held', flush=True)
sys.stdin.read() or __import__('time').sleep(60)
";

#[test]
fn of_two_names_that_live_only_a_proven_one_is_told() -> Result<()> {
    let stage = Stage::new(Some(&["--host-record=a.test,10.91.0.21,600", "--host-record=b.test,10.91.0.21,600"]), &[])?;
    let port = stage.port.to_string();
    let address = "10.91.0.21".parse()?;
    let mut held = Vec::new();
    for (name, asks) in
        [("one.py", &["a.test"][..]), ("other.py", &["b.test"]), ("both.py", &["a.test", "b.test"]), ("none.py", &[])]
    {
        let script = stage.script(name, HOLD)?;
        let arguments = [&[&script[..], "10.91.0.21", &port], asks].concat();
        let process = Process::start(stage.command("python3", &arguments)?, name, stage.scratch())?;
        wait::until(Duration::from_secs(20), "a connection", || Ok(process.output()?.contains("held").then_some(())))?;
        held.push(process);
    }
    let told = || -> Result<Vec<Told>> {
        let mut rows: Vec<_> = connections(&stage, address)?
            .into_iter()
            .map(|row| {
                let text = |pointer: &str| row.pointer(pointer).and_then(|it| it.as_str()).map(str::to_owned);
                (
                    text("/service/service.name").unwrap_or_default(),
                    text("/peer/service.name"),
                    text("/peer_unknown_reason"),
                )
            })
            .collect();
        rows.sort();
        Ok(rows)
    };
    let row = |name: &str, peer: Option<&str>| {
        let reason = peer.is_none().then(|| "several_names".to_owned());
        (name.to_owned(), peer.map(str::to_owned), reason)
    };
    let expected = [
        row("both", None),
        row("none", None),
        row("one", Some("external:a.test")),
        row("other", Some("external:b.test")),
    ];
    wait::until(Duration::from_secs(10), "four connections", || Ok((told()? == expected).then_some(())))?;
    ensure!(stage.counted("ambiguous_dns_name")? == 2);
    for process in &mut held {
        process.kill()?;
    }
    stage.is(&[
        ("one", "external:a.test", stage.port, (0, 0)),
        ("other", "external:b.test", stage.port, (0, 0)),
        ("both", "external:10.91.0.21", stage.port, (0, 0)),
        ("none", "external:10.91.0.21", stage.port, (0, 0)),
    ])?;
    stage.finish()
}

#[test]
fn a_name_ends_with_its_ttl() -> Result<()> {
    // A second of the answer's own, and five that a name lives on.
    const LIFE: Duration = Duration::from_secs(1 + 5);
    let stage =
        Stage::new(Some(&["--host-record=short.test,10.91.0.23,1", "--host-record=long.test,10.91.0.24,900"]), &[])?;
    let before = Instant::now();
    stage.run("curl", &["-sf", &stage.url("short.test")])?;
    let after = Instant::now();
    stage.run("curl", &["-sf", &stage.url("long.test")])?;
    // Who did not ask shares what its network namespace knows, while it lives.
    let mut asked = Vec::new();
    while asked.last().is_none_or(|(begun, _)| *begun <= after + LIFE) {
        let begun = Instant::now();
        stage.run("curl", &["-sf", "-H", "Host:", &stage.url("10.91.0.23")])?;
        asked.push((begun, Instant::now()));
    }
    stage.run("curl", &["-sf", "-H", "Host:", &stage.url("10.91.0.24")])?;
    let mut calls = stage.agent.calls(&[stage.port], asked.len() + 3)?;
    calls.sort_by(|one, other| one.start.cmp(&other.start));
    let names: Vec<_> =
        calls.iter().map(|call| call.peer.as_ref().and_then(|peer| peer.name.as_deref()).unwrap_or_default()).collect();
    let (short, long) = ("external:short.test", "external:long.test");
    let [first, second, rest @ .., last] = &names[..] else { bail!("{names:?}") };
    ensure!([*first, *second, *last] == [short, long, long], "{names:?}");
    let end = rest.iter().position(|name| name.is_empty()).with_context(|| format!("no end: {names:?}"))?;
    ensure!(rest[..end].iter().all(|name| *name == short), "{names:?}");
    ensure!(rest[end..].iter().all(|name| name.is_empty()), "{names:?}");
    // Each that had ended while the name lived for certain has it, none that began when it was over.
    let lived = asked.iter().filter(|(_, ended)| *ended < before + LIFE).count();
    let over = asked.iter().filter(|(begun, _)| *begun > after + LIFE).count();
    ensure!(lived <= end && over <= rest.len() - end, "{lived} lived, {over} over: {names:?}");
    ensure!(lived > 0, "no call while the name lived");
    stage.finish()
}
