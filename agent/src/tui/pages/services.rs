//! Services: what each answers and asks.

use std::collections::BTreeMap;

use super::super::page::{Look, Name, Page};
use super::super::table::{Cell, Column, Row, Table, left, right};
use super::super::wire::{self, Answer};

const COLUMNS: &[Column] = &[
    left("SERVICE"),
    right("IN"),
    right("IN/S"),
    right("IN ERR"),
    right("AVG"),
    right("OUT"),
    right("OUT/S"),
    right("OUT ERR"),
    right("PROCS"),
    left("NAMED BY"),
    left("NAMESPACE"),
    left("UNIT"),
];

/// Calls of one side.
#[derive(Clone, Copy, Default)]
struct Side {
    calls: u64,
    errors: u64,
    seconds: f64,
}

#[derive(Default)]
struct Sums {
    inward: Side,
    outward: Side,
    row: serde_json::Value,
}

/// Of `/v1/services` and `/v1/endpoints`: a service that is only in one of them is there all the same.
pub(in super::super) fn table(services: &Answer, endpoints: &Answer, look: &mut Look<'_>) -> Table {
    let mut sums: BTreeMap<Name, Sums> = BTreeMap::new();
    for row in &services.rows {
        if let Some(name) = Name::at(row, "/service") {
            sums.entry(name).or_default().row = row.clone();
        }
    }
    for row in &endpoints.rows {
        let Some(name) = Name::at(row, "/service") else { continue };
        let sum = sums.entry(name).or_default();
        let side = match wire::text(row, "/kind") {
            Some("server") => &mut sum.inward,
            Some("client") => &mut sum.outward,
            _ => continue,
        };
        side.calls += wire::count(row, "/calls").unwrap_or(0);
        side.errors += wire::count(row, "/errors").unwrap_or(0);
        side.seconds += wire::float(row, "/seconds").unwrap_or(0.0);
    }
    let mut rows: Vec<_> = sums.into_iter().collect();
    // Equals of whatever column: the busiest first.
    rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.inward.calls + sum.outward.calls));
    let rows = rows.into_iter().map(|(name, sum)| row(name, &sum, look)).collect();
    Table { title: "Services", columns: COLUMNS, rows }
}

fn row(name: Name, sum: &Sums, look: &mut Look<'_>) -> Row {
    let key = format!("{} {}", name.name, name.namespace.as_deref().unwrap_or_default());
    let Side { calls, errors, seconds } = sum.inward;
    let cells = vec![
        Cell::text(&name.name),
        Cell::count(calls),
        look.rates.cell(&format!("in {key}"), calls),
        wire::bad_cell(errors),
        wire::seconds_cell((calls > 0).then(|| seconds / calls as f64)),
        Cell::count(sum.outward.calls),
        look.rates.cell(&format!("out {key}"), sum.outward.calls),
        wire::bad_cell(sum.outward.errors),
        wire::count_cell(&sum.row, "/processes"),
        wire::text_cell(&sum.row, "/evidence"),
        wire::text_cell(&sum.row, "/service/service.namespace"),
        wire::text_cell(&sum.row, "/unit"),
    ];
    Row { key, cells, opens: Some(Page::Service(name)) }
}
