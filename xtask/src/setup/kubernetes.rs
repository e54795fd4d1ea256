//! A node of Kubernetes: one program that is etcd, API server, controllers, scheduler, proxy, kubelet and kubectl,
//! built of Kubernetes' own Go modules, whose versions `tests/kubernetes/node/go.mod` and `go.sum` pin.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Install, Piece, golang, pins, stamp};
use crate::{repo, shell};

const TOOL: &str = "kubenode";

pub(crate) fn pieces() -> Vec<Piece> {
    vec![Piece {
        name: "Kubernetes".to_owned(),
        why: "API server and node (ten minutes to build, once)".to_owned(),
        check: Box::new(check),
        install: Install::Own(install),
    }]
}

fn source() -> PathBuf {
    repo::root().join("tests/kubernetes/node")
}

/// Everything that it is built of.
fn pinned() -> Result<String> {
    let mut all = pins::KUBERNETES.to_owned();
    for name in ["main.go", "go.mod", "go.sum"] {
        let path = source().join(name);
        all += &fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    }
    Ok(all)
}

fn check() -> Result<(), String> {
    let pinned = pinned().map_err(|error| format!("{error:#}"))?;
    stamp::check(TOOL, &["kubectl", "version", "--client"], &pinned)
}

fn install() -> Result<()> {
    let tool = stamp::tool(TOOL)?;
    let version = pins::KUBERNETES;
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let names = [("gitVersion", format!("v{version}")), ("gitMajor", major.to_owned()), ("gitMinor", minor.to_owned())];
    let names = names.map(|(name, value)| format!(" -X k8s.io/component-base/version.{name}={value}")).concat();
    shell::run(
        golang::command()
            .args(["build", "-trimpath", "-mod=readonly", &format!("-ldflags=-s -w{names}"), "-o"])
            .arg(&tool)
            .arg(".")
            .current_dir(source()),
    )?;
    stamp::write(TOOL, &pinned()?)
}
