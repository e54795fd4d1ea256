//! A call on a line: time, who called whom, what, how it ended, how long it took, how much it moved.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use crate::model::{End, Exchange, Kind, Operation, Verdict};

/// Whether colours may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Plain text.
    Plain,
    /// ANSI colours.
    Coloured,
}

impl Style {
    /// Colours only on a terminal and never with `NO_COLOR` (<https://no-color.org>).
    pub(super) fn of_stdout() -> Self {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        if coloured { Self::Coloured } else { Self::Plain }
    }

    fn paint(self, code: u8, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The line, without its end.
pub(super) fn line(exchange: &Exchange, style: Style) -> String {
    let own = &*exchange.service.name;
    let peer =
        exchange.peer.as_ref().map_or_else(|| exchange.connection.remote.to_string(), |peer| peer.name.to_string());
    let (client, arrow, server) = match exchange.kind {
        Kind::Client => (own, "→", &*peer),
        Kind::Server => (&*peer, "⇒", own),
    };
    let Operation::Http(http) = &exchange.call.operation;
    let target = if http.target.is_empty() { http.route.as_deref().unwrap_or("") } else { &*http.target };
    let status = http.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let code = match http.status {
        Some(500..) => 31,
        Some(400..=499) => 33,
        Some(300..=399) => 36,
        Some(_) => 32,
        None => 35,
    };
    let mut line = format!(
        "{} {:>16} {arrow} {:<22} {} {} {:>8}",
        time(exchange.start_unix_ns),
        cut(client, 16),
        cut(server, 22),
        style.paint(code, &status),
        format_args!("{} {}", http.method.as_str(), cut(target, 40)),
        duration(exchange.duration_ns()),
    );
    let content = |message: Option<crate::model::Message>| {
        message.map_or_else(|| "-".to_owned(), |m| m.content.map_or_else(|| format!("~{}", bytes(m.wire)), bytes))
    };
    let _ = write!(line, " {}/{}", content(Some(exchange.call.request)), content(exchange.call.response));
    if exchange.call.end != End::Complete {
        let _ = write!(line, " {}", style.paint(35, exchange.call.end.as_str()));
    }
    if exchange.verdict != Verdict::Allowed {
        let _ = write!(line, " {}", style.paint(31, exchange.verdict.as_str()));
    }
    line
}

fn time(unix_ns: u64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    // RFC 3339 in UTC with milliseconds; the date is today's for a live line.
    let text = format!("{at:.3}");
    text.split_once('T').map_or(text.clone(), |(_, time)| time.to_owned())
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

fn duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{}µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1}ms", ns as f64 / 1e6),
        _ => format!("{:.2}s", ns as f64 / 1e9),
    }
}

fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n}B"),
        1024..1_048_576 => format!("{:.1}K", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1}M", n as f64 / 1_048_576.0),
        _ => format!("{:.1}G", n as f64 / 1_073_741_824.0),
    }
}
