//! The command line: one file for each verb. Data goes to stdout, everything else to stderr.

mod completions;
mod config;
mod live;
mod man;
mod print;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{app, config::Problems};

/// Sees the API calls of this machine in the kernel.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 100, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed, 2 wrong usage or invalid configuration,
            3 no agent reachable, 4 this node can't run Weir.")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Arguments),
    Config(config::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Runs the command line of this process. Exit codes: 0 done, 1 failed, 2 wrong usage or invalid configuration,
/// 3 no agent reachable, 4 this node can't run Weir.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(arguments),
        Verb::Config(arguments) => config::run(arguments),
        Verb::Completions(arguments) => completions::run(&arguments),
        Verb::Man(arguments) => man::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if print::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", message(&error));
            ExitCode::from(code(&error))
        }
    }
}

/// Problems of a configuration begin with their place, as editors expect it; everything else with our name.
fn message(error: &anyhow::Error) -> String {
    if error.is::<Problems>() { error.to_string() } else { format!("weir: {error:#}") }
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Problems>() {
        2
    } else if error.downcast_ref::<app::Error>().is_some_and(app::Error::is_unfit) {
        4
    } else {
        1
    }
}
