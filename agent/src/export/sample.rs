//! Which traces are exported: consistent probability sampling (OpenTelemetry specification, "`TraceState`: Probability
//! Sampling"). The decision takes nothing but the trace id, so both ends of a call and every node decide the same.

use std::fmt::Write;

/// 2^56: the randomness of a trace id is its last 7 bytes (W3C Trace Context level 2).
const RANGE: u64 = 1 << 56;

/// A sampling decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Randomness below it is left out.
    threshold: u64,
}

impl Sampler {
    /// A sampler that keeps the given share of traces; outside 0.0 to 1.0 it is taken as the nearer end.
    #[must_use]
    #[allow(clippy::cast_sign_loss, reason = "the product lies between 0 and 2^56")]
    pub fn new(ratio: f64) -> Self {
        let ratio = if ratio.is_nan() { 1.0 } else { ratio.clamp(0.0, 1.0) };
        Self { threshold: ((1.0 - ratio) * RANGE as f64).round() as u64 }
    }

    /// Whether spans of this trace are exported.
    #[must_use]
    pub fn keeps(self, trace: &[u8; 16]) -> bool {
        u128::from_be_bytes(*trace) as u64 % RANGE >= self.threshold
    }

    /// The `tracestate` that tells receivers how many calls an exported one stands for; empty when all are exported.
    #[must_use]
    pub fn trace_state(self) -> String {
        let mut state = String::new();
        if self.threshold > 0 && self.threshold < RANGE {
            // Writing to a String can't fail.
            let _ = write!(state, "ot=th:{:014x}", self.threshold);
            state.truncate(state.trim_end_matches('0').len());
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(randomness: u64) -> [u8; 16] {
        (0xffff_u128 << 64 | u128::from(randomness)).to_be_bytes()
    }

    #[test]
    fn thresholds_of_the_specification() {
        assert_eq!(Sampler::new(1.0).trace_state(), "");
        assert_eq!(Sampler::new(0.5).trace_state(), "ot=th:8");
        assert_eq!(Sampler::new(0.25).trace_state(), "ot=th:c");
        assert_eq!(Sampler::new(0.0).trace_state(), "");
        assert_eq!(Sampler::new(0.01).trace_state(), "ot=th:fd70a3d70a3d7");
    }

    #[test]
    fn all_none_and_half() {
        for randomness in [0, 1, RANGE / 2 - 1, RANGE / 2, RANGE - 1] {
            assert!(Sampler::new(1.0).keeps(&trace(randomness)));
            assert!(!Sampler::new(0.0).keeps(&trace(randomness)));
            assert_eq!(Sampler::new(0.5).keeps(&trace(randomness)), randomness >= RANGE / 2);
        }
        assert!(Sampler::new(f64::NAN).keeps(&trace(0)));
        assert!(Sampler::new(7.0).keeps(&trace(0)));
    }
}
