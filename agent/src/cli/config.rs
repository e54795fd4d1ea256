//! `weir config check|show|schema`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::print;
use crate::config::{Sources, schema};

/// Checks, shows and describes the configuration
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir config check /etc/weir/weir.yaml
  weir config show -c weir.yaml --set recent.memory=16MiB
  weir config schema > weir.schema.json")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Checks a file: every mistake with its line, column and remedy; exit code 2 if there is one
    #[command(after_help = "Example: weir config check weir.yaml")]
    Check {
        /// The file
        file: PathBuf,
    },
    /// Shows the effective configuration and where each value comes from; secrets are masked
    #[command(after_help = "Example: weir config show -c weir.yaml")]
    Show {
        /// The file [default: /etc/weir/weir.yaml if it is there]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Sets a key, as recent.memory=16MiB
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// One JSON document: an array of {"key", "value", "from"}
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema of the file: every key with its meaning and default
    #[command(after_help = "Example: weir config schema > weir.schema.json")]
    Schema,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.what {
        What::Check { file } => {
            // The file alone: what the environment of whoever checks it says does not belong to it.
            let loaded = Sources { file: Some(file.clone()), ..Sources::default() }.load()?;
            for warning in &loaded.warnings {
                print::said(&warning.to_string());
            }
            print::text(&format!("{}: good\n", file.display()))
        }
        What::Show { config, set, json } => {
            let loaded = Sources::of_process(config, set).load()?;
            for warning in &loaded.warnings {
                print::said(&warning.to_string());
            }
            if json { print::document(&loaded.effective.json()) } else { print::text(&loaded.effective.yaml()) }
        }
        What::Schema => print::text(&format!("{:#}\n", schema())),
    }
}
