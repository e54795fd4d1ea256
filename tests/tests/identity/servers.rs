//! Servers that work in children of theirs, and programs that an interpreter runs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weir_tests::agent::Agent;
use weir_tests::peers::apache::{Apache, Mpm};
use weir_tests::peers::load;
use weir_tests::peers::runtime::{Runtime, Serve};
use weir_tests::place::{Scratch, program};
use weir_tests::process;
use weir_tests::wait;

use crate::stage::{answered, answers_as, are, peers, port, python, scripts, start};

/// gunicorn's workers are forked, never executed; the one that replaces a killed one is forked of a master that is
/// older than the agent.
#[test]
fn workers_of_gunicorn_are_its_application() -> Result<()> {
    let flask = Runtime::start(Serve::Flask)?;
    let agent = Agent::start(&[])?;
    let before = answers_as(&agent, flask.port(), 12, "flask_app", "script")?;
    let old = flask.servers()?;
    ensure!(before.iter().all(|pid| old.contains(pid)), "{before:?} answered, workers are {old:?}");
    for pid in &old {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap_or(Pid::INIT), Signal::KILL)?;
    }
    let new = wait::until(Duration::from_secs(10), "two new workers", || {
        let now = flask.servers()?;
        Ok((now.len() == 2 && now.iter().all(|pid| !old.contains(pid))).then_some(now))
    })?;
    load::curls(12, &format!("{}/fixed/1", flask.url()))?;
    let calls = answered(&agent, flask.port(), 24)?;
    let late: Vec<_> =
        calls.into_iter().filter(|call| call.service.pid.is_some_and(|pid| new.contains(&pid))).collect();
    ensure!(late.len() == 12, "{} calls of the new workers {new:?}", late.len());
    are(&agent, &late, "flask_app", "script")?;
    ensure!(peers(&agent, flask.port())?.iter().all(|peer| peer.as_deref() == Some("flask_app")));
    agent.finish()
}

#[test]
fn children_of_apache_are_apache() -> Result<()> {
    let agent = Agent::start(&[])?;
    let apache = Apache::start(Mpm::Prefork)?;
    let load = load::ab(60, 6, false, &format!("http://127.0.0.1:{}/f/100", apache.port()))?;
    ensure!(load.answered == 60 && load.errors == 0, "{load:?}");
    // Apache's parent was asked whether it listens: that connection has no call.
    let pids = are(&agent, &answered(&agent, apache.port(), 60)?, "apache2", "executable")?;
    ensure!(pids.len() > 1 && !pids.contains(&apache.pid()), "{pids:?}, the parent is {}", apache.pid());
    agent.finish()
}

#[test]
fn interpreters_are_what_they_run() -> Result<()> {
    let folder = scripts(&[("orders.py", "serve(listen(sys.argv[1]))")])?;
    std::fs::create_dir(folder.join("billing"))?;
    folder.write("billing/__init__.py", "")?;
    folder.write("billing/__main__.py", "from serve import *\nserve(listen(sys.argv[1]))\n")?;
    folder.write("cart.js", NODE)?;
    folder.write("stock.pl", PERL)?;
    let jar = jar(&folder)?;
    // Half of them are older than the agent: there is no exec record of those.
    let (script, module, node, perl, java) = (port()?, port()?, port()?, port()?, port()?);
    let mut command = Command::new(program("perl")?);
    command.arg(folder.join("stock.pl")).arg(&perl.0);
    let older =
        [start(python(&folder, "orders.py", &[&script.0])?, script.1, &folder)?, start(command, perl.1, &folder)?];
    let agent = Agent::start(&[])?;
    let mut command = Command::new(program("python3")?);
    command.args(["-B", "-m", "billing", &module.0]).current_dir(folder.path());
    let mut younger = vec![start(command, module.1, &folder)?];
    let mut command = Command::new(program("node")?);
    command.args(["--max-old-space-size=64"]).arg(folder.join("cart.js")).arg(&node.0);
    younger.push(start(command, node.1, &folder)?);
    let mut command = Command::new(program("java")?);
    command.args(["-Xmx64m", "-Dx=y", "-jar"]).arg(jar).args([&java.0, "/dev/null"]);
    younger.push(start(command, java.1, &folder)?);
    for ((_, port), name) in
        [(script, "orders"), (perl, "stock"), (module, "billing"), (node, "cart"), (java, "checkout")]
    {
        answers_as(&agent, port, 3, name, "script")?;
    }
    drop((older, younger));
    agent.finish()
}

const NODE: &str = "
const server = require('http').createServer((request, response) => response.end('ok'))
server.listen(Number(process.argv[2]), '127.0.0.1')
";

const PERL: &str = r#"
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$ARGV[0]", Listen => 64, ReuseAddr => 1) or die;
$0 = $ARGV[1] if $ARGV[1];
while (my $wire = $listener->accept) {
    while (my $line = <$wire>) { last if $line eq "\r\n" }
    print $wire "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    close $wire;
}
"#;

/// `checkout-2.1.0-SNAPSHOT.jar` with the Java peer in it.
fn jar(folder: &Scratch) -> Result<std::path::PathBuf> {
    let (classes, jar) = (folder.join("classes"), folder.join("checkout-2.1.0-SNAPSHOT.jar"));
    let source = weir_tests::place::sources().join("peers/java/Server.java");
    let limit = Duration::from_mins(1);
    process::run(Command::new(program("javac")?).arg("-d").arg(&classes).arg(source), limit)?;
    let mut command = Command::new(program("jar")?);
    command.args(["--create", "--main-class", "Server", "--file"]).arg(&jar).arg("-C").arg(classes).arg(".");
    process::run(&mut command, limit)?;
    Ok(jar)
}

/// What calls itself something else stays what was started: by `prctl(PR_SET_NAME)`, and by writing over its command
/// line, before and after the agent looked.
#[test]
fn a_process_that_renames_itself_keeps_its_name() -> Result<()> {
    const RENAMED: &str = r#"
import ctypes
ctypes.CDLL(None).prctl(15, b"postgres", 0, 0, 0)
serve(listen(sys.argv[1]))
"#;
    const RENAMES: &str = r#"
import ctypes
listener = listen(sys.argv[1])
serve(listener, 2)
ctypes.CDLL(None).prctl(15, b"redis-server", 0, 0, 0)
serve(listener)
"#;
    let folder = scripts(&[("ledger.py", RENAMED), ("mailer.py", RENAMES)])?;
    folder.write("stock.pl", PERL)?;
    let (older, younger, later, overwritten, forgotten) = (port()?, port()?, port()?, port()?, port()?);
    let perl = |to: &str| -> Result<Command> {
        let mut command = Command::new(program("perl")?);
        command.arg(folder.join("stock.pl")).args([to, "nginx: master process"]);
        Ok(command)
    };
    let first = [
        start(python(&folder, "ledger.py", &[&older.0])?, older.1, &folder)?,
        start(perl(&forgotten.0)?, forgotten.1, &folder)?,
    ];
    let agent = Agent::start(&[])?;
    let second = [
        start(python(&folder, "ledger.py", &[&younger.0])?, younger.1, &folder)?,
        start(python(&folder, "mailer.py", &[&later.0])?, later.1, &folder)?,
        start(perl(&overwritten.0)?, overwritten.1, &folder)?,
    ];
    answers_as(&agent, older.1, 3, "ledger", "script")?;
    answers_as(&agent, younger.1, 3, "ledger", "script")?;
    answers_as(&agent, later.1, 4, "mailer", "script")?;
    answers_as(&agent, overwritten.1, 3, "stock", "script")?;
    // Its command line is gone and there is no record of its exec: its executable is all that is proven.
    answers_as(&agent, forgotten.1, 3, "perl", "executable")?;
    drop((first, second));
    agent.finish()
}
