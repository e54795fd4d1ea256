//! Live connections.

use super::super::page::Look;
use super::super::table::{Cell, Column, Row, Table, Tone, left, right, tail};
use super::super::wire::{self, Answer};
use crate::model::shown::duration;

const COLUMNS: &[Column] = &[
    left("SERVICE"),
    left("ROLE"),
    tail("LOCAL"),
    tail("REMOTE"),
    left("PEER"),
    left("PROTO"),
    right("CALLS"),
    right("IN"),
    right("OUT"),
    left("SEEN"),
    right("AGE"),
];

/// Of `/v1/connections`.
pub(in super::super) fn table(connections: &Answer, look: &mut Look<'_>) -> Table {
    let now = look.now_unix_ns;
    let mut rows: Vec<Row> = connections.rows.iter().map(|row| one(row, now)).collect();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    Table { title: "Connections", columns: COLUMNS, rows }
}

fn one(row: &serde_json::Value, now: u64) -> Row {
    let visibility = wire::text(row, "/visibility").unwrap_or("-");
    let seen = match wire::text(row, "/weir.opaque.reason") {
        Some(reason) => Cell::text(&format!("{visibility}: {reason}")).tone(Tone::Warn),
        None => Cell::text(visibility),
    };
    let age = wire::time(row, "/opened").map(|opened| now.saturating_sub(opened));
    let cells = vec![
        wire::text_cell(row, "/service/service.name"),
        wire::text_cell(row, "/role"),
        wire::text_cell(row, "/local"),
        wire::text_cell(row, "/remote"),
        wire::text_cell(row, "/peer/service.name"),
        wire::text_cell(row, "/protocol"),
        wire::count_cell(row, "/calls"),
        wire::bytes_cell(wire::count(row, "/bytes_received")),
        wire::bytes_cell(wire::count(row, "/bytes_sent")),
        seen,
        age.map_or_else(Cell::none, |age| Cell::number(age as f64, duration(age))),
    ];
    let word = |pointer| wire::text(row, pointer).unwrap_or_default();
    let key = format!("{} {} {}", word("/local"), word("/remote"), wire::count(row, "/cookie").unwrap_or(0));
    Row { key, cells, opens: None }
}
