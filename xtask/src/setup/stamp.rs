//! What a built tool was built of, kept beside it, so that a changed pin builds it again.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{repo, shell};

/// Where a built tool is.
pub(crate) fn tool(name: &str) -> Result<PathBuf> {
    Ok(repo::cache()?.join("bin").join(name))
}

fn file(name: &str) -> Result<PathBuf> {
    Ok(repo::cache()?.join("stamps").join(name))
}

/// Whether the tool starts and was built of `pins`.
pub(crate) fn check(name: &str, arguments: &[&str], pins: &str) -> Result<(), String> {
    let tool = tool(name).map_err(|error| error.to_string())?;
    if !tool.exists() {
        return Err(format!("no {}", tool.display()));
    }
    let of = file(name).ok().and_then(|file| fs::read_to_string(file).ok());
    if of.as_deref() != Some(pins) {
        return Err("built of other versions than pinned".to_owned());
    }
    shell::succeeds(&tool.to_string_lossy(), arguments)
}

/// Notes what the tool was built of. Called last, so that a build that was interrupted does not count.
pub(crate) fn write(name: &str, pins: &str) -> Result<()> {
    let file = file(name)?;
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(&file, pins).with_context(|| format!("writing {}", file.display()))
}
