//! The state on a screen; nothing is decided here.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::style::{Modifier, Style};

use super::fit::{self, Fitted};
use super::help::KEYS;
use super::page::TABS;
use super::paper::{Look, Paper};
use super::state::{Header, Line, State, Visit};
use super::table::{Stand, Table, Tone};
use crate::model::shown::{bytes, figures, harmless, seconds};

/// From so many seconds on it is said that the agent does not answer.
const SILENT: u64 = 3;

/// Draws it.
pub(super) fn draw(state: &State, look: Look, frame: &mut Frame<'_>) {
    let mut paper = Paper { frame, look };
    paper.put_line(0, &header(state.header.as_ref(), state.paused), look.title());
    tabs(state, &mut paper);
    match alarm(state) {
        Some(text) => paper.put_line(2, &text, look.alarm()),
        None => paper.put_line(2, &place(state), Style::new()),
    }
    if state.help {
        help(&mut paper);
    } else {
        body(state, &mut paper);
    }
    foot(state, &mut paper);
}

fn header(header: Option<&Header>, paused: bool) -> String {
    let Some(header) = header else { return "weir top".into() };
    let words = [
        Some(format!("weir {}", harmless(&header.version))),
        header.uptime_seconds.map(|up| format!("up {}", seconds(up))),
        Some(format!("calls {}", header.calls)),
        header.calls_rate.map(|rate| format!("{}/s", figures(rate))),
        Some(format!("lost {}", header.lost)),
        header.processor.map(|share| format!("cpu {}%", figures(share * 100.0))),
        header.memory.map(|memory| format!("mem {}", bytes(memory))),
        paused.then(|| "PAUSED".to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

fn tabs(state: &State, paper: &mut Paper<'_, '_>) {
    let mut column = 0;
    for (place, page) in TABS.iter().enumerate() {
        let style = if place == state.tab { paper.look.chosen() } else { Style::new() };
        column = paper.put(1, column, &format!(" {} {} ", place + 1, page.title()), style);
    }
}

fn alarm(state: &State) -> Option<String> {
    match &state.away {
        Some(why) => Some(harmless(why)),
        None if state.silent >= SILENT => Some(format!("no answer from the agent for {} s", state.silent)),
        None => None,
    }
}

/// Where one is, how many rows there are, which, in which order.
fn place(state: &State) -> String {
    let Some(visit) = state.visit() else { return String::new() };
    let tab = state.tabs.get(state.tab).filter(|_| !state.deeper.is_empty());
    let way: Vec<String> = tab.into_iter().chain(&state.deeper).map(|visit| visit.page.title()).collect();
    let way = if way.is_empty() { visit.page.title() } else { way.join(" › ") };
    let (shown, all) = state.counts();
    let mut text = match (state.tables(), visit.filter.is_empty()) {
        (None, _) => format!("{way}: asking the agent"),
        (_, true) => format!("{way}: {all}"),
        (_, false) => format!("{way}: {shown} of {all} with \"{}\"", visit.filter),
    };
    if let Some(sort) = visit.sort {
        let _ = write!(text, ", by {}{}", sort.heading, if sort.reverse { " reversed" } else { "" });
    }
    if state.unreadable > 0 {
        let _ = write!(text, "; {} lines of the agent's could not be read", state.unreadable);
    }
    text
}

fn body(state: &State, paper: &mut Paper<'_, '_>) {
    let (Some(tables), Some(visit)) = (state.tables(), state.visit()) else { return };
    let (lines, room) = (state.lines(), state.room());
    let mut at = 3;
    let fitted: Vec<Fitted> = (0..tables.len()).map(|place| fitted(tables, place, &lines, paper.columns())).collect();
    if let ([table], [fitted]) = (tables, fitted.as_slice()) {
        head(table, fitted, visit, at, paper);
        at += 1;
    }
    if !lines.iter().any(|line| matches!(line, Line::Row(..))) {
        let text = if visit.filter.is_empty() { visit.page.empty() } else { "no row has this text" };
        paper.put(at + lines.len(), 0, text, paper.look.tone(Tone::Dim));
    }
    let chosen = state.row(visit.at).map(|(table, row)| (table, row.key.as_str()));
    for (line, of) in lines.iter().skip(visit.top).take(room).enumerate() {
        match *of {
            Line::Blank => {}
            Line::Title(table) => {
                let title = tables.get(table).map_or("", |table| table.title);
                paper.put(at + line, 0, title, paper.look.title());
            }
            Line::Head(place) => {
                if let (Some(table), Some(fitted)) = (tables.get(place), fitted.get(place)) {
                    head(table, fitted, visit, at + line, paper);
                }
            }
            Line::Row(place, row) => {
                let row = tables.get(place).and_then(|table| Some((table, table.rows.get(row)?)));
                let (Some((table, row)), Some(fitted)) = (row, fitted.get(place)) else { continue };
                let chosen = chosen == Some((place, row.key.as_str()));
                let cells = row.cells.iter().map(|cell| (cell.text.as_str(), cell.tone));
                cells_of(table, fitted, cells, chosen.then(|| paper.look.chosen()), at + line, paper);
            }
        }
    }
}

/// A table's columns for the rows that its filter leaves.
fn fitted(tables: &[Table], place: usize, lines: &[Line], screen: usize) -> Fitted {
    let Some(table) = tables.get(place) else { return Fitted { widths: Vec::new(), gap: 1 } };
    let mut widest = vec![0; table.columns.len()];
    for line in lines {
        let Line::Row(of, row) = line else { continue };
        let Some(row) = table.rows.get(*row).filter(|_| *of == place) else { continue };
        for (widest, cell) in widest.iter_mut().zip(&row.cells) {
            let width = if cell.text == "-" { 0 } else { fit::width(&cell.text) };
            *widest = width.max(*widest);
        }
    }
    fit::columns(table.columns, &widest, screen)
}

fn head(table: &Table, fitted: &Fitted, visit: &Visit, line: usize, paper: &mut Paper<'_, '_>) {
    paper.put_line(line, "", paper.look.head());
    let sorted = visit.sort.map(|sort| sort.heading);
    let mut column = 0;
    for (of, width) in table.columns.iter().zip(&fitted.widths).filter(|(_, width)| **width > 0) {
        let style = if sorted == Some(of.heading) {
            paper.look.head().add_modifier(Modifier::REVERSED)
        } else {
            paper.look.head()
        };
        // Headings are cut at their end whatever their cells are.
        let stand = if of.stand == Stand::Right { Stand::Right } else { Stand::Left };
        column = paper.put(line, column, &fit::fit(of.heading, *width, stand), style) + fitted.gap;
    }
}

fn cells_of<'a>(
    table: &Table,
    fitted: &Fitted,
    cells: impl Iterator<Item = (&'a str, Tone)>,
    chosen: Option<Style>,
    line: usize,
    paper: &mut Paper<'_, '_>,
) {
    if let Some(style) = chosen {
        paper.put_line(line, "", style);
    }
    let mut column = 0;
    let cells = cells.zip(table.columns).zip(&fitted.widths).filter(|(_, width)| **width > 0);
    for (((text, tone), of), width) in cells {
        let style = chosen.unwrap_or_else(|| paper.look.tone(tone));
        column = paper.put(line, column, &fit::fit(text, *width, of.stand), style) + fitted.gap;
    }
}

fn help(paper: &mut Paper<'_, '_>) {
    for (line, (keys, what)) in KEYS.iter().enumerate() {
        let end = paper.put(4 + line, 1, &fit::fit(keys, 26.max(fit::width(keys)), Stand::Left), paper.look.title());
        paper.put(4 + line, end + 2, what, Style::new());
    }
}

fn foot(state: &State, paper: &mut Paper<'_, '_>) {
    const FOOT: [(&str, &str); 8] = [
        ("F1", "Help"),
        ("/", "Filter"),
        ("F6", "Sort"),
        ("S", "Reverse"),
        ("Enter", "Open"),
        ("Esc", "Back"),
        ("Space", "Pause"),
        ("q", "Quit"),
    ];
    let Some(line) = paper.lines().checked_sub(1) else { return };
    if state.typing {
        let filter = state.visit().map_or("", |visit| visit.filter.as_str());
        // Its end is what is being typed.
        let text = format!("/{filter}_");
        let stand = if fit::width(&text) > paper.columns() { Stand::Tail } else { Stand::Left };
        let text = fit::fit(&text, paper.columns(), stand);
        paper.put(line, 0, &text, paper.look.title());
        return;
    }
    let mut column = 0;
    for (key, what) in FOOT {
        let end = paper.put(line, column, key, paper.look.title());
        column = paper.put(line, end + 1, what, Style::new()) + 2;
    }
}
