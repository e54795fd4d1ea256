//! Jaeger, built of its Go module.

use anyhow::Result;

use super::{Install, Piece, module::Source, pins, stamp};

const TOOL: &str = "jaeger";

pub(crate) fn pieces() -> Vec<Piece> {
    vec![Piece {
        name: "Jaeger".to_owned(),
        why: "shows exported traces (five minutes to build, once)".to_owned(),
        check: Box::new(|| stamp::check(TOOL, &["version"], pins::JAEGER.1)),
        install: Install::Own(install),
    }]
}

fn install() -> Result<()> {
    Source::fetch(TOOL, pins::JAEGER)?.build(TOOL, "./cmd/jaeger")?;
    stamp::write(TOOL, pins::JAEGER.1)
}
