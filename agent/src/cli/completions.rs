//! `weir completions SHELL`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::print;

/// Prints the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: weir completions bash > /usr/share/bash-completion/completions/weir")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "weir", &mut script);
    print::text(&String::from_utf8_lossy(&script))
}
