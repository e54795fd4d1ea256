//! Go: the one that is there if it is new enough, else the pinned one in the cache.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{Install, Piece, apt, pins, stamp};
use crate::{repo, shell};

pub(crate) fn pieces() -> Vec<Piece> {
    vec![Piece {
        name: "Go".to_owned(),
        why: "Go server and client; builds the collector".to_owned(),
        check: Box::new(check),
        install: Install::Own(install),
    }]
}

/// A `go` command that finds the cached tools and leaves the caller's settings alone, but for those that would
/// change what is built.
pub(crate) fn command() -> Command {
    let mut command = Command::new("go");
    command.env("PATH", shell::path()).env("GOWORK", "off").env("CGO_ENABLED", "0");
    command
}

fn check() -> Result<(), String> {
    let text = shell::output(command().arg("version")).map_err(|error| error.to_string())?;
    match parse_version(&text) {
        Some(version) if version >= pins::GO_MINIMUM => Ok(()),
        _ => Err(format!("`{}` is older than 1.{}", text.trim(), pins::GO_MINIMUM.1)),
    }
}

/// Major and minor of `go version go1.26.8 linux/amd64`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(2)?.strip_prefix("go")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Debian's Go is too old to build with, but it can fetch a newer one: toolchains are modules, checked against
/// the checksum database like any other.
fn install() -> Result<()> {
    if command().arg("version").output().is_err() {
        apt::install(&[pins::GO_BOOTSTRAP_PACKAGE])?;
    }
    let machine = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("install Go {} by hand: no name known for {other}", pins::GO),
    };
    let module = format!("golang.org/toolchain@v0.0.1-go{}.linux-{machine}", pins::GO);
    let work = repo::cache()?.join("build/go");
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    fs::write(work.join("go.mod"), "module toolchain\n")?;
    eprintln!("  fetching {module}");
    let answer = shell::output(command().args(["mod", "download", "-json", &module]).current_dir(&work))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("reading what `go mod download` said")?;
    let folder = answer["Dir"].as_str().context("`go mod download` named no folder")?;
    let goroot = repo::cache()?.join(format!("go-{}", pins::GO));
    if goroot.exists() {
        fs::remove_dir_all(&goroot).with_context(|| format!("removing {}", goroot.display()))?;
    }
    shell::run(Command::new("cp").args(["-r", "--no-preserve=mode", folder]).arg(&goroot))?;
    // A module's files come without the permission to be run.
    make_executable(&goroot.join("bin"))?;
    make_executable(&goroot.join("pkg/tool"))?;
    let link = stamp::tool("go")?;
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder)?;
    }
    if link.is_symlink() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(goroot.join("bin/go"), &link).with_context(|| format!("linking {}", link.display()))
}

fn make_executable(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            make_executable(&path)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn the_version_of_go_is_read() {
        assert_eq!(parse_version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(parse_version("go version go1.21 linux/arm64"), Some((1, 21)));
        assert_eq!(parse_version("go version devel +abc"), None);
    }
}
