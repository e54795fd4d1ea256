//! `weir connections`.

use clap::Args;
use serde_json::Value;

use super::{
    agent::Agent,
    print, rows,
    screen::{Screen, bytes, harmless, table},
};

/// Shows every live connection: who, with whom, what is spoken, and how it is seen
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir connections
  weir connections --json | jq 'select(.visibility == \"opaque\")'")]
pub(super) struct Arguments {
    /// One JSON document a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let lines = arguments.agent.client().lines("/v1/connections")?;
    if arguments.json {
        return print::lines(lines);
    }
    let rows = rows::read(lines, |row| {
        let text = |pointer: &str| harmless(row.pointer(pointer).and_then(Value::as_str).unwrap_or("-"));
        let number = |pointer: &str| row.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let mut seen = text("/visibility");
        if let Some(reason) = row.get("weir.opaque.reason").and_then(Value::as_str) {
            seen = format!("{seen}: {}", harmless(reason));
        }
        if let Some(name) = row.pointer("/tls/server_name").and_then(Value::as_str) {
            seen = format!("{seen} ({})", harmless(name));
        }
        vec![
            text("/service/service.name"),
            text("/role"),
            text("/local"),
            text("/remote"),
            text("/peer/service.name"),
            text("/protocol"),
            number("/calls").to_string(),
            bytes(number("/bytes_received")),
            bytes(number("/bytes_sent")),
            seen,
        ]
    })?;
    let headings = ["SERVICE", "ROLE", "<LOCAL", "<REMOTE", "PEER", "PROTOCOL", ">CALLS", ">IN", ">OUT", "SEEN"];
    print::text(&table(Screen::of_table(), &headings, &rows))
}
