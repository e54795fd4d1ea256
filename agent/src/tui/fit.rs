//! Cells in the columns of a terminal: nothing is ever wrapped.

use ratatui::text::Span;

use super::table::{Column, Stand};

/// Columns that a cut text keeps at least; of an address a port with its colon and the mark of the cut.
const LEAST: usize = 4;
const LEAST_TAIL: usize = 7;

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
    /// Columns of the terminal for each column of the table; those that found no place are missing at the end.
    pub(super) widths: Vec<usize>,
    /// Between two of them.
    pub(super) gap: usize,
}

/// Fits columns with these widest cells: texts are cut, the widest first; numbers never are. Where even that is too much,
/// the last columns are left out.
pub(super) fn columns(columns: &[Column], widest: &[usize], screen: usize) -> Fitted {
    let mut widths: Vec<usize> =
        columns.iter().zip(widest).map(|(column, widest)| width(column.heading).max(*widest)).collect();
    let total = |widths: &[usize], gap: usize| widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1);
    let gap = if total(&widths, 2) <= screen { 2 } else { 1 };
    let least = |column: &Column| match column.stand {
        Stand::Left => LEAST.max(width(column.heading)),
        Stand::Tail => LEAST_TAIL,
        Stand::Right => usize::MAX,
    };
    while total(&widths, gap) > screen {
        let may = widths.iter().zip(columns).enumerate().filter(|(_, (width, column))| **width > least(column));
        match may.max_by_key(|(_, (width, _))| **width).map(|(place, _)| place) {
            Some(place) => widths.iter_mut().skip(place).take(1).for_each(|width| *width -= 1),
            // What is left has the more room.
            None => match columns.split_last() {
                Some((_, fewer @ [_, ..])) => return self::columns(fewer, widest, screen),
                _ => return Fitted { widths: vec![screen], gap },
            },
        }
    }
    Fitted { widths, gap }
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
        let heads = [left("NAME"), right("CALLS"), tail("REMOTE")];
        let of = |screen| columns(&heads, &[30, 9, 20], screen);
        assert_eq!(of(63), Fitted { widths: vec![30, 9, 20], gap: 2 });
        assert_eq!(of(62), Fitted { widths: vec![30, 9, 20], gap: 1 });
        assert_eq!(of(50), Fitted { widths: vec![20, 9, 19], gap: 1 });
        assert_eq!(of(31), Fitted { widths: vec![10, 9, 10], gap: 1 });
        assert_eq!(of(22), Fitted { widths: vec![4, 9, 7], gap: 1 });
        assert_eq!(of(21), Fitted { widths: vec![11, 9], gap: 1 });
        assert_eq!(of(3), Fitted { widths: vec![3], gap: 1 });
    }
}
