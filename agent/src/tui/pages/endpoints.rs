//! Endpoints: methods and routes of services.

use super::super::page::{Calls, Look, Name, Page};
use super::super::table::{Cell, Column, Row, Table, Tone, left, right};
use super::super::wire::{self, Answer};

const COLUMNS: &[Column] = &[
    left("SERVICE"),
    left("SIDE"),
    left("METHOD"),
    left("ROUTE"),
    right("CALLS"),
    right("PER S"),
    right("ERR"),
    right("AVG"),
    right("P99 <="),
    right("IN"),
    right("OUT"),
];

/// Of `/v1/endpoints`; with `of` those of one service.
pub(in super::super) fn table(endpoints: &Answer, of: Option<&Name>, look: &mut Look<'_>) -> Table {
    let rows = endpoints.rows.iter().filter_map(|row| {
        let service = Name::at(row, "/service")?;
        if of.is_some_and(|of| *of != service) {
            return None;
        }
        let text = |pointer| wire::text(row, pointer).map(str::to_owned);
        let (side, method, route) = (text("/kind")?, text("/method"), text("/route"));
        let namespace = service.namespace.as_deref().unwrap_or_default();
        let key = format!("{side} {} {namespace} {method:?} {route:?}", service.name);
        let calls = wire::count(row, "/calls").unwrap_or(0);
        let average = wire::float(row, "/seconds").filter(|_| calls > 0).map(|seconds| seconds / calls as f64);
        let slowest = match wire::float(row, "/p99_at_most_seconds") {
            None => Cell::number(f64::INFINITY, ">10s".into()).tone(Tone::Warn),
            some => wire::seconds_cell(some),
        };
        let server_side = side == "server";
        let (request, response) = (wire::count(row, "/request_bytes"), wire::count(row, "/response_bytes"));
        let (inward, outward) = if server_side { (request, response) } else { (response, request) };
        let cells = vec![
            Cell::text(&service.name),
            Cell::text(&side),
            method.as_deref().map_or_else(|| Cell::text("(others)").tone(Tone::Dim), Cell::text),
            route.as_deref().map_or_else(wire::dash, Cell::text),
            Cell::count(calls),
            look.rates.cell(&format!("endpoint {key}"), calls),
            wire::bad_cell(wire::count(row, "/errors").unwrap_or(0)),
            wire::seconds_cell(average),
            slowest,
            wire::bytes_cell(inward),
            wire::bytes_cell(outward),
        ];
        let opens = Some(Page::Calls(Calls::Endpoint { service, server_side, method, route }));
        Some(Row { key, cells, opens })
    });
    Table { title: "Endpoints", columns: COLUMNS, rows: rows.collect() }
}
