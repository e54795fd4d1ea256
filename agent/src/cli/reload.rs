//! `weir reload`.

use clap::Args;
use serde_json::Value;

use super::{agent::Agent, print};

/// Makes the agent read its configuration again; a bad one is refused whole and nothing changes
#[derive(Debug, Args)]
#[command(after_help = "\
The same as SIGHUP, but with an answer.

Example: weir config check /etc/weir/weir.yaml && weir reload")]
pub(super) struct Arguments {
    #[command(flatten)]
    agent: Agent,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let answer = arguments.agent.change("POST", "/v1/reload", None)?;
    for warning in answer.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        print::said(warning.as_str().unwrap_or_default());
    }
    print::text("configuration taken over\n")
}
