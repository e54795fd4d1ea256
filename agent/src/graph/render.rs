//! The graph for people: text, DOT, Mermaid. Names come from outside: what could be markup or a terminal's control
//! sequence is written so that it is neither.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use super::snapshot::{Counts, EdgeRow, ServiceName, Snapshot};
use crate::model::shown::{columns, cut};

/// `weir graph --format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line an edge.
    #[default]
    Text,
    /// One document.
    Json,
    /// Graphviz.
    Dot,
    /// Mermaid flowchart.
    Mermaid,
}

/// A format that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("there is no format {0:?}: text, json, dot and mermaid are")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "dot" => Ok(Self::Dot),
            "mermaid" => Ok(Self::Mermaid),
            _ => Err(UnknownFormat(word.to_owned())),
        }
    }
}

impl Snapshot {
    /// Writes it down; ends with a line feed.
    pub fn render(&self, format: Format) -> Result<String, serde_json::Error> {
        match format {
            Format::Text => Ok(self.text(None)),
            Format::Json => serde_json::to_string(self).map(|json| json + "\n"),
            Format::Dot => Ok(self.dot()),
            Format::Mermaid => Ok(self.mermaid()),
        }
    }

    /// A line an edge. `width`: columns of a terminal, into which names and notes are cut; numbers never are.
    #[must_use]
    pub fn text(&self, width: Option<usize>) -> String {
        let mut rows = vec![HEAD.map(str::to_owned)];
        for edge in &self.edges {
            let over = format!("{}:{}", edge.protocol, edge.server_port);
            let note = edge.elsewhere.then_some("told by the client's host");
            rows.push(row([shown(&edge.client), shown(&edge.server), over], &edge.counts, note));
        }
        if let Some(other) = &self.other {
            rows.push(row(
                [format!("other ({} edges)", other.edges), String::new(), String::new()],
                &other.counts,
                None,
            ));
        }
        let mut widths = [0; HEAD.len()];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = columns(cell).max(*width);
            }
        }
        if let Some(width) = width {
            narrow(&mut widths, width);
        }
        let mut out = String::new();
        for row in rows {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
                let cell = cut(cell, width);
                let pad = " ".repeat(width.saturating_sub(columns(&cell)));
                // Numbers stand to the right.
                let (left, right) = if NUMBERS.contains(&at) { (pad.as_str(), "") } else { ("", pad.as_str()) };
                line = line + left + &cell + right + "  ";
            }
            out = out + line.trim_end() + "\n";
        }
        out
    }

    fn dot(&self) -> String {
        let mut out = String::from("digraph weir {\n  rankdir=LR;\n  node [shape=box];\n");
        let ids = self.ids();
        for node in &self.nodes {
            let style = if node.kind == "service" { "" } else { ", style=dashed" };
            let name = quoted(&shown(&node.service));
            let _ = writeln!(out, "  n{} [label=\"{name}\"{style}];", id(&ids, &node.service));
        }
        for edge in &self.edges {
            let color = if edge.counts.errors > 0 { ", color=red" } else { "" };
            let (from, to) = (id(&ids, &edge.client), id(&ids, &edge.server));
            let _ = writeln!(out, "  n{from} -> n{to} [label=\"{}\"{color}];", quoted(&label(edge)));
        }
        out + "}\n"
    }

    fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        let ids = self.ids();
        for node in &self.nodes {
            let (open, close) = if node.kind == "service" { ("[\"", "\"]") } else { ("([\"", "\"])") };
            let name = entities(&shown(&node.service));
            let _ = writeln!(out, "  n{}{open}{name}{close}", id(&ids, &node.service));
        }
        for edge in &self.edges {
            let (from, to) = (id(&ids, &edge.client), id(&ids, &edge.server));
            let _ = writeln!(out, "  n{from} -->|\"{}\"| n{to}", entities(&label(edge)));
        }
        out
    }

    fn ids(&self) -> BTreeMap<&ServiceName, usize> {
        self.nodes.iter().enumerate().map(|(at, node)| (&node.service, at)).collect()
    }
}

fn id(ids: &BTreeMap<&ServiceName, usize>, service: &ServiceName) -> usize {
    ids.get(service).copied().unwrap_or_default()
}

/// Columns of the text. What failed: calls answered wrongly or given up, and connections that were never there.
const HEAD: [&str; 9] = ["CLIENT", "SERVER", "OVER", "CALLS", "CONNS", "FAILED", "P50", "P99", "NOTE"];
/// Those with numbers.
const NUMBERS: std::ops::Range<usize> = 3..8;
/// Columns that a name keeps at least.
const NAME: usize = 10;

fn row([client, server, over]: [String; 3], counts: &Counts, note: Option<&'static str>) -> [String; HEAD.len()] {
    let latency = |of: fn(&super::LatencyRow) -> f64| {
        counts.latency_seconds.as_ref().map_or_else(|| "-".to_owned(), |latency| seconds(of(latency)))
    };
    let some = |count: u64| if count == 0 { "-".to_owned() } else { count.to_string() };
    let mut notes: Vec<String> = note.map(str::to_owned).into_iter().collect();
    if counts.dropped > 0 {
        notes.push(format!("{} dropped", counts.dropped));
    }
    if !counts.via.is_empty() {
        let names: Vec<_> = counts.via.iter().map(|via| shown(&via.service)).collect();
        notes.push(format!("via {}", names.join(" ")));
    }
    if counts.tls {
        notes.push("tls".to_owned());
    }
    [
        client,
        server,
        over,
        some(counts.calls),
        some(counts.connections + counts.open_connections),
        (counts.errors + counts.aborted + counts.failed_connections).to_string(),
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
        notes.join(", "),
    ]
}

/// Cuts columns until all fit into `screen`: the note, then of both names the longer one.
fn narrow(widths: &mut [usize; HEAD.len()], screen: usize) {
    let gaps = 2 * (HEAD.len() - 1);
    let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(screen);
    let [client, server, .., note] = widths;
    let room = note.saturating_sub(HEAD[8].len()).min(over);
    (*note, over) = (*note - room, over - room);
    while over > 0 && (*client).max(*server) > NAME {
        *(if client > server { &mut *client } else { &mut *server }) -= 1;
        over -= 1;
    }
}

fn label(edge: &EdgeRow) -> String {
    let counts = &edge.counts;
    let mut label = format!("{} :{} {} calls", edge.protocol, edge.server_port, counts.calls);
    if counts.errors + counts.aborted > 0 {
        let _ = write!(label, ", {} failed", counts.errors + counts.aborted);
    }
    let connections = counts.connections + counts.open_connections;
    if connections > 0 {
        let _ = write!(label, ", {connections} connections");
    }
    label
}

/// A name with its namespace, without control characters.
fn shown(service: &ServiceName) -> String {
    let plain = |text: &str| text.replace(|c: char| c.is_control() || is_format(c), "\u{fffd}");
    match &service.namespace {
        Some(namespace) => format!("{}/{}", plain(namespace), plain(&service.name)),
        None => plain(&service.name),
    }
}

/// Characters that turn the direction of text or can't be seen (Unicode category Cf, those of them that spoof).
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// For a DOT string.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// For a Mermaid string: everything that is neither a letter, a digit nor plain punctuation by its code.
fn entities(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || matches!(c, ' ' | '.' | ',' | ':' | '-' | '_' | '/') {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}

fn seconds(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0}us", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1}ms", seconds * 1e3)
    } else {
        format!("{seconds:.2}s")
    }
}
