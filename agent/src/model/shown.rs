//! How quantities, times and text from outside are shown to people.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns that text takes on a terminal: CJK and emoji take two, what combines with the character before takes none.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Text in so many columns at most, cut with `…`.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let room = left.checked_sub(c.width().unwrap_or(0));
        left = room.unwrap_or(0);
        room.is_some()
    };
    text.chars().take_while(fits).chain((width > 0).then_some('…')).collect()
}

/// Text from outside without what a terminal would obey: control characters and those that turn the direction.
#[must_use]
pub fn harmless(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// A length of time in at most 6 columns.
#[must_use]
pub fn duration(ns: u64) -> String {
    let ns = ns as f64;
    let (value, unit) = match ns {
        _ if ns < 1e3 => (ns, "ns"),
        _ if ns < 1e6 => (ns / 1e3, "µs"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ if ns < 6e10 => (ns / 1e9, "s"),
        _ if ns < 3.6e12 => (ns / 6e10, "min"),
        _ if ns < 8.64e13 => (ns / 3.6e12, "h"),
        _ => (ns / 8.64e13, "d"),
    };
    figures(value) + unit
}

/// Seconds as a length of time in at most 6 columns; what is none is shown as zero.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    duration(u64::try_from(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX))
}

/// A number of bytes in at most 5 columns as a rule: `345B`, and in powers of 1024 `1.35K`, `64M`, `1G`, `2T`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let unit = [("T", 1u64 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    match unit.into_iter().find(|(_, factor)| bytes >= *factor) {
        Some((name, factor)) => figures(bytes as f64 / factor as f64) + name,
        None => format!("{bytes}B"),
    }
}

/// A number with three figures, more only before its point.
#[must_use]
pub fn figures(value: f64) -> String {
    if value.fract() == 0.0 || value >= 99.95 {
        format!("{value:.0}")
    } else if value >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Time of day, local, with milliseconds.
#[must_use]
pub fn time_of_day(unix_ns: u64) -> String {
    let seconds = (unix_ns / 1_000_000_000).cast_signed();
    // SAFETY: all zeros is a tm.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values of this frame; localtime_r keeps none of them.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    format!("{:02}:{:02}:{:02}.{:03}", time.tm_hour, time.tm_min, time.tm_sec, unix_ns / 1_000_000 % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_234, "1.23µs"),
            (12_345, "12.3µs"),
            (999_999, "1000µs"),
            (1_500_000_000, "1.50s"),
            (90_000_000_000, "1.50min"),
            (u64::MAX, "213504d"),
        ] {
            assert_eq!(duration(ns), text);
        }
        for (size, text) in
            [(0, "0B"), (1_023, "1023B"), (1_024, "1K"), (345_678, "338K"), (64 << 20, "64M"), (u64::MAX, "16777216T")]
        {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn seconds_of_any_kind_are_shown() {
        for (number, text) in [(0.0, "0ns"), (0.002, "2ms"), (-1.0, "0ns"), (f64::NAN, "0ns"), (1e12, "213504d")] {
            assert_eq!(seconds(number), text);
        }
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(["日本", "a\u{301}", "é"].map(columns), [4, 1, 1]);
        for (width, text) in [(7, "日本x語"), (6, "日本x…"), (5, "日本…"), (4, "日…"), (1, "…"), (0, "")]
        {
            assert_eq!(cut("日本x語", width), text);
            assert!(columns(text) <= width);
        }
    }

    #[test]
    fn text_from_outside_is_harmless() {
        assert_eq!(harmless("a\x1b[2Jb\r\n\u{9b}\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}\u{fffd}c");
    }
}
