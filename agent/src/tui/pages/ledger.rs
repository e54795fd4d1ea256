//! The agent's account of itself.

use serde_json::Value;

use super::super::page::Look;
use super::super::table::{Cell, Column, Row, Table, Tone, left, right};
use super::super::wire;
use crate::model::shown::duration;

const COUNTS: &[Column] = &[left("STAGE"), left("REASON"), right("COUNT"), right("PER S")];
const RECENT: &[Column] = &[left("WHERE"), right("CALLS"), right("USED"), right("LIMIT"), right("LOST"), left("NOTE")];
const EXPORTED: &[Column] = &[left("SIGNAL"), left("RESULT"), right("COUNT"), right("PER S")];
const PROGRAMS: &[Column] = &[left("PROGRAM"), left("STATE"), right("RUNS"), right("PER S"), right("EACH")];

/// Of `/v1/stats`.
pub(in super::super) fn tables(stats: &Value, look: &mut Look<'_>) -> Vec<Table> {
    vec![
        counts(stats, "messages", "Messages, in segments: seen = delivered + filtered + lost", look),
        counts(stats, "calls", "Calls", look),
        counts(stats, "events", "Other events", look),
        Table { title: "Recent calls", columns: RECENT, rows: recent(stats) },
        exported(stats, look),
        programs(stats, look),
    ]
}

fn counts(stats: &Value, section: &str, title: &'static str, look: &mut Look<'_>) -> Table {
    let rows = wire::list(stats, &format!("/{section}")).iter().map(|row| {
        let (stage, reason) = (wire::text(row, "/stage").unwrap_or("-"), wire::text(row, "/reason").unwrap_or("-"));
        let count = wire::count(row, "/count").unwrap_or(0);
        let key = format!("{section} {stage} {reason}");
        let tone = match (stage, count) {
            (_, 0) => Tone::Dim,
            ("lost", _) => Tone::Bad,
            _ => Tone::Plain,
        };
        let rate = look.rates.cell(&key, count);
        let cells = vec![Cell::text(stage).tone(tone), Cell::text(reason), Cell::count(count).tone(tone), rate];
        Row { key, cells, opens: None }
    });
    Table { title, columns: COUNTS, rows: rows.collect() }
}

fn recent(stats: &Value) -> Vec<Row> {
    let row = |store: &Value, place: Cell, note: Cell| {
        let number = |pointer| wire::count(store, pointer);
        let cells = vec![
            place,
            wire::count_cell(store, "/calls"),
            wire::bytes_cell(number("/bytes")),
            wire::bytes_cell(number("/limit")),
            number("/lost").map_or_else(Cell::none, wire::bad_cell),
            note,
        ];
        cells
    };
    let Some(memory) = stats.get("recent").filter(|memory| memory.is_object()) else { return Vec::new() };
    let since = wire::text(memory, "/oldest").map_or_else(wire::dash, |oldest| Cell::text(&format!("since {oldest}")));
    let mut rows = vec![row(memory, Cell::text("memory"), since)];
    if let Some(disk) = memory.get("disk").filter(|disk| disk.is_object()) {
        rows.push(row(disk, wire::text_cell(disk, "/path"), wire::text_cell(disk, "/error").tone(Tone::Bad)));
    }
    let rows = rows.into_iter().enumerate();
    rows.map(|(place, cells)| Row { key: format!("recent {place}"), cells, opens: None }).collect()
}

fn exported(stats: &Value, look: &mut Look<'_>) -> Table {
    // Who exports nothing has nothing to look at here.
    let used = wire::list(stats, "/exported").iter().filter(|row| wire::count(row, "/count").unwrap_or(0) > 0);
    let rows = used.map(|row| {
        let word = |pointer| wire::text(row, pointer).unwrap_or("-");
        let count = wire::count(row, "/count").unwrap_or(0);
        let key = format!("exported {} {}", word("/signal"), word("/result"));
        let rate = look.rates.cell(&key, count);
        let cells = vec![Cell::text(word("/signal")), Cell::text(word("/result")), Cell::count(count), rate];
        Row { key, cells, opens: None }
    });
    Table { title: "Exported", columns: EXPORTED, rows: rows.collect() }
}

fn programs(stats: &Value, look: &mut Look<'_>) -> Table {
    let rows = wire::list(stats, "/programs").iter().map(|row| {
        let program = wire::text(row, "/program").unwrap_or("-");
        let state = [wire::text(row, "/state"), wire::text(row, "/why")].into_iter().flatten().collect::<Vec<_>>();
        let tone = if state.first() == Some(&"attached") { Tone::Good } else { Tone::Warn };
        // Counted while `kernel.bpf_stats_enabled` is 1.
        let runs = wire::count(row, "/runs/count").filter(|runs| *runs > 0);
        let each = runs.zip(wire::count(row, "/runs/ns")).map(|(runs, ns)| ns / runs);
        let key = format!("program {program}");
        let cells = vec![
            Cell::text(program),
            Cell::text(&state.join(" ")).tone(tone),
            runs.map_or_else(Cell::none, Cell::count),
            runs.map_or_else(Cell::none, |runs| look.rates.cell(&key, runs)),
            each.map_or_else(Cell::none, |ns| Cell::number(ns as f64, duration(ns))),
        ];
        Row { key, cells, opens: None }
    });
    Table { title: "Programs", columns: PROGRAMS, rows: rows.collect() }
}
