//! The OpenTelemetry Collector, built with Go once for each set of pins.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Install, Piece, golang, pins, stamp};
use crate::{repo, shell};

pub(crate) fn pieces() -> Vec<Piece> {
    vec![Piece {
        name: "OpenTelemetry Collector".to_owned(),
        why: "judge of the export (two minutes to build, once)".to_owned(),
        check: Box::new(|| stamp::check("otelcol", &["--version"], &collector_pins())),
        install: Install::Own(install_collector),
    }]
}

fn collector_pins() -> String {
    format!("{} {}\n{}", pins::COLLECTOR_BUILDER.0, pins::COLLECTOR_BUILDER.1, pins::COLLECTOR_PARTS)
}

/// The builder writes a Go program that imports the parts; the program is built here, for two things less to
/// link and no paths inside.
fn install_collector() -> Result<()> {
    let work = repo::cache()?.join("build/otelcol");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    fs::write(work.join("ocb.yaml"), pins::COLLECTOR_PARTS)?;
    let (module, version) = pins::COLLECTOR_BUILDER;
    shell::run(golang::command().args(["install", &format!("{module}@{version}")]).env("GOBIN", &work))?;
    shell::run(
        std::process::Command::new(work.join("builder"))
            .args(["--config", "ocb.yaml", "--skip-compilation"])
            .current_dir(&work)
            .env("PATH", shell::path())
            .env("GOWORK", "off"),
    )?;
    let tool = stamp::tool("otelcol")?;
    shell::run(
        golang::command()
            .args(["build", "-trimpath", "-ldflags=-s", "-o"])
            .arg(&tool)
            .arg(".")
            .current_dir(work.join("otelcol")),
    )?;
    stamp::write("otelcol", &collector_pins())
}
