//! `cargo xtask setup`: looks what is there, installs what is not, and says both.
//!
//! Every piece has a check that asks the thing itself (a program is started, a version is read), so there is no
//! record of a former run that could be wrong.

mod apt;
mod collector;
mod crowdsec;
mod golang;
mod jaeger;
mod kubernetes;
mod kwok;
mod module;
mod mounts;
mod peers;
pub(crate) mod pins;
pub(crate) mod stamp;
pub(crate) mod toolchain;

use std::{thread, time::Instant};

use anyhow::{Context as _, Result, bail};

/// What the machine is set up for; each purpose includes the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Stage {
    /// Build and run the agent
    Run,
    /// Run the tests
    Test,
    /// Run the benchmark
    Bench,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What for
    #[arg(long = "for", value_enum, default_value = "test")]
    stage: Stage,
}

/// One thing that is there or not.
pub(crate) struct Piece {
    name: String,
    why: String,
    check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    install: Install,
}

/// How a piece is put there.
pub(crate) enum Install {
    /// By Debian's package manager; all such pieces in one call, before the others.
    Apt(Vec<&'static str>),
    /// By a function, in the order of the list.
    Own(fn() -> Result<()>),
    /// By a function; without it Weir does less and says so, hence a failure is only reported.
    Optional(fn() -> Result<()>),
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    prepare(arguments.stage)
}

/// Makes the machine ready for a purpose.
///
/// # Errors
/// What could not be installed, or what to type as root.
pub(crate) fn prepare(stage: Stage) -> Result<()> {
    let begin = Instant::now();
    let pieces = pieces(stage);
    let missing = missing(&pieces);
    let seconds = |begin: Instant| begin.elapsed().as_secs_f32();
    if missing.is_empty() {
        eprintln!("setup: all {} things are there ({:.1} s)", pieces.len(), seconds(begin));
        return Ok(());
    }
    for (piece, reason) in &missing {
        eprintln!("setup: {} ({}): {reason}", piece.name, piece.why);
    }
    let packages = missing.iter().flat_map(|(piece, _)| match &piece.install {
        Install::Apt(packages) => packages.as_slice(),
        Install::Own(_) | Install::Optional(_) => &[],
    });
    apt::install(&packages.copied().collect::<Vec<_>>())?;
    for (piece, _) in &missing {
        match piece.install {
            Install::Apt(_) => {}
            Install::Own(install) => install().with_context(|| format!("setting up {}", piece.name))?,
            Install::Optional(install) => {
                if let Err(error) = install() {
                    eprintln!("setup: {} is left out: {error:#}", piece.name);
                }
            }
        }
    }
    let still: Vec<String> = missing
        .iter()
        .filter(|(piece, _)| !matches!(piece.install, Install::Optional(_)))
        .filter_map(|(piece, _)| (piece.check)().err().map(|reason| format!("{}: {reason}", piece.name)))
        .collect();
    if !still.is_empty() {
        bail!("still missing after installing:\n  {}", still.join("\n  "));
    }
    eprintln!("setup: {} of {} things installed ({:.1} s)", missing.len(), pieces.len(), seconds(begin));
    Ok(())
}

fn pieces(stage: Stage) -> Vec<Piece> {
    let mut pieces = toolchain::pieces(stage);
    pieces.extend(mounts::pieces());
    if stage >= Stage::Test {
        pieces.extend(apt::pieces(stage));
        pieces.extend(golang::pieces());
        pieces.extend(peers::pieces());
        pieces.extend(crowdsec::pieces());
        pieces.extend(collector::pieces());
        pieces.extend(jaeger::pieces());
        pieces.extend(kubernetes::pieces());
        pieces.extend(kwok::pieces());
    }
    pieces
}

/// Runs all checks side by side (some start a JVM or Node).
fn missing(pieces: &[Piece]) -> Vec<(&Piece, String)> {
    thread::scope(|scope| {
        let checks: Vec<_> = pieces.iter().map(|piece| (piece, scope.spawn(|| (piece.check)()))).collect();
        checks
            .into_iter()
            .filter_map(|(piece, check)| match check.join() {
                Ok(Ok(())) => None,
                Ok(Err(reason)) => Some((piece, reason)),
                Err(_) => Some((piece, "its check died".to_owned())),
            })
            .collect()
    })
}
