//! CrowdSec, out of Debian's package but not installed: its installation registers the machine with the project's
//! central service, which a test has no business with and which fails where there is no way out.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{Install, Piece};
use crate::{repo, shell};

pub(crate) fn pieces() -> Vec<Piece> {
    vec![Piece {
        name: "CrowdSec".to_owned(),
        why: "its local API decides whom to block".to_owned(),
        check: Box::new(|| {
            let program = repo::cache().map_err(|error| error.to_string())?.join("crowdsec/usr/bin/cscli");
            shell::succeeds(&program.to_string_lossy(), &["version"])
        }),
        install: Install::Own(install),
    }]
}

fn install() -> Result<()> {
    let work = repo::cache()?.join("build/crowdsec");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    // As root, apt would download as an account that may not write here.
    let mut download = Command::new("apt-get");
    shell::run(download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", "crowdsec"]).current_dir(&work))?;
    let package = fs::read_dir(&work)?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some());
    let Some(package) = package else { bail!("apt-get downloaded nothing to {}", work.display()) };
    let folder = repo::cache()?.join("crowdsec");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    shell::run(Command::new("dpkg").arg("-x").arg(package).arg(folder))
}
