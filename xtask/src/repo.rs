//! Where things are: the checkout, its build output, the cache of peers outside it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The top of the checkout.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The workspace's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The release binary, whether it is built or not.
pub(crate) fn weir() -> PathBuf {
    target().join("release/weir")
}

/// The binary to install, whether it is built or not: profile `dist`.
pub(crate) fn dist() -> PathBuf {
    target().join("dist/weir")
}

/// The folder of peers and built tools, shared by all checkouts of this user:
/// `weir-ci` in `XDG_CACHE_HOME` or `~/.cache`.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => folder,
        _ => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("weir-ci"))
}
