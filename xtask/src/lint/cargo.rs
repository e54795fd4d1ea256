//! Rules that cargo checks. Its own messages go to standard error; here only which of them failed.

use std::process::Command;

use anyhow::Result;

use crate::{repo, setup::toolchain::search, shell};

/// Formatting of every package, the kernel half's too.
pub(crate) fn format() -> Vec<String> {
    verdict(Command::new("cargo").args(["fmt", "--all", "--check"]))
}

/// Clippy with the workspace's table.
pub(crate) fn clippy() -> Vec<String> {
    verdict(
        Command::new("cargo")
            .args(["clippy", "--quiet", "--workspace", "--exclude", "weir-ebpf", "--all-targets"])
            .args(["--", "-D", "warnings"]),
    )
}

/// Clippy of the kernel half with its own compiler.
pub(crate) fn clippy_ebpf() -> Result<Vec<String>> {
    let toolchain = search::find().map_err(anyhow::Error::msg)?;
    let mut command = toolchain.cargo("clippy");
    command.args(["--quiet", "--locked", "--target-dir"]).arg(repo::target().join("ebpf"));
    Ok(verdict(command.args(["--", "-D", "warnings"])))
}

fn verdict(command: &mut Command) -> Vec<String> {
    match shell::run(command.current_dir(repo::root())) {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!("{error:#}")],
    }
}
