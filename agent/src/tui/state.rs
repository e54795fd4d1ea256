//! What is shown, and where its user is in it.

use std::collections::HashMap;

use ratatui::crossterm::event::KeyEvent;

use super::page::{Page, TABS};
use super::table::{Sort, Table};

/// Lines around a page's rows: header, tabs, the page's own line, and the keys at the end.
const AROUND: u16 = 4;

/// What happens to it.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has these columns and lines.
    Size(u16, u16),
    /// The agent answered.
    News(Box<News>),
    /// It did not; why.
    Away(String),
    /// A second is over.
    Second,
    /// Somebody wants this process to end.
    Quit,
    /// The terminal can't be read any more; why.
    Gone(String),
}

/// A look at the agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct News {
    /// For which page.
    pub(super) page: Page,
    /// What the agent says of itself.
    pub(super) header: Header,
    /// The page.
    pub(super) tables: Vec<Table>,
    /// Lines that were no JSON.
    pub(super) unreadable: usize,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Header {
    pub(super) version: String,
    pub(super) uptime_seconds: Option<f64>,
    /// Calls assembled since it started.
    pub(super) calls: u64,
    pub(super) calls_rate: Option<f64>,
    /// Messages and calls that were lost.
    pub(super) lost: u64,
    /// Of one processor, 0 to 1 and beyond.
    pub(super) processor: Option<f64>,
    /// Resident, bytes.
    pub(super) memory: Option<u64>,
}

/// A page in view, and where its user is in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Visit {
    pub(super) page: Page,
    pub(super) filter: String,
    pub(super) sort: Option<Sort>,
    /// Row that was gone to: table and key; none: the first, whichever it is.
    pub(super) chosen: Option<(usize, String)>,
    /// Where that is among the page's rows; where it was, when it is gone.
    pub(super) at: usize,
    /// First line of the page in view.
    pub(super) top: usize,
}

impl Visit {
    /// Comes to a page.
    pub(super) fn to(page: Page) -> Self {
        Self { filter: String::new(), sort: page.sort(), chosen: None, at: 0, top: 0, page }
    }
}

/// A line of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Blank,
    /// Of a table: its title.
    Title(usize),
    /// Of a table: its headings.
    Head(usize),
    /// Of a table: a row.
    Row(usize, usize),
}

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Visits to [`TABS`].
    pub(super) tabs: Vec<Visit>,
    /// Which of them is in view, or where one went deeper from.
    pub(super) tab: usize,
    /// Deeper and deeper.
    pub(super) deeper: Vec<Visit>,
    /// What the agent told of pages.
    pub(super) data: HashMap<Page, Vec<Table>>,
    pub(super) header: Option<Header>,
    /// Why the agent does not answer.
    pub(super) away: Option<String>,
    pub(super) unreadable: usize,
    /// Seconds since the agent last answered, or said that it does not.
    pub(super) silent: u64,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// The filter is being typed.
    pub(super) typing: bool,
    /// Columns and lines of the terminal.
    pub(super) size: (u16, u16),
}

impl State {
    /// At the first page, on a terminal of this size.
    pub(super) fn new(size: (u16, u16)) -> Self {
        Self {
            tabs: TABS.into_iter().map(Visit::to).collect(),
            tab: 0,
            deeper: Vec::new(),
            data: HashMap::new(),
            header: None,
            away: None,
            unreadable: 0,
            silent: 0,
            paused: false,
            help: false,
            typing: false,
            size,
        }
    }

    /// The page in view.
    pub(super) fn visit(&self) -> Option<&Visit> {
        self.deeper.last().or_else(|| self.tabs.get(self.tab))
    }

    pub(super) fn visit_mut(&mut self) -> Option<&mut Visit> {
        self.deeper.last_mut().or_else(|| self.tabs.get_mut(self.tab))
    }

    /// Its tables; none: nothing was told yet.
    pub(super) fn tables(&self) -> Option<&[Table]> {
        self.data.get(&self.visit()?.page).map(Vec::as_slice)
    }

    /// The page's lines; the headings of a single table stand above them and are not among them.
    pub(super) fn lines(&self) -> Vec<Line> {
        let (Some(tables), Some(visit)) = (self.tables(), self.visit()) else { return Vec::new() };
        let mut lines = Vec::new();
        for (place, table) in tables.iter().enumerate() {
            let rows = table.arranged(visit.sort, &visit.filter);
            if tables.len() > 1 {
                if rows.is_empty() && (place > 0 || !visit.filter.is_empty()) {
                    continue;
                }
                if !lines.is_empty() {
                    lines.push(Line::Blank);
                }
                lines.extend([Line::Title(place), Line::Head(place)]);
            }
            lines.extend(rows.into_iter().map(|row| Line::Row(place, row)));
        }
        lines
    }

    /// Lines that there are for [`State::lines`].
    pub(super) fn room(&self) -> usize {
        let head = u16::from(self.tables().is_some_and(|tables| tables.len() == 1));
        usize::from(self.size.1.saturating_sub(AROUND + head))
    }

    /// Headings by which the page may be sorted.
    pub(super) fn headings(&self) -> Vec<&'static str> {
        let columns = self.tables().unwrap_or_default().iter().flat_map(|table| table.columns);
        let mut headings = Vec::new();
        for column in columns {
            if !headings.contains(&column.heading) {
                headings.push(column.heading);
            }
        }
        headings
    }

    /// Brings the chosen row into view, after whatever happened.
    pub(super) fn settle(&mut self) {
        let (lines, room) = (self.lines(), self.room().max(1));
        let rows: Vec<(usize, usize, usize)> = lines
            .iter()
            .enumerate()
            .filter_map(|(line, of)| if let Line::Row(table, row) = of { Some((line, *table, *row)) } else { None })
            .collect();
        let found = self.visit().and_then(|visit| {
            let (table, key) = visit.chosen.as_ref()?;
            let tables = self.tables()?;
            rows.iter().position(|(_, of, row)| {
                of == table && tables.get(*of).and_then(|table| table.rows.get(*row)).is_some_and(|row| row.key == *key)
            })
        });
        let Some(visit) = self.visit_mut() else { return };
        visit.at = match &visit.chosen {
            None => 0,
            Some(_) => found.unwrap_or(visit.at).min(rows.len().saturating_sub(1)),
        };
        let line = rows.get(visit.at).map_or(0, |(line, ..)| *line);
        // With the first row its headings come into view.
        let first = if visit.at == 0 { 0 } else { line };
        visit.top = visit.top.min(first).max((line + 1).saturating_sub(room)).min(lines.len().saturating_sub(room));
    }

    /// The row at a place among the page's rows.
    pub(super) fn row(&self, at: usize) -> Option<(usize, &super::table::Row)> {
        let rows = self.lines().into_iter().filter_map(|line| match line {
            Line::Row(table, row) => Some((table, row)),
            _ => None,
        });
        let (table, row) = rows.into_iter().nth(at)?;
        Some((table, self.tables()?.get(table)?.rows.get(row)?))
    }

    /// How many rows are in view and beyond, and how many there are without the filter.
    pub(super) fn counts(&self) -> (usize, usize) {
        let shown = self.lines().iter().filter(|line| matches!(line, Line::Row(..))).count();
        let all = self.tables().unwrap_or_default().iter().map(|table| table.rows.len()).sum();
        (shown, all)
    }
}
