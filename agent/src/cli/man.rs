//! `weir man`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use super::print;

/// Prints the manual page, or writes the pages of all verbs into a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir man | man -l -
  weir man --into /usr/share/man/man1")]
pub(super) struct Arguments {
    /// Folder for weir.1, weir-run.1, …
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let command = super::Arguments::command();
    if let Some(folder) = &arguments.into {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        return clap_mangen::generate_to(command, folder)
            .with_context(|| format!("can't write to {}", folder.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    print::text(&String::from_utf8_lossy(&page))
}
