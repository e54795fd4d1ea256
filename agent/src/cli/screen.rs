//! What is shown to people: width, colours, tables.

use std::{
    fmt::Write as _,
    io::{IsTerminal, stdout},
};

use crate::model::shown::cut;
pub(super) use crate::model::shown::{bytes, columns, duration, harmless};

/// Columns where there is no terminal to ask.
const WIDTH: usize = 100;

/// What stdout is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// Columns.
    pub(super) width: usize,
    /// Whether colours are wanted: [`coloured`].
    pub(super) colours: bool,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        let terminal = stdout().is_terminal();
        let columns = terminal.then(of_terminal).flatten();
        Self { width: columns.unwrap_or(WIDTH).max(40), colours: coloured(&stdout()) }
    }

    /// For tables: nothing is cut where there is no terminal, since what reads them there looks for whole names.
    pub(super) fn of_table() -> Self {
        let screen = Self::of_stdout();
        if stdout().is_terminal() { screen } else { Self { width: usize::MAX, ..screen } }
    }

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if self.colours { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }
}

/// Whether colours are wanted there: on a terminal that knows them, without `NO_COLOR` (<https://no-color.org>: any value
/// but an empty one).
pub(super) fn coloured(to: &impl IsTerminal) -> bool {
    to.is_terminal() && !is_dumb() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The terminal obeys nothing but line ends.
pub(super) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|name| name == "dumb")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Colour {
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

fn of_terminal() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request fills in a winsize, which `size` is.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Text in exactly so many columns, cut with `…` or filled with spaces.
pub(super) fn fit(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let pad = width.saturating_sub(columns(&text));
    text + &" ".repeat(pad)
}

/// As [`fit`], but what does not fit loses its beginning: the end of an address is its port.
fn fit_end(text: &str, width: usize) -> String {
    let over = text.chars().count().saturating_sub(width);
    if over == 0 || width == 0 {
        fit(text, width)
    } else {
        std::iter::once('…').chain(text.chars().skip(over + 1)).collect()
    }
}

/// Rows under headings; a column that begins with `>` stands at the right. Columns that are too wide for the screen are
/// cut, the widest first; one that begins with `<` is cut at its beginning.
pub(super) fn table(screen: Screen, headings: &[&str], rows: &[Vec<String>]) -> String {
    let right: Vec<bool> = headings.iter().map(|heading| heading.starts_with('>')).collect();
    let tail: Vec<bool> = headings.iter().map(|heading| heading.starts_with('<')).collect();
    let head: Vec<String> = headings.iter().map(|heading| heading.trim_start_matches(['<', '>']).to_owned()).collect();
    let mut widths: Vec<usize> = (0..headings.len())
        .map(|n| rows.iter().chain([&head]).filter_map(|row| row.get(n)).map(|cell| columns(cell)).max().unwrap_or(0))
        .collect();
    let gaps = 2 * headings.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > screen.width {
        // A port with its colon and the mark of the cut is seven columns.
        let least = |n: usize| if tail.get(n) == Some(&true) { 7 } else { 4 };
        let widest =
            widths.iter_mut().enumerate().filter(|(n, width)| **width > least(*n)).max_by_key(|(_, width)| **width);
        let Some((_, widest)) = widest else { break };
        *widest -= 1;
    }
    let line = |row: &[String]| {
        let mut line = String::new();
        for (n, cell) in row.iter().enumerate() {
            let width = widths.get(n).copied().unwrap_or(0);
            let gap = if n > 0 { "  " } else { "" };
            if right.get(n) == Some(&true) {
                let cell = fit(cell, width);
                let cell = cell.trim_end();
                let pad = " ".repeat(width.saturating_sub(columns(cell)));
                let _ = write!(line, "{gap}{pad}{cell}");
            } else if tail.get(n) == Some(&true) {
                let _ = write!(line, "{gap}{}", fit_end(cell, width));
            } else {
                let _ = write!(line, "{gap}{}", fit(cell, width));
            }
        }
        line.trim_end().to_owned()
    };
    let mut text = screen.paint(Colour::Bold, &line(&head)) + "\n";
    for row in rows {
        text += &line(row);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_the_screen() {
        let screen = Screen { width: 30, colours: false };
        let rows = vec![vec!["short".into(), "7".into()], vec!["x".repeat(60), "1234".into()]];
        let text = table(screen, &["NAME", ">N"], &rows);
        assert_eq!(
            text,
            format!("NAME{}     N\nshort{}     7\n{}…  1234\n", " ".repeat(20), " ".repeat(19), "x".repeat(23))
        );
        assert_eq!(table(screen, &["A", ">B"], &[]), "A  B\n");
        let rows = [vec!["127.0.0.1:18080".into(), "127.0.0.1:52848".into(), "x".into()]];
        assert_eq!(
            table(screen, &["<LOCAL", "<REMOTE", "SEEN"], &rows),
            "LOCAL        REMOTE       SEEN\n….0.1:18080  ….0.1:52848  x\n"
        );
        assert!(table(Screen { width: usize::MAX, colours: false }, &["A"], &[vec!["x".repeat(999)]]).len() > 999);
    }

    #[test]
    fn cells_are_cut_or_filled() {
        assert_eq!([fit("abc", 5), fit("abcdef", 4), fit("ä…", 2), fit("x", 0)], ["abc  ", "abc…", "ä…", ""]);
        assert_eq!([fit("日本", 5), fit("日本語", 4)], ["日本 ", "日… "]);
    }

    #[test]
    fn columns_stand_under_each_other_whatever_is_in_them() {
        let rows = [vec!["日本".into(), "7".into()], vec!["abcd".into(), "12".into()]];
        let text = table(Screen { width: 30, colours: false }, &["NAME", ">N"], &rows);
        assert_eq!(text, "NAME   N\n日本   7\nabcd  12\n");
    }
}
