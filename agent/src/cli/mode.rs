//! `weir mode`.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{agent::Agent, print};

/// Shows or sets what becomes of calls that drop rules meet
#[derive(Debug, Args)]
#[command(after_help = "\
In mode monitor, calls that a rule meets are counted and shown as would_drop; nothing is dropped.
In mode enforce, rules in mode enforce drop what they meet; all others go on as before.
The mode holds until the agent ends, or a reload brings another enforce.mode.

Examples:
  weir mode
  weir mode enforce
  weir mode monitor")]
pub(super) struct Arguments {
    /// The node's mode from now on
    mode: Option<Word>,
    /// The answer as a JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    /// Counted and shown
    Monitor,
    /// Dropped, by rules that are in mode enforce too
    Enforce,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let client = arguments.agent.client();
    let answer: Value = match arguments.mode {
        None => client.document("GET", "/v1/mode")?,
        Some(word) => {
            let mode = match word {
                Word::Monitor => "monitor",
                Word::Enforce => "enforce",
            };
            arguments.agent.change("PUT", "/v1/mode", Some(&json!({ "mode": mode })))?
        }
    };
    if arguments.json {
        return print::document(&answer);
    }
    print::text(&format!("{}\n", answer.get("mode").and_then(Value::as_str).unwrap_or_default()))
}
