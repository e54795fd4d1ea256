//! `cargo xtask bench`: what Weir costs, beside what other things cost, measured in one run.
//!
//! Machines differ from minute to minute, so nothing is compared with a figure of another run: in each round every
//! variant runs once, in turn forwards and backwards, and a ratio is taken inside its round.

mod bulk;
mod cost;
mod enforce;
mod golang;
mod identity;
mod load;
mod memory;
mod noop;
mod plan;
mod sample;
mod start;
mod table;
mod variant;

use anyhow::{Result, bail};

use crate::{
    repo, run,
    setup::{self, Stage},
    shell,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often every variant is measured
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each measurement takes
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// One JSON document instead of the table
    #[arg(long)]
    json: bool,
    /// Only rows with a budget and ratios, as README shows them
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Only these parts; none: all
    #[arg(value_enum)]
    parts: Vec<plan::Part>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    if !shell::is_root() {
        bail!("attaching programs needs root");
    }
    setup::prepare(Stage::Bench)?;
    run::build_dist()?;
    weir_tests::place::use_weir(repo::dist());
    noop::build()?;
    let report = plan::measure(arguments.rounds, arguments.seconds, &arguments.parts)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        table::print(&report, arguments.markdown);
    }
    let files = repo::target().join("bench.json");
    std::fs::write(&files, serde_json::to_string_pretty(&report)?)?;
    eprintln!("bench: also in {}", files.display());
    if !report.failed.is_empty() {
        bail!("{} of the parts broke off: {}", report.failed.len(), report.failed.join("; "));
    }
    Ok(())
}
