//! Starting other programs.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::repo;

/// Runs a command in the foreground after printing it; fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("  $ {line}");
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// What a command prints on standard output; fails when it does, with what it said on standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something that is not UTF-8"))
}

/// Whether a program starts and ends well.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` ended with {status}", arguments.join(" "))),
        Err(error) => Err(format!("`{program}`: {error}")),
    }
}

/// `PATH` with the cached tools in front and the administrator's folders at the end, which Debian leaves out
/// for other users than root.
pub(crate) fn path() -> OsString {
    let mut folders: Vec<PathBuf> = repo::cache().map(|cache| cache.join("bin")).into_iter().collect();
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
        let folder = PathBuf::from(folder);
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    env::join_paths(folders).unwrap_or_default()
}

/// Lets cargo take what another checkout has compiled from the cache outside of both, where sccache is there and whoever
/// calls has not chosen a wrapper. An ill sccache is no reason to fail: it compiles itself then.
pub(crate) fn compiled(cargo: &mut Command) {
    let Ok(cache) = repo::cache() else { return };
    if env::var_os("RUSTC_WRAPPER").is_none() && succeeds("sccache", &["--version"]).is_ok() {
        cargo.env("RUSTC_WRAPPER", "sccache").env("SCCACHE_DIR", cache.join("sccache"));
        cargo.env("SCCACHE_CACHE_SIZE", "4G").env("SCCACHE_IGNORE_SERVER_IO_ERROR", "1");
    }
}

/// Whether this process has all rights.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let mut words: Vec<String> = Vec::new();
    for (name, value) in command.get_envs() {
        // PATH is long and says nothing to a reader.
        if let (Some(name), Some(value)) = (name.to_str().filter(|name| *name != "PATH"), value) {
            words.push(format!("{name}={}", quoted(&value.to_string_lossy())));
        }
    }
    words.push(command.get_program().to_string_lossy().into_owned());
    words.extend(command.get_args().map(|argument| quoted(&argument.to_string_lossy())));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    if let Some((_, rest)) = word.split_once('\n') {
        return format!("'…{} lines…'", rest.lines().count());
    }
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "\"'$;&|<>()*?".contains(c)) {
        format!("'{}'", word.replace('\'', "'\\''"))
    } else {
        word.to_owned()
    }
}
