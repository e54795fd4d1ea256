//! The command line: one file for each verb. Data goes to stdout, everything else to stderr.

mod agent;
mod audit;
mod block;
mod calls;
mod completions;
mod config;
mod connections;
mod doctor;
mod graph;
mod line;
mod live;
mod man;
mod mode;
mod notify;
mod print;
mod reload;
mod rows;
mod run;
mod screen;
mod services;
mod stats;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{app, config::Problems, control::client};

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
    Calls(calls::Arguments),
    Top(top::Arguments),
    Connections(connections::Arguments),
    Services(services::Arguments),
    Graph(graph::Arguments),
    Stats(stats::Arguments),
    Doctor(doctor::Arguments),
    Block(block::Arguments),
    Mode(mode::Arguments),
    Audit(audit::Arguments),
    Reload(reload::Arguments),
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
        Verb::Calls(arguments) => calls::run(&arguments),
        Verb::Top(arguments) => top::run(&arguments),
        Verb::Connections(arguments) => connections::run(&arguments),
        Verb::Services(arguments) => services::run(&arguments),
        Verb::Graph(arguments) => graph::run(&arguments),
        Verb::Stats(arguments) => stats::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Block(arguments) => block::run(arguments),
        Verb::Mode(arguments) => mode::run(&arguments),
        Verb::Audit(arguments) => audit::run(&arguments),
        Verb::Reload(arguments) => reload::run(&arguments),
        Verb::Config(arguments) => config::run(arguments),
        Verb::Completions(arguments) => completions::run(&arguments),
        Verb::Man(arguments) => man::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if print::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print::said(&message(&error));
            ExitCode::from(code(&error))
        }
    }
}

/// Problems of a configuration begin with their place, as editors expect it; everything else with our name.
fn message(error: &anyhow::Error) -> String {
    if error.is::<Problems>() {
        return error.to_string();
    }
    let mut text = format!("weir: {error}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some errors say their cause themselves.
        if !text.contains(&cause) {
            text = text + ": " + &cause;
        }
    }
    text
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Problems>()
        || error.is::<Usage>()
        || error.downcast_ref::<app::Error>().is_some_and(app::Error::is_configuration)
    {
        2
    } else if matches!(error.downcast_ref(), Some(client::Error::Unreachable { .. })) {
        3
    } else if error.is::<Unfit>() || error.downcast_ref::<app::Error>().is_some_and(app::Error::is_unfit) {
        4
    } else {
        1
    }
}

/// This node can't run Weir; everything else has been said.
#[derive(Debug, thiserror::Error)]
#[error("this node can't run Weir: see what is marked as failed")]
struct Unfit;

/// Arguments that clap can't judge.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);
