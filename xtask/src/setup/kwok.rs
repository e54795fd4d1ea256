//! kwok, built of its Go module: nodes and pods of a cluster of any size, without a kubelet.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Install, Piece, module::Source, pins, stamp};
use crate::repo;

const TOOL: &str = "kwok";
/// What becomes of nodes and pods. It brings these files, and knows none of them by itself.
const STAGES: [&str; 5] = [
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
];

pub(crate) fn pieces() -> Vec<Piece> {
    vec![Piece {
        name: "kwok".to_owned(),
        why: "pods and nodes by the thousand (four minutes to build, once)".to_owned(),
        check: Box::new(|| stamp::check(TOOL, &["--version"], pins::KWOK.1)),
        install: Install::Own(install),
    }]
}

fn install() -> Result<()> {
    let source = Source::fetch(TOOL, pins::KWOK)?;
    source.build(TOOL, "./cmd/kwok")?;
    let mut stages = Vec::new();
    for name in STAGES {
        let path = source.folder().join("kustomize/stage").join(name);
        stages.push(fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    let file = repo::cache()?.join("kwok.yaml");
    fs::write(&file, stages.join("---\n")).with_context(|| format!("writing {}", file.display()))?;
    stamp::write(TOOL, pins::KWOK.1)
}
