//! The rate limiter (GCRA, ITU-T I.371 §A.1, the virtual scheduling form): one word per key. The kernel half computes
//! the same; this is the form that tests measure it against.

/// Whether a request of a key passes at `now`; `arrival` is the key's theoretical arrival time (0 at first) and is
/// moved on where it passes. All in nanoseconds; `cost` and `slack` as in [`weir_common::verdict::Slot`].
pub fn passes(arrival: &mut u64, now: u64, cost: u64, slack: u64) -> bool {
    let due = (*arrival).max(now);
    if due - now > slack {
        return false;
    }
    *arrival = due.saturating_add(cost);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::{Limit, Per};
    use crate::policy::shape::{cost, slack};
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(requests: u32, per_ns: u64, burst: u32) -> (u64, u64) {
        let limit = Limit { requests, per_ns, burst, per: Per::Client };
        (cost(limit), slack(limit))
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (cost, slack) = limit(100, SECOND, 10);
        let mut arrival = 0;
        let passed = |arrival: &mut u64, at, n| (0..n).filter(|_| passes(arrival, at, cost, slack)).count();
        assert_eq!(passed(&mut arrival, SECOND, 50), 10);
        assert_eq!(passed(&mut arrival, SECOND + 9_999_999, 50), 0);
        assert_eq!(passed(&mut arrival, SECOND + 10_000_000, 50), 1);
        assert_eq!(passed(&mut arrival, SECOND + 35_000_000, 50), 2);
        assert_eq!(passed(&mut arrival, 60 * SECOND, 50), 10);
    }

    proptest! {
        /// Exactly the token bucket: it holds `burst` tokens, gains one every `cost` ns, loses one for each that passes.
        #[test]
        fn equals_a_token_bucket(
            requests in 1u32..2000,
            burst in 1u32..200,
            gaps in prop::collection::vec(0u64..50_000_000, 1..400),
        ) {
            let (cost, slack) = limit(requests, SECOND, burst);
            let (mut arrival, mut now) = (0, 5 * SECOND);
            let full = u128::from(cost) * u128::from(burst);
            let (mut level, mut filled) = (full, now);
            for gap in gaps {
                now += gap;
                level = (level + u128::from(now - filled)).min(full);
                filled = now;
                let wanted = level >= u128::from(cost);
                if wanted {
                    level -= u128::from(cost);
                }
                prop_assert_eq!(passes(&mut arrival, now, cost, slack), wanted);
            }
        }
    }
}
