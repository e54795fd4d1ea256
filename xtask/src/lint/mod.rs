//! `cargo xtask lint`: what a reviewer should not have to look for.

mod cargo;
mod hooks;
mod layers;
mod sources;
mod tokens;
mod tree;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::suites::Outcome;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what reads files; neither format nor clippy
    #[arg(long)]
    quick: bool,
}

/// A rule: its name, and what breaks it, a line each.
type Rule = (&'static str, fn() -> Result<Vec<String>>);

/// Rules that only read files.
const READING: &[Rule] = &[
    ("layers", layers::check),
    ("file sizes", sources::sizes),
    ("machine paths", sources::machine_paths),
    ("names of hooks", hooks::check),
    ("top of the tree", tree::top),
    ("lints opted in", tree::opted_in),
];

/// Rules that call cargo.
const BUILDING: &[Rule] = &[
    ("format", || Ok(cargo::format())),
    ("clippy", || Ok(cargo::clippy())),
    ("clippy of the kernel half", cargo::clippy_ebpf),
];

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let outcome = check(READING.iter().chain(if arguments.quick { &[] } else { BUILDING }));
    println!("lint: {} passed, {} failed", outcome.passed, outcome.failed);
    if outcome.failed > 0 {
        bail!("{} of the rules are broken", outcome.failed);
    }
    Ok(())
}

/// All rules, as a suite of `cargo xtask test`.
pub(crate) fn outcome() -> Outcome {
    check(READING.iter().chain(BUILDING))
}

fn check<'a>(rules: impl Iterator<Item = &'a Rule>) -> Outcome {
    let mut outcome = Outcome::default();
    for (name, rule) in rules {
        let begin = Instant::now();
        let broken = rule().unwrap_or_else(|error| vec![format!("{error:#}")]);
        println!(
            "{name} ... {} ({:.1} s)",
            if broken.is_empty() { "ok" } else { "BROKEN" },
            begin.elapsed().as_secs_f32()
        );
        for line in &broken {
            println!("  {line}");
        }
        if broken.is_empty() {
            outcome.passed += 1;
        } else {
            outcome.failed += 1;
        }
    }
    outcome
}
