//! What is in the tree, as git sees it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{repo, shell};

/// The only names at the top, besides dot files.
const TOP: &[&str] = &[
    "agent",
    "agent-common",
    "agent-ebpf",
    "deploy",
    "tests",
    "xtask",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
];

/// Paths of all files, from the top; new ones too unless they are ignored.
pub(crate) fn files() -> Result<Vec<String>> {
    let list = shell::output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "-z"])
            .current_dir(repo::root()),
    )?;
    // A file that was removed but not yet committed is still listed.
    Ok(list.split('\0').filter(|path| repo::root().join(path).is_file()).map(str::to_owned).collect())
}

/// The sources in Rust among them.
pub(crate) fn rust_files() -> Result<Vec<String>> {
    let mut files = files()?;
    files.retain(|path| Path::new(path).extension().is_some_and(|extension| extension == "rs"));
    Ok(files)
}

/// Text of a file of the tree; `None` for one that is not text.
pub(crate) fn text(path: &str) -> Result<Option<String>> {
    let bytes = fs::read(repo::root().join(path)).with_context(|| format!("reading {path}"))?;
    Ok(String::from_utf8(bytes).ok())
}

/// Names at the top that do not belong there.
pub(crate) fn top() -> Result<Vec<String>> {
    Ok(strangers(files()?.iter().map(String::as_str)))
}

fn strangers<'a>(files: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = files.filter_map(|path| path.split('/').next()).collect();
    names
        .into_iter()
        .filter(|name| !name.starts_with('.') && !TOP.contains(name))
        .map(|name| format!("{name}: not one of the names at the top ({})", TOP.join(", ")))
        .collect()
}

/// Packages that do not take the workspace's lints.
pub(crate) fn opted_in() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in files()?.iter().filter(|path| path.ends_with("/Cargo.toml")) {
        if text(path)?.is_none_or(|text| !opts_in(&text)) {
            broken.push(format!("{path}: no `[lints] workspace = true`"));
        }
    }
    Ok(broken)
}

fn opts_in(manifest: &str) -> bool {
    let mut table = "";
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            table = line;
        }
        table == "[lints]" && line.replace(' ', "") == "workspace=true"
    })
}

#[cfg(test)]
mod tests {
    use super::{opts_in, strangers};

    #[test]
    fn a_stranger_at_the_top_is_found_and_dot_files_are_not() {
        let files = ["agent/src/lib.rs", "Cargo.toml", ".ci/run", "notes.txt", "docs/a.md", "docs/b.md"];
        let found = strangers(files.into_iter());
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("docs:") && found[1].starts_with("notes.txt:"), "{found:?}");
    }

    #[test]
    fn a_package_opts_in_by_its_own_table_only() {
        assert!(opts_in("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(!opts_in("[package]\nversion.workspace = true\n"));
        assert!(!opts_in("[lints]\n\n[dependencies.x]\nworkspace = true\n"));
    }
}
