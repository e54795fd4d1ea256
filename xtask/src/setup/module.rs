//! Tools built of a Go module whose go.mod replaces others, which `go install` refuses; built as the main module, those and
//! its own go.sum count.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{golang, stamp};
use crate::{repo, shell};

/// A module's files, where they may be written, until dropped.
pub(crate) struct Source {
    work: PathBuf,
}

impl Source {
    /// Fetches a module at a version for the tool `name`.
    pub(crate) fn fetch(name: &str, (module, version): (&str, &str)) -> Result<Self> {
        let work = repo::cache()?.join("build").join(name);
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
        }
        fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
        fs::write(work.join("go.mod"), "module none\n")?;
        let wanted = format!("{module}@{version}");
        let answer = shell::output(golang::command().args(["mod", "download", "-json", &wanted]).current_dir(&work))?;
        let answer: serde_json::Value = serde_json::from_str(&answer).context("reading what `go mod download` said")?;
        let folder = answer["Dir"].as_str().context("`go mod download` named no folder")?;
        ensure!(Path::new(folder).is_dir(), "{folder} is no folder");
        let source = Self { work };
        // A module's files are read-only.
        shell::run(Command::new("cp").args(["-r", "--no-preserve=mode", folder]).arg(source.folder()))?;
        let vendor = source.folder().join("vendor");
        if vendor.exists() {
            // Half of it is not in the module.
            fs::remove_dir_all(&vendor).with_context(|| format!("removing {}", vendor.display()))?;
        }
        Ok(source)
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.work.join("source")
    }

    /// Builds a package of it as the tool `name`.
    pub(crate) fn build(&self, name: &str, package: &str) -> Result<()> {
        shell::run(
            golang::command()
                .args(["build", "-trimpath", "-ldflags=-s", "-o"])
                .arg(stamp::tool(name)?)
                .arg(package)
                .current_dir(self.folder()),
        )
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // The next fetch removes it, too.
        let _ = fs::remove_dir_all(&self.work);
    }
}
