//! Drop rules, what the kernel half did of them, and whom the allow-list saved.

use serde_json::Value;

use super::super::page::Look;
use super::super::table::{Cell, Column, Row, Table, Tone, left, right, tail};
use super::super::wire::{self, Answer};
use crate::model::shown::duration;

const RULES: &[Column] = &[
    left("RULE"),
    left("ACTION"),
    left("MODE"),
    right("HITS"),
    right("PER S"),
    right("LAST"),
    right("ENDS IN"),
    left("MEETS"),
    left("REASON"),
    left("SOURCE"),
];

const GATE: &[Column] = &[left("COUNTER"), right("COUNT"), right("PER S")];
const ALLOWED: &[Column] = &[tail("ADDRESS"), left("WHAT"), right("SAVED")];

/// Conditions of a rule, as `weir block list` tells them.
const CONDITIONS: [&str; 9] = [
    "client.address",
    "client.addresses",
    "client.who",
    "server.who",
    "server.address",
    "server.port",
    "method",
    "path",
    "host",
];

/// Of `/v1/blocks` and `/v1/mode`.
pub(in super::super) fn tables(blocks: &Answer, mode: &Answer, look: &mut Look<'_>) -> Vec<Table> {
    let rows = blocks.rows.iter().filter_map(|row| rule(row, look)).collect();
    let title = match wire::text(mode.document(), "/mode") {
        Some("enforce") => "Drop rules; the node's mode is enforce",
        Some("monitor") => "Drop rules; the node's mode is monitor: nothing is dropped",
        _ => "Drop rules",
    };
    let saved = wire::list(mode.document(), "/allow_list").iter().filter_map(|row| {
        let address = wire::text(row, "/address")?;
        let cells = vec![Cell::text(address), wire::text_cell(row, "/what"), wire::count_cell(row, "/saved")];
        Some(Row { key: format!("allowed {address} {:?}", wire::text(row, "/what")), cells, opens: None })
    });
    let allowed = Table { title: "Allow-list: calls that it saved", columns: ALLOWED, rows: saved.collect() };
    let gate = mode.document().get("gate").and_then(Value::as_object).into_iter().flatten();
    let gate = gate.filter_map(|(counter, count)| {
        let (count, key) = (count.as_u64()?, format!("gate {counter}"));
        let rate = look.rates.cell(&key, count);
        Some(Row { key, cells: vec![Cell::text(counter), Cell::count(count), rate], opens: None })
    });
    let gate = Table { title: "Gate: what the kernel half did", columns: GATE, rows: gate.collect() };
    vec![Table { title, columns: RULES, rows }, gate, allowed]
}

fn rule(row: &Value, look: &mut Look<'_>) -> Option<Row> {
    let id = wire::text(row, "/id")?;
    let now = look.now_unix_ns;
    let hits = wire::count(row, "/hits").unwrap_or(0);
    let age = |time: Option<u64>, age: &dyn Fn(u64) -> u64| {
        time.map_or_else(Cell::none, |time| Cell::number(age(time) as f64, duration(age(time))))
    };
    let conditions = CONDITIONS.iter().filter_map(|key| Some(format!("{key}={}", words(row.get(*key)?))));
    let mode = wire::text(row, "/effective_mode").unwrap_or("-");
    let cells = vec![
        Cell::text(id),
        wire::text_cell(row, "/action"),
        Cell::text(mode).tone(if mode == "enforce" { Tone::Bad } else { Tone::Plain }),
        Cell::count(hits).tone(if hits > 0 { Tone::Warn } else { Tone::Dim }),
        look.rates.cell(&format!("rule {id}"), hits),
        age(wire::time(row, "/last_hit"), &|time| now.saturating_sub(time)),
        age(wire::time(row, "/until"), &|time| time.saturating_sub(now)),
        Cell::text(&conditions.collect::<Vec<_>>().join(" ")),
        wire::text_cell(row, "/reason"),
        wire::text_cell(row, "/source"),
    ];
    Some(Row { key: id.to_owned(), cells, opens: None })
}

/// Alternatives, separated by commas.
fn words(value: &Value) -> String {
    match value {
        Value::Array(list) => list.iter().map(words).collect::<Vec<_>>().join(","),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
