//! `weir stats`.

use std::{fmt::Write as _, time::Duration};

use clap::Args;
use serde_json::Value;

use super::{
    agent::Agent,
    print,
    screen::{Colour, Screen, bytes, duration, harmless, table},
};

/// Shows the ledger (what was seen, delivered, left out, lost and why) and what the agent uses
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir stats
  weir stats --json | jq '.messages[] | select(.stage == \"lost\")'")]
pub(super) struct Arguments {
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let stats: Value = arguments.agent.client().document("GET", "/v1/stats")?;
    if arguments.json { print::document(&stats) } else { print::text(&show(&stats, Screen::of_table())) }
}

fn show(stats: &Value, screen: Screen) -> String {
    let mut out = format!(
        "weir {}, pid {}, up {}; processor {}, memory {}, maps {}\n",
        text(stats, "/version"),
        number(stats, "/pid"),
        seconds(stats, "/uptime_seconds"),
        seconds(stats, "/cpu_seconds"),
        bytes(number(stats, "/resident_bytes")),
        bytes(number(stats, "/map_bytes")),
    );
    let mut section = |name: &str, headings: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let _ = write!(out, "\n{}\n{}", screen.paint(Colour::Cyan, name), table(screen, headings, &rows));
        }
    };
    let counts = |key: &str| {
        let rows = list(stats, key).iter();
        rows.map(|row| vec![text(row, "/stage"), text(row, "/reason"), number(row, "/count").to_string()]).collect()
    };
    section("Ledger, in segments", &["STAGE", "REASON", ">COUNT"], counts("/messages"));
    section("Calls", &["STAGE", "REASON", ">COUNT"], counts("/calls"));
    section("Other events", &["STAGE", "REASON", ">COUNT"], counts("/events"));
    section("Calls joined inside processes", &["PROOF", "REASON", ">COUNT"], counts("/chains"));
    section("Recent calls", &["WHERE", ">CALLS", ">USED", ">LIMIT", ">LOST", "NOTE"], recent(stats));
    // Who exports nothing has nothing to look at here.
    let exported = list(stats, "/exported").iter().filter(|row| number(row, "/count") > 0);
    let exported =
        exported.map(|row| vec![text(row, "/signal"), text(row, "/result"), number(row, "/count").to_string()]);
    section("Exported", &["SIGNAL", "RESULT", ">COUNT"], exported.collect());
    let programs = list(stats, "/programs").iter().map(|row| {
        let (runs, ns) = (number(row, "/runs/count"), number(row, "/runs/ns"));
        let state = [text(row, "/state"), text(row, "/why")].join(" ");
        vec![text(row, "/program"), state.trim().to_owned(), runs.to_string(), duration(ns), duration(ns / runs.max(1))]
    });
    let heading = "Programs (runs and times are counted while kernel.bpf_stats_enabled is 1)";
    section(heading, &["PROGRAM", "STATE", ">RUNS", ">TIME", ">EACH"], programs.collect());
    out
}

fn recent(stats: &Value) -> Vec<Vec<String>> {
    let row = |store: &Value, place: String, note: String| {
        vec![
            place,
            number(store, "/calls").to_string(),
            bytes(number(store, "/bytes")),
            bytes(number(store, "/limit")),
            number(store, "/lost").to_string(),
            note,
        ]
    };
    let Some(memory) = stats.get("recent") else { return Vec::new() };
    let oldest = text(memory, "/oldest");
    let since = if oldest.is_empty() { oldest } else { format!("since {oldest}") };
    let mut rows = vec![row(memory, "memory".into(), since)];
    if let Some(disk) = memory.get("disk").filter(|disk| disk.is_object()) {
        rows.push(row(disk, text(disk, "/path"), text(disk, "/error")));
    }
    rows
}

fn text(value: &Value, pointer: &str) -> String {
    harmless(value.pointer(pointer).and_then(Value::as_str).unwrap_or_default())
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn seconds(value: &Value, pointer: &str) -> String {
    let seconds = value.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
    duration(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_is_shown_within_the_screen() {
        let stats = json!({
            "version": "1.2", "pid": 7, "uptime_seconds": 90.0, "cpu_seconds": 0.5, "resident_bytes": 20_000_000,
            "messages": [{"stage": "lost", "reason": "ring_full", "count": 12}],
            "programs": [
                {"program": "weir_ingress", "state": "attached", "runs": {"count": 1000, "ns": 250_000}},
                {"program": "weir_sched_exit", "state": "left_out", "why": "tracefs is not mounted: mount it", "runs": null},
            ],
            "recent": {"calls": 3, "bytes": 2_048, "limit": 65_536, "oldest": null,
                       "disk": {"path": "/var/x", "calls": 4, "bytes": 5, "limit": 6, "lost": 3, "error": "full"}},
        });
        let text = show(&stats, Screen { width: 80, colours: false });
        for part in [
            "lost   ring_full     12",
            "attached",
            "250µs  250ns",
            "   3  full",
            "up 1.50min",
            "memory      3    2K    64K",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
