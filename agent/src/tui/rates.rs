//! How fast counts grow, from one look to the next.

use std::collections::HashMap;

use super::table::{Cell, Tone};
use crate::model::shown::figures;

/// Two looks within a shorter time tell nothing; the rate stays as it was, seconds.
const SHORTEST: f64 = 0.5;
/// What was not looked at for so long is forgotten, seconds.
const KEPT: f64 = 60.0;

/// Counts at their last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    now: f64,
    counts: HashMap<String, Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    count: f64,
    at: f64,
    rate: Option<f64>,
}

impl Rates {
    /// A look begins, at seconds since whenever.
    pub(super) fn look(&mut self, now: f64) {
        self.now = now;
        self.counts.retain(|_, count| now - count.at < KEPT);
    }

    /// How much a count grows in a second; not known at its first look. One that fell began anew.
    pub(super) fn of(&mut self, key: &str, count: f64) -> Option<f64> {
        let now = self.now;
        let Some(last) = self.counts.get_mut(key) else {
            self.counts.insert(key.to_owned(), Last { count, at: now, rate: None });
            return None;
        };
        let time = now - last.at;
        if time >= SHORTEST {
            let rate = (count >= last.count).then(|| (count - last.count) / time);
            *last = Last { count, at: now, rate };
        }
        last.rate
    }

    /// The same as a cell.
    pub(super) fn cell(&mut self, key: &str, count: u64) -> Cell {
        match self.of(key, count as f64) {
            Some(rate) => rate_cell(rate),
            None => Cell::none(),
        }
    }
}

/// So many a second.
pub(super) fn rate_cell(rate: f64) -> Cell {
    let tone = if rate > 0.0 { Tone::Plain } else { Tone::Dim };
    Cell::number(rate, figures(rate)).tone(tone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_between_looks() {
        let mut rates = Rates::default();
        let mut at = |now: f64, count: f64| {
            rates.look(now);
            rates.of("a", count)
        };
        assert_eq!(at(10.0, 100.0), None);
        assert_eq!(at(12.0, 150.0), Some(25.0));
        // Too soon.
        assert_eq!(at(12.1, 190.0), Some(25.0));
        assert_eq!(at(13.0, 190.0), Some(40.0));
        // The agent started again.
        assert_eq!(at(14.0, 3.0), None);
        assert_eq!(at(15.0, 3.0), Some(0.0));
        assert_eq!(at(99.0, 4.0), None);
    }
}
