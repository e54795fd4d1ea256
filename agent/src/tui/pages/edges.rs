//! Edges: who calls whom.

use super::super::page::{Calls, Look, Name, Page};
use super::super::rates::rate_cell;
use super::super::table::{Cell, Column, Row, Table, Tone, left, right};
use super::super::wire::{self, Answer};
use crate::model::shown::duration;

const COLUMNS: &[Column] = &[
    left("CLIENT"),
    left("SERVER"),
    right("PORT"),
    left("PROTO"),
    right("CALLS"),
    right("PER S"),
    right("ERR"),
    right("P50"),
    right("P99"),
    right("LAST"),
    right("ABORT"),
    right("FAILED"),
    right("REQ"),
    right("RESP"),
];

/// Of `/v1/graph`; with `of` those of one service, whichever end it is.
pub(in super::super) fn table(graph: &Answer, of: Option<&Name>, look: &mut Look<'_>) -> Table {
    let now = look.now_unix_ns;
    let rows = wire::list(graph.document(), "/edges").iter().filter_map(|edge| {
        let (client, server) = (Name::at(edge, "/client")?, Name::at(edge, "/server")?);
        if of.is_some_and(|of| *of != client && *of != server) {
            return None;
        }
        let port = wire::count(edge, "/server_port")?;
        let protocol = wire::text(edge, "/protocol").unwrap_or("-");
        let space = |name: &Name| name.namespace.clone().unwrap_or_default();
        let key = format!("{} {} {} {} {port} {protocol}", client.name, space(&client), server.name, space(&server));
        let calls = wire::count(edge, "/calls").unwrap_or(0);
        let number = |pointer| wire::count(edge, pointer).unwrap_or(0);
        let last = wire::time(edge, "/last_seen").map(|last| now.saturating_sub(last));
        let cells = vec![
            Cell::text(&client.name),
            Cell::text(&server.name),
            Cell::count(port),
            Cell::text(protocol).tone(if protocol == "http" { Tone::Plain } else { Tone::Warn }),
            Cell::count(calls),
            wire::float(edge, "/calls_per_second").map_or_else(Cell::none, rate_cell),
            wire::bad_cell(number("/errors")),
            wire::seconds_cell(wire::float(edge, "/latency_seconds/p50")),
            wire::seconds_cell(wire::float(edge, "/latency_seconds/p99")),
            last.map_or_else(Cell::none, |age| Cell::number(age as f64, duration(age))),
            wire::bad_cell(number("/aborted")),
            wire::bad_cell(number("/failed_connections")),
            wire::bytes_cell(wire::count(edge, "/request_bytes")),
            wire::bytes_cell(wire::count(edge, "/response_bytes")),
        ];
        let by_server = wire::list(edge, "/observed_by").iter().any(|end| end == "server");
        let opens = Some(Page::Calls(Calls::Edge { client, server, port, by_server }));
        Some(Row { key, cells, opens })
    });
    Table { title: "Edges", columns: COLUMNS, rows: rows.collect() }
}
