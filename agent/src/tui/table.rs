//! Tables as pages make them: columns, rows, and in which order and which of them are shown.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::page::Page;
use crate::model::shown::harmless;

/// How a column stands and is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Text, cut at its end.
    Left,
    /// Numbers, never cut.
    Right,
    /// Addresses, cut at their beginning: the end is the port.
    Tail,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// What stands above it; sorting names it so.
    pub(super) heading: &'static str,
    /// How it stands.
    pub(super) stand: Stand,
}

/// A column of text.
pub(super) const fn left(heading: &'static str) -> Column {
    Column { heading, stand: Stand::Left }
}

/// A column of numbers.
pub(super) const fn right(heading: &'static str) -> Column {
    Column { heading, stand: Stand::Right }
}

/// A column of addresses.
pub(super) const fn tail(heading: &'static str) -> Column {
    Column { heading, stand: Stand::Tail }
}

/// How something is coloured, where colours are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// An error.
    Bad,
    /// Beside the point.
    Dim,
}

/// A cell; its text is harmless.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    /// What is shown.
    pub(super) text: String,
    /// What numbers are ordered by; texts by themselves.
    pub(super) number: Option<f64>,
    /// Colour.
    pub(super) tone: Tone,
}

impl Cell {
    /// A text from wherever.
    pub(super) fn text(text: &str) -> Self {
        Self { text: harmless(text), number: None, tone: Tone::Plain }
    }

    /// A number and how it is written.
    pub(super) fn number(number: f64, text: String) -> Self {
        Self { text, number: Some(number), tone: Tone::Plain }
    }

    /// A count.
    pub(super) fn count(count: u64) -> Self {
        Self::number(count as f64, count.to_string())
    }

    /// A number that is not known: below all others.
    pub(super) fn none() -> Self {
        Self { tone: Tone::Dim, ..Self::number(f64::NEG_INFINITY, "-".into()) }
    }

    /// With a colour.
    pub(super) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (Some(number), Some(other)) => number.total_cmp(&other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.text.cmp(&other.text),
        }
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// What makes it the same row at the next look.
    pub(super) key: String,
    /// A cell a column.
    pub(super) cells: Vec<Cell>,
    /// What Enter leads to.
    pub(super) opens: Option<Page>,
}

/// What a page shows, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// Stands above it where a page has several.
    pub(super) title: &'static str,
    /// Columns.
    pub(super) columns: &'static [Column],
    /// Rows in their natural order, which is kept among equals.
    pub(super) rows: Vec<Row>,
}

/// By which column rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    /// The column's heading.
    pub(super) heading: &'static str,
    /// Against its own direction: numbers begin with the greatest, texts with A.
    pub(super) reverse: bool,
}

impl Table {
    /// Tells rows with the same key apart by their serial among them, so that each can be gone to.
    pub(super) fn tell_apart(&mut self) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for row in &mut self.rows {
            let serial = seen.entry(row.key.clone()).or_default();
            *serial += 1;
            if *serial > 1 {
                row.key = format!("{} #{serial}", row.key);
            }
        }
    }

    /// Places of the rows that have `filter` in one of their cells, whatever its case, in order.
    pub(super) fn arranged(&self, sort: Option<Sort>, filter: &str) -> Vec<usize> {
        let wanted = filter.to_lowercase();
        let fits = |row: &Row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&wanted));
        let rows = self.rows.iter().enumerate();
        let mut places: Vec<usize> =
            rows.filter(|(_, row)| wanted.is_empty() || fits(row)).map(|(place, _)| place).collect();
        let column = |sort: Sort| self.columns.iter().position(|column| column.heading == sort.heading);
        if let Some((sort, column)) = sort.and_then(|sort| Some((sort, column(sort)?))) {
            let down = sort.reverse != self.columns.get(column).is_some_and(|column| column.stand == Stand::Right);
            let cell = |place: usize| self.rows.get(place).and_then(|row| row.cells.get(column));
            places.sort_by(|a, b| {
                let order = match (cell(*a), cell(*b)) {
                    (Some(a), Some(b)) => a.compare(b),
                    (a, b) => a.is_some().cmp(&b.is_some()),
                };
                if down { order.reverse() } else { order }
            });
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        const COLUMNS: &[Column] = &[left("NAME"), right("N")];
        let row =
            |name: &str, number: Cell| Row { key: name.into(), cells: vec![Cell::text(name), number], opens: None };
        let rows = vec![
            row("Beta", Cell::count(9)),
            row("alpha", Cell::count(10)),
            row("gamma", Cell::none()),
            row("delta", Cell::count(9)),
        ];
        Table { title: "", columns: COLUMNS, rows }
    }

    fn by(heading: &'static str, reverse: bool) -> Sort {
        Sort { heading, reverse }
    }

    #[test]
    fn numbers_begin_with_the_greatest_and_texts_with_a() {
        let table = table();
        assert_eq!(table.arranged(None, ""), [0, 1, 2, 3]);
        assert_eq!(table.arranged(Some(by("N", false)), ""), [1, 0, 3, 2]);
        assert_eq!(table.arranged(Some(by("N", true)), ""), [2, 0, 3, 1]);
        assert_eq!(table.arranged(Some(by("NAME", false)), ""), [0, 1, 3, 2]);
        assert_eq!(table.arranged(Some(by("NAME", true)), ""), [2, 3, 1, 0]);
        assert_eq!(table.arranged(Some(by("NO SUCH", false)), ""), [0, 1, 2, 3]);
    }

    #[test]
    fn the_filter_looks_into_every_cell() {
        let table = table();
        assert_eq!(table.arranged(None, "TA"), [0, 3]);
        assert_eq!(table.arranged(None, "10"), [1]);
        assert_eq!(table.arranged(Some(by("NAME", true)), "9"), [3, 0]);
        assert_eq!(table.arranged(None, "nothing"), [0; 0]);
    }

    #[test]
    fn cells_are_harmless() {
        assert_eq!(Cell::text("a\x1b[2J\n").text, "a\u{fffd}[2J\u{fffd}");
    }
}
