//! Explicit-bucket histograms, exact: counts and sums are integers.

/// Buckets of every histogram: one more than there are bounds.
pub(in crate::export) const BUCKETS: usize = 15;

/// Upper bounds of the buckets but the last, in the unit that is counted.
pub(in crate::export) type Bounds = [u64; BUCKETS - 1];

const MS: u64 = 1_000_000;

/// Durations, counted in nanoseconds: the bounds that semantic conventions advise for `http.*.request.duration`,
/// 5 ms to 10 s.
pub(in crate::export) const DURATION: Bounds = [
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    75 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    750 * MS,
    1_000 * MS,
    2_500 * MS,
    5_000 * MS,
    7_500 * MS,
    10_000 * MS,
];

/// Sizes in bytes. Semantic conventions advise none; empty, then powers of four from 64 B to 1 GiB.
pub(in crate::export) const SIZE: Bounds = [
    0,
    1 << 6,
    1 << 8,
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
    1 << 28,
    1 << 30,
];

/// Place of a value: a bound belongs to the bucket below it.
pub(super) fn bucket(bounds: &Bounds, value: u64) -> usize {
    bounds.iter().map(|bound| usize::from(value > *bound)).sum()
}

/// A histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::export) struct Histogram {
    /// Observations by bucket.
    pub(in crate::export) counts: [u64; BUCKETS],
    /// Sum of all observed values; wide enough for nanoseconds of any load.
    pub(in crate::export) sum: u128,
}

impl Histogram {
    /// Counts a value; returns its bucket.
    pub(super) fn observe(&mut self, bounds: &Bounds, value: u64) -> usize {
        let bucket = bucket(bounds, value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += u128::from(value);
        bucket
    }

    /// Number of observations.
    pub(in crate::export) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Takes over what another one has observed.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    /// The least bound that `percent` of the observations do not exceed; none where that is beyond the last one.
    pub(super) fn bound(&self, bounds: &Bounds, percent: u64) -> Option<u64> {
        let enough = (u128::from(self.count()) * u128::from(percent)).div_ceil(100);
        let mut below = 0;
        bounds.iter().zip(self.counts).find_map(|(bound, count)| {
            below += u128::from(count);
            (below >= enough).then_some(*bound)
        })
    }

    /// What was observed since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut rest = *self;
        for (count, before) in rest.counts.iter_mut().zip(earlier.counts) {
            *count -= before;
        }
        rest.sum -= earlier.sum;
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        assert_eq!(bucket(&DURATION, 0), 0);
        assert_eq!(bucket(&DURATION, 5 * MS), 0);
        assert_eq!(bucket(&DURATION, 5 * MS + 1), 1);
        assert_eq!(bucket(&DURATION, 10_000 * MS), 13);
        assert_eq!(bucket(&DURATION, u64::MAX), 14);
        assert_eq!(bucket(&SIZE, 0), 0);
        assert_eq!(bucket(&SIZE, 1), 1);
        assert_eq!(bucket(&SIZE, 1 << 30), 13);
    }

    #[test]
    fn a_percentile_is_bounded() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.bound(&DURATION, 99), Some(5 * MS));
        for _ in 0..99 {
            histogram.observe(&DURATION, MS);
        }
        histogram.observe(&DURATION, 60 * MS);
        assert_eq!(histogram.bound(&DURATION, 99), Some(5 * MS));
        histogram.observe(&DURATION, 60 * MS);
        assert_eq!(histogram.bound(&DURATION, 99), Some(75 * MS));
        let mut both = Histogram::default();
        both.observe(&DURATION, 20_000 * MS);
        assert_eq!(both.bound(&DURATION, 50), None);
        both.add(&histogram);
        assert_eq!((both.count(), both.sum), (102, u128::from((99 + 120 + 20_000) * MS)));
    }

    #[test]
    fn counts_and_sums() {
        let mut histogram = Histogram::default();
        for value in [0, 1, 64, 65, u64::MAX] {
            histogram.observe(&SIZE, value);
        }
        let earlier = histogram;
        histogram.observe(&SIZE, 7);
        assert_eq!((histogram.count(), histogram.sum), (6, u128::from(u64::MAX) + 137));
        let rest = histogram.since(&earlier);
        assert_eq!((rest.count(), rest.sum, rest.counts[1]), (1, 7, 1));
    }
}
