//! Cells in the columns of a terminal: nothing is ever wrapped.

use ratatui::text::Span;

use super::table::{Column, Stand};

/// Columns that a cut text keeps at least; of an address a port with its colon and the mark of the cut.
const LEAST: usize = 10;
const LEAST_TAIL: usize = 7;
/// Columns that the first one keeps while others can be cut: it is what rows are known by.
const FIRST: usize = 24;

/// Columns that a text takes on the terminal.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { Span::raw(text).width() }
}

/// A text in exactly so many columns, filled, or cut with `…`.
pub(super) fn fit(text: &str, columns: usize, stand: Stand) -> String {
    let taken = width(text);
    if taken <= columns {
        let space = " ".repeat(columns - taken);
        return if stand == Stand::Right { space + text } else { text.to_owned() + &space };
    }
    let Some(left) = columns.checked_sub(1) else { return String::new() };
    // A character that is two columns wide may leave one empty.
    let mut used = 0;
    let mut fits = |c: &char| {
        let mut bytes = [0; 4];
        used += width(c.encode_utf8(&mut bytes));
        used <= left
    };
    let mut cut = if stand == Stand::Tail {
        let kept: Vec<char> = text.chars().rev().take_while(&mut fits).collect();
        std::iter::once('…').chain(kept.into_iter().rev()).collect::<String>()
    } else {
        text.chars().take_while(&mut fits).chain(std::iter::once('…')).collect()
    };
    cut.extend(std::iter::repeat_n(' ', columns.saturating_sub(width(&cut))));
    cut
}

/// A table's columns on a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    /// Columns of the terminal for each column of the table; 0: it is left out. Those that found no place are missing
    /// at the end.
    pub(super) widths: Vec<usize>,
    /// Between two of them.
    pub(super) gap: usize,
}

/// Fits columns with these widest cells, 0 for one in which nothing is known. Where there is too little room, such a text is
/// left out; then texts are cut, the widest first and the first column last; numbers never are: where even that is too
/// much, the last column goes.
pub(super) fn columns(columns: &[Column], widest: &[usize], screen: usize) -> Fitted {
    let both = || columns.iter().zip(widest);
    let mut widths: Vec<usize> = both().map(|(column, widest)| width(column.heading).max(*widest)).collect();
    let total = |widths: &[usize], gap: usize| {
        let shown = widths.iter().filter(|width| **width > 0);
        widths.iter().sum::<usize>() + gap * shown.count().saturating_sub(1)
    };
    let gap = if total(&widths, 2) <= screen { 2 } else { 1 };
    if total(&widths, gap) > screen && widest.iter().any(|widest| *widest > 0) {
        let left_out = |column: &Column, cell: usize| cell == 0 && column.stand == Stand::Left;
        for (width, (column, cell)) in widths.iter_mut().zip(both()) {
            *width = if left_out(column, *cell) { 0 } else { *width };
        }
    }
    for first in [FIRST, LEAST] {
        let least = |place: usize, column: &Column| match column.stand {
            Stand::Left if place == 0 => first,
            Stand::Left => LEAST.max(width(column.heading)),
            Stand::Tail => LEAST_TAIL,
            Stand::Right => usize::MAX,
        };
        while total(&widths, gap) > screen {
            let all = widths.iter().zip(columns).enumerate();
            let may = all.filter(|(place, (width, column))| **width > least(*place, column));
            let Some(place) = may.max_by_key(|(_, (width, _))| **width).map(|(place, _)| place) else { break };
            widths.iter_mut().skip(place).take(1).for_each(|width| *width -= 1);
        }
    }
    if total(&widths, gap) <= screen {
        return Fitted { widths, gap };
    }
    match columns.split_last() {
        // What is left has the more room.
        Some((_, fewer @ [_, ..])) => self::columns(fewer, widest, screen),
        _ => Fitted { widths: vec![screen], gap },
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{left, right, tail};
    use super::*;

    #[test]
    fn texts_are_filled_or_cut() {
        for (text, columns, stand, fitted) in [
            ("abc", 5, Stand::Left, "abc  "),
            ("7", 3, Stand::Right, "  7"),
            ("abcdef", 4, Stand::Left, "abc…"),
            ("10.0.0.1:8080", 6, Stand::Tail, "…:8080"),
            ("日本語", 6, Stand::Left, "日本語"),
            ("日本語", 5, Stand::Left, "日本…"),
            ("日本語", 4, Stand::Left, "日… "),
            ("日本語", 4, Stand::Tail, "…語 "),
            ("abc", 1, Stand::Left, "…"),
            ("abc", 0, Stand::Left, ""),
        ] {
            assert_eq!(fit(text, columns, stand), fitted, "{text} in {columns}");
            assert_eq!(width(fitted), columns);
        }
    }

    #[test]
    fn the_widest_text_is_cut_first_and_numbers_never() {
        let heads = [left("NAME"), right("CALLS"), tail("REMOTE"), left("UNIT")];
        let of = |screen| columns(&heads, &[30, 9, 20, 0], screen);
        assert_eq!(of(69), Fitted { widths: vec![30, 9, 20, 4], gap: 2 });
        assert_eq!(of(66), Fitted { widths: vec![30, 9, 20, 4], gap: 1 });
        // What says nothing goes first, the names last.
        assert_eq!(of(65), Fitted { widths: vec![30, 9, 20, 0], gap: 1 });
        assert_eq!(of(60), Fitted { widths: vec![29, 9, 20, 0], gap: 1 });
        assert_eq!(of(50), Fitted { widths: vec![24, 9, 15, 0], gap: 1 });
        assert_eq!(of(31), Fitted { widths: vec![13, 9, 7, 0], gap: 1 });
        assert_eq!(of(28), Fitted { widths: vec![10, 9, 7, 0], gap: 1 });
        assert_eq!(of(27), Fitted { widths: vec![17, 9], gap: 1 });
        assert_eq!(of(17), Fitted { widths: vec![17], gap: 1 });
        assert_eq!(of(3), Fitted { widths: vec![3], gap: 1 });
        let nothing = columns(&heads, &[0, 0, 0, 0], 19);
        assert_eq!(nothing, Fitted { widths: vec![4, 5, 6], gap: 2 });
    }
}
