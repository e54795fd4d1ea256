//! Several measurements of one thing.

use serde::Serialize;

/// Measurements in the order they were made.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Each divided by the one of the same round.
    pub(crate) fn over(&self, base: &Self) -> Self {
        Self(self.0.iter().zip(&base.0).map(|(value, base)| value / base).collect())
    }

    /// The middle one, or the mean of the two in the middle; `None` of none.
    pub(crate) fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let half = sorted.len() / 2;
        let upper = *sorted.get(half)?;
        if sorted.len() % 2 == 1 { Some(upper) } else { sorted.get(half - 1).map(|lower| f64::midpoint(*lower, upper)) }
    }

    /// The least and the greatest.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        let sorted = self.sorted();
        Some((*sorted.first()?, *sorted.last()?))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn the_median_is_in_the_middle_of_odd_and_even_counts() {
        assert_eq!(Samples(vec![3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(Samples(Vec::new()).median(), None);
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let base = Samples(vec![100.0, 50.0]);
        assert_eq!(Samples(vec![90.0, 45.0]).over(&base).0, [0.9, 0.9]);
    }
}
