//! `weir doctor`.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use serde_json::Value;

use super::{
    Unfit,
    agent::Agent,
    print,
    screen::{Colour, Screen, harmless},
};
use crate::{app::doctor, control::client};

/// Shows what this kernel and node can do, which programs run, and what is not visible and why
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the running agent; without one, tells what one would find here (as root).
Exit code 4: this node can't run Weir.

Examples:
  weir doctor
  weir doctor --json | jq '.rows[] | select(.standing != \"ok\")'")]
pub(super) struct Arguments {
    /// Root of cgroup v2 [default: the one that is mounted]; not asked of a running agent
    #[arg(long, value_name = "FOLDER")]
    cgroup: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let report: Value = match arguments.agent.client().document("GET", "/v1/doctor") {
        Ok(report) => report,
        // Somebody may well run there.
        Err(error) if error.is_forbidden() => return Err(error.into()),
        Err(client::Error::Unreachable { .. }) => {
            serde_json::to_value(doctor::without_agent(arguments.cgroup.as_deref()))?
        }
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        print::document(&report)?;
    } else {
        print::text(&show(&report, Screen::of_stdout()))?;
    }
    if report.get("fit") == Some(&Value::Bool(false)) { Err(Unfit.into()) } else { Ok(()) }
}

fn show(report: &Value, screen: Screen) -> String {
    let text = |value: &Value, key: &str| harmless(value.get(key).and_then(Value::as_str).unwrap_or_default());
    let running = report.get("agent_running") == Some(&Value::Bool(true));
    let agent = if running { "an agent runs" } else { "no agent runs: this is what one would do" };
    let mut out = format!("kernel {}; {agent}\n", text(report, "kernel"));
    let rows = report.get("rows").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let width = rows.iter().map(|row| text(row, "subject").chars().count()).max().unwrap_or(0).min(32);
    for (section, heading) in [("fact", "This kernel and node"), ("program", "Programs"), ("blind_spot", "Not visible")]
    {
        let _ = writeln!(out, "\n{}", screen.paint(Colour::Bold, heading));
        for row in rows.iter().filter(|row| text(row, "section") == section) {
            let standing = text(row, "standing");
            let colour = match standing.as_str() {
                "ok" => Colour::Green,
                "failed" => Colour::Red,
                "blind" => Colour::Dim,
                _ => Colour::Yellow,
            };
            let indent = " ".repeat(2 + 8 + 2 + width + 2);
            let room = screen.width.saturating_sub(indent.len()).max(20);
            let subject = text(row, "subject");
            let remedy = text(row, "remedy");
            let mut lines = wrap(&text(row, "detail"), room);
            if !remedy.is_empty() {
                lines.extend(wrap(&format!("→ {remedy}"), room));
            }
            let first = if lines.is_empty() { String::new() } else { lines.remove(0) };
            let standing = screen.paint(colour, &format!("{standing:<8}"));
            out += format!("  {standing}  {subject:<width$}  {first}").trim_end();
            out.push('\n');
            for line in lines {
                let _ = writeln!(out, "{indent}{line}");
            }
        }
    }
    out
}

/// Lines of at most `width` characters, broken at spaces; a longer word stands alone.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_wrapped_under_their_subject() {
        let report = json!({"kernel": "6.1.0", "agent_running": false, "fit": true, "rows": [
            {"section": "fact", "subject": "BTF", "standing": "degraded", "detail": "no /sys/kernel/btf/vmlinux on this kernel",
             "remedy": "enable CONFIG_DEBUG_INFO_BTF and boot the new kernel, then start again"},
            {"section": "program", "subject": "weir_egress", "standing": "ok", "detail": "attached", "remedy": ""},
        ]});
        assert_eq!(
            show(&report, Screen { width: 70, colours: false }),
            "kernel 6.1.0; no agent runs: this is what one would do

This kernel and node
  degraded  BTF          no /sys/kernel/btf/vmlinux on this kernel
                         → enable CONFIG_DEBUG_INFO_BTF and boot the
                         new kernel, then start again

Programs
  ok        weir_egress  attached

Not visible
"
        );
    }
}
