//! Processes whose own number is another than the one that the kernel's first pid namespace gives them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::place::program;
use weir_tests::process::{self, Process};

use crate::stage::{answers_as, port, python, scripts, start};

/// `unshare --pid --fork COMMAND`: it is number 1 of its own namespace. Gives unshare's process, the parent.
fn alone(command: &Command) -> Result<Command> {
    let mut alone = Command::new(program("unshare")?);
    alone.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
    alone.arg(command.get_program()).args(command.get_args()).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(alone)
}

fn only_child(of: &Process) -> Result<u32> {
    let children = process::children(of.pid())?;
    let [child] = children.as_slice() else { anyhow::bail!("children {children:?}") };
    Ok(*child)
}

/// Two processes that both are number 1 to themselves, one that entered the namespace of the first, and one outside.
#[test]
fn numbers_of_other_namespaces_are_not_confused() -> Result<()> {
    let folder = scripts(&[
        ("alpha.py", "serve(listen(sys.argv[1]))"),
        ("beta.py", "serve(listen(sys.argv[1]))"),
        ("guest.py", "serve(listen(sys.argv[1]))"),
        ("outside.py", "serve(listen(sys.argv[1]))"),
    ])?;
    for older in [true, false] {
        let (alpha, beta, guest, outside) = (port()?, port()?, port()?, port()?);
        let agent = if older { None } else { Some(Agent::start(&[])?) };
        let first = start(alone(&python(&folder, "alpha.py", &[&alpha.0])?)?, alpha.1, &folder)?;
        let second = start(alone(&python(&folder, "beta.py", &[&beta.0])?)?, beta.1, &folder)?;
        let inside = only_child(&first)?;
        let mut enter = Command::new(program("nsenter")?);
        enter.args(["--target", &inside.to_string(), "--pid", "--mount", "--"]).arg(program("python3")?);
        enter.arg("-B").arg(folder.join("guest.py")).arg(&guest.0);
        let third = start(enter, guest.1, &folder)?;
        let fourth = start(python(&folder, "outside.py", &[&outside.0])?, outside.1, &folder)?;
        let agent = match agent {
            Some(agent) => agent,
            None => Agent::start(&[])?,
        };
        ensure!(answers_as(&agent, alpha.1, 3, "alpha", "script")? == [inside]);
        ensure!(answers_as(&agent, beta.1, 3, "beta", "script")? == [only_child(&second)?]);
        ensure!(answers_as(&agent, guest.1, 3, "guest", "script")? == [only_child(&third)?]);
        ensure!(answers_as(&agent, outside.1, 3, "outside", "script")? == [fourth.pid()]);
        drop((first, second, third, fourth));
        agent.finish()?;
    }
    Ok(())
}

/// A process of another mount namespace whose files are not where they are here, and whose proc is another.
#[test]
fn what_is_asked_is_the_nodes_own_proc() -> Result<()> {
    let folder = scripts(&[("inner.py", "serve(listen(sys.argv[1]))")])?;
    let agent = Agent::start(&[])?;
    let (text, port) = port()?;
    let mut command = Command::new(program("unshare")?);
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--", "/bin/sh", "-c"]);
    // Its script has a path that leads nowhere outside.
    let script = "mount -t tmpfs none /mnt && cp \"$0\"/*.py /mnt/ && exec python3 -B /mnt/inner.py \"$1\"";
    command.arg(script).arg(folder.path()).arg(&text).env("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=inside");
    let server = start(command, port, &folder)?;
    let pids = answers_as(&agent, port, 3, "inner", "script")?;
    let pid = *pids.first().context("no process")?;
    let row = crate::stage::rows_of(&agent, pid)?;
    ensure!(row.iter().all(|row| row["service"]["service.namespace"] == "inside"), "{row:?}");
    drop(server);
    agent.finish()
}
