//! `weir audit`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::print;
use crate::app::audit;
use crate::config::Sources;

/// Checks the record of changes to drop decisions
#[derive(Debug, Args)]
#[command(after_help = "Example: weir audit verify")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Verify(Verify),
}

/// Follows the log's chain of hashes: altered, removed and moved lines are told with their number
#[derive(Debug, Args)]
#[command(after_help = "\
A log whose last lines are cut off, or that was written anew, is a whole chain too: keep the hash that this prints
in another place and give it with --head.

Example: weir audit verify /var/log/weir/audit.log")]
struct Verify {
    /// The log [default: enforce.audit of /etc/weir/weir.yaml]
    file: Option<PathBuf>,
    /// The hash that the last line must have
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let What::Verify(Verify { file, head }) = &arguments.what;
    let file = match file {
        Some(file) => file.clone(),
        None => Sources::of_process(None, Vec::new())
            .load()?
            .settings
            .audit
            .context("enforce.audit is empty: name the file")?,
    };
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let end = audit::verify(&text).map_err(|broken| anyhow::anyhow!("{}: {broken}", file.display()))?;
    if head.as_ref().is_some_and(|head| *head != end.hash) {
        bail!(
            "{}: the chain is whole and ends at {} after {} lines: lines were cut off or added, or it was written anew",
            file.display(),
            end.hash,
            end.lines
        );
    }
    print::text(&format!("{} lines, last hash {}\n", end.lines, end.hash))
}
