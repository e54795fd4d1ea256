//! `weir top`.

use std::io::{IsTerminal as _, stdout};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{
    Usage,
    agent::Agent,
    screen::{Screen, is_dumb},
};
use crate::tui;

/// Shows services, endpoints, edges, connections, drop rules and the ledger live, with keys as in htop
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: 1-6 or Tab pages, / filter, s and S sort, Enter open, Esc back, space pause, h help, q quit.

Examples:
  weir top
  NO_COLOR=1 weir top --socket /run/weir/control.sock")]
pub(super) struct Arguments {
    #[command(flatten)]
    agent: Agent,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !stdout().is_terminal() {
        bail!(Usage("top needs a terminal on stdout; without one: weir services, weir graph, weir stats".into()));
    }
    if is_dumb() {
        bail!(Usage("top moves the cursor, which TERM=dumb can't; use weir services, weir graph, weir stats".into()));
    }
    let client = arguments.agent.client();
    // Who is not there at all is told of as by every other verb; who goes later is waited for.
    client.text("/v1/stats")?;
    tui::run(&client, Screen::of_stdout().colours).context("showing on the terminal")
}
