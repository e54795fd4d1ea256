//! Jaeger, built of its Go module.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{Install, Piece, golang, pins, stamp};
use crate::{repo, shell};

const TOOL: &str = "jaeger";

pub(crate) fn pieces() -> Vec<Piece> {
    vec![Piece {
        name: "Jaeger".to_owned(),
        why: "shows exported traces (five minutes to build, once)".to_owned(),
        check: Box::new(|| stamp::check(TOOL, &["version"], pins::JAEGER.1)),
        install: Install::Own(install),
    }]
}

/// Its module replaces others, which `go install` refuses; built as the main module, those and its own `go.sum` count.
fn install() -> Result<()> {
    let (module, version) = pins::JAEGER;
    let work = repo::cache()?.join("build/jaeger");
    let source = work.join("source");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    fs::write(work.join("go.mod"), "module none\n")?;
    let wanted = format!("{module}@{version}");
    let answer = shell::output(golang::command().args(["mod", "download", "-json", &wanted]).current_dir(&work))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("reading what `go mod download` said")?;
    let folder = answer["Dir"].as_str().context("`go mod download` named no folder")?;
    ensure!(Path::new(folder).is_dir(), "{folder} is no folder");
    // A module's files are read-only.
    shell::run(Command::new("cp").args(["-r", "--no-preserve=mode", folder]).arg(&source))?;
    let vendor = source.join("vendor");
    if vendor.exists() {
        // Half of it is not in the module.
        fs::remove_dir_all(&vendor).with_context(|| format!("removing {}", vendor.display()))?;
    }
    shell::run(
        golang::command()
            .args(["build", "-trimpath", "-ldflags=-s", "-o"])
            .arg(stamp::tool(TOOL)?)
            .arg("./cmd/jaeger")
            .current_dir(&source),
    )?;
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    stamp::write(TOOL, version)
}
