//! `weir services`.

use clap::Args;
use serde_json::Value;

use super::{
    agent::Agent,
    print, rows,
    screen::{Screen, harmless, table},
};

/// Shows every service that was seen, and how its name was found
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir services
  weir services --json | jq -r '.service.\"service.name\"'")]
pub(super) struct Arguments {
    /// One JSON document a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let lines = arguments.agent.client().lines("/v1/services")?;
    if arguments.json {
        return print::lines(lines);
    }
    let rows = rows::read(lines, |row| {
        let text = |pointer: &str| harmless(row.pointer(pointer).and_then(Value::as_str).unwrap_or("-"));
        let pids = row.get("pids").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let pids: Vec<String> = pids.iter().take(8).map(Value::to_string).collect();
        vec![
            text("/service/service.name"),
            text("/service/service.namespace"),
            text("/evidence"),
            row.get("processes").map(Value::to_string).unwrap_or_default(),
            pids.join(" "),
            text("/service/process.executable.name"),
            text("/unit"),
        ]
    })?;
    let headings = ["SERVICE", "NAMESPACE", "NAMED BY", ">PROCESSES", "PIDS", "EXECUTABLE", "UNIT"];
    print::text(&table(Screen::of_table(), &headings, &rows))
}
