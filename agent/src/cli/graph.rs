//! `weir graph`.

use clap::{Args, ValueEnum};

use anyhow::bail;

use super::{Usage, agent::Agent, print, screen::Screen};
use crate::{clock, model::Filter};

/// Shows who calls whom: how often, how well, how fast
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir graph
  weir graph --since 5m --format dot | dot -Tsvg -o graph.svg
  weir graph --json | jq '.edges[] | select(.errors > 0)'")]
pub(super) struct Arguments {
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Only edges that were used since, as 5m or 2026-01-31T10:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    agent: Agent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A line an edge
    Text,
    /// One document
    Json,
    /// Graphviz
    Dot,
    /// Mermaid flowchart
    Mermaid,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let form = match arguments.format {
        _ if arguments.json => "json",
        Form::Text => "text",
        Form::Json => "json",
        Form::Dot => "dot",
        Form::Mermaid => "mermaid",
    };
    let mut target = format!("/v1/graph?format={form}");
    let columns = Screen::of_table().width;
    if columns <= 1000 {
        target += "&width=";
        target += &columns.to_string();
    }
    if let Some(since) = &arguments.since {
        if let Err(error) = Filter::default().set("since", since, clock::unix_ns()) {
            bail!(Usage(format!("--{error}")));
        }
        target += "&since=";
        target.extend(since.bytes().map(|byte| format!("%{byte:02X}")));
    }
    print::text(&arguments.agent.client().text(&target)?)
}
