//! Attached programs that do nothing: what attaching costs as such.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{repo, shell};

/// Builds the attacher, an example of the agent's package: it has the object and the loader.
pub(crate) fn build() -> Result<()> {
    shell::run(
        Command::new("cargo")
            .args(["build", "--quiet", "--release", "--package", "weir", "--example", "noop"])
            .current_dir(repo::root()),
    )
}

/// The attached programs; they leave with this.
pub(crate) struct Noop(Child);

/// Attaches them to both ways of every socket.
pub(crate) fn attach() -> Result<Noop> {
    let program = repo::target().join("release/examples/noop");
    let child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut noop = Noop(child.with_context(|| format!("starting {}", program.display()))?);
    let stdout = noop.0.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("waiting for the no-op programs")?;
    if line.trim() != "attached" {
        bail!("the no-op programs said {line:?}");
    }
    Ok(noop)
}

impl Drop for Noop {
    fn drop(&mut self) {
        // It ends at the end of its input; a failure shows by its programs being counted in the next variant.
        if let Some(mut stdin) = self.0.stdin.take() {
            drop(stdin.flush());
        }
        drop(self.0.wait());
    }
}
