//! Debian's packages.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{Install, Piece, Stage, pins};
use crate::shell;

/// Packages whose service Debian would start and enable on installation; the tests start their own on ports of their own.
const SERVICES: &[(&str, &str)] = &[
    ("nginx", "nginx"),
    ("apache2", "apache2"),
    ("haproxy", "haproxy"),
    ("redis-server", "redis-server"),
    ("postgresql", "postgresql"),
    ("prometheus", "prometheus"),
    ("prometheus-node-exporter", "prometheus-node-exporter"),
    ("iperf3", "iperf3"),
    ("openssh-server", "ssh"),
];

/// The packages that a purpose needs.
pub(crate) fn pieces(stage: Stage) -> Vec<Piece> {
    pins::DEBIAN
        .iter()
        .filter(|pin| pin.stage <= stage)
        .map(|pin| Piece {
            name: pin.package.to_owned(),
            why: pin.why.to_owned(),
            check: Box::new(|| match pin.proof {
                [program, arguments @ ..] => shell::succeeds(program, arguments),
                [] => Ok(()),
            }),
            install: Install::Apt(vec![pin.package]),
        })
        .collect()
}

/// Installs packages in one call, without starting their services.
///
/// # Errors
/// Names what to type when there are no rights to do it.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let packages: BTreeSet<&str> = packages.iter().copied().collect();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.iter().copied().collect::<Vec<_>>().join(" ");
    if Command::new("apt-get").arg("--version").output().is_err() {
        bail!("no apt-get here: install by hand what Debian calls {list}");
    }
    if !shell::is_root() {
        bail!(
            "not root. Type this as root, then try again:\n  \
             apt-get update && apt-get install -y --no-install-recommends {list}"
        );
    }
    let quiet = Quiet::begin()?;
    let result = apt_get(&["update", "-qq"], &packages).and_then(|()| {
        apt_get(&["install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"], &packages)
    });
    quiet.end(&packages);
    result
}

fn apt_get(arguments: &[&str], packages: &BTreeSet<&str>) -> Result<()> {
    let mut command = Command::new("apt-get");
    // Another one that runs (unattended upgrades, at boot) is waited for.
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    if arguments.contains(&"install") {
        command.args(packages);
    }
    // A line for each step of each package says nothing to whoever waits; errors go to stderr.
    shell::run(command.stdout(Stdio::null())).context(
        "apt-get could not do it. A package that it can't locate is in Debian 12's main or security archive: \
         /etc/apt needs both bookworm and bookworm-security",
    )
}

/// Keeps newly installed services from starting, by the hook that Debian has for it.
struct Quiet {
    hook: Option<PathBuf>,
}

impl Quiet {
    fn begin() -> Result<Self> {
        let hook = Path::new("/usr/sbin/policy-rc.d");
        if hook.exists() {
            // The administrator's own; it may well say the same.
            return Ok(Self { hook: None });
        }
        fs::write(hook, "#!/bin/sh\nexit 101\n").with_context(|| format!("writing {}", hook.display()))?;
        fs::set_permissions(hook, fs::Permissions::from_mode(0o755))?;
        Ok(Self { hook: Some(hook.to_owned()) })
    }

    /// Lets services start again, but not the ones that just came, neither now nor after a boot.
    fn end(self, packages: &BTreeSet<&str>) {
        drop(self);
        if !Path::new("/run/systemd/system").exists() {
            return;
        }
        for (_, service) in SERVICES.iter().filter(|(package, _)| packages.contains(package)) {
            let disabled = shell::run(Command::new("systemctl").args(["disable", "--quiet", service]));
            if let Err(error) = disabled {
                eprintln!("setup: {service} would start at boot: {error:#}");
            }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(hook) = &self.hook
            && let Err(error) = fs::remove_file(hook)
        {
            eprintln!("setup: remove {} by hand: {error}", hook.display());
        }
    }
}
