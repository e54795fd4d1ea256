//! `weir calls`.

use std::fmt::Write as _;

use anyhow::bail;
use clap::Args;

use super::{Usage, agent::Agent, line::Line, print, screen::Screen};
use crate::{clock, model::Filter};

/// Shows recent calls
#[derive(Debug, Args)]
#[command(after_help = "\
Names may hold * for any text.

Examples:
  weir calls --service shop --status 5xx --since 10m
  weir calls --follow --slower-than 250ms
  weir calls --last 1000 --json | jq .duration_ns")]
pub(super) struct Arguments {
    /// Calls of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Calls whose other end is this service, address, or address:port
    #[arg(long, value_name = "NAME|ADDRESS")]
    peer: Option<String>,
    /// Calls of this protocol, as http
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// Calls with this method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Calls of this route, as '/orders/{id}'
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Calls answered so: 404, 5xx, or several as 4xx,5xx
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Calls that failed: for a client 4xx and 5xx, for a server 5xx, and what broke off
    #[arg(long)]
    errors: bool,
    /// Calls that took longer, as 100ms
    #[arg(long, value_name = "TIME")]
    slower_than: Option<String>,
    /// Calls since, as 5m (ago) or 2026-11-23T10:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Calls seen from this side: client or server
    #[arg(long, value_name = "SIDE")]
    kind: Option<String>,
    /// How many, the newest [default: 20; with --follow 0]
    #[arg(long, short = 'n', value_name = "N")]
    last: Option<u32>,
    /// Goes on with calls as they come
    #[arg(long, short)]
    follow: bool,
    /// One JSON document a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

impl Arguments {
    /// The path to ask for; a filter that can't be is wrong usage.
    fn target(&self) -> anyhow::Result<String> {
        let filters = [
            ("service", &self.service),
            ("peer", &self.peer),
            ("protocol", &self.protocol),
            ("method", &self.method),
            ("route", &self.route),
            ("status", &self.status),
            ("slower-than", &self.slower_than),
            ("since", &self.since),
            ("kind", &self.kind),
        ];
        let last = self.last.unwrap_or(if self.follow { 0 } else { 20 });
        let mut target = format!("/v1/calls?last={last}&follow={}", u8::from(self.follow));
        let mut filter = Filter::default();
        for (name, value) in filters {
            let Some(value) = value else { continue };
            if let Err(error) = filter.set(name, value, clock::unix_ns()) {
                bail!(Usage(format!("--{error}")));
            }
            let _ = write!(target, "&{name}={}", encode(value));
        }
        if self.errors {
            target += "&errors=1";
        }
        Ok(target)
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let target = arguments.target()?;
    let lines = arguments.agent.client().lines(&target)?;
    let screen = Screen::of_stdout();
    for line in lines {
        let line = line?;
        // A call begins with its trace: what does not is no data, but a word about it.
        if arguments.json && !line.starts_with("{\"missed\"") {
            print::text(&(line + "\n"))?;
            continue;
        }
        let call: serde_json::Value = serde_json::from_str(&line)?;
        match (Line::of_json(&call), call.get("missed").and_then(serde_json::Value::as_u64)) {
            (Some(line), _) => print::text(&(line.show(screen) + "\n"))?,
            (None, Some(missed)) => print::said(&format!("weir: {missed} calls came faster than they could be shown")),
            (None, None) => {}
        }
    }
    Ok(())
}

/// Percent-encodes everything but unreserved characters (RFC 3986 §2.3).
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
