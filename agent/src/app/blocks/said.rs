//! How many lines of the log tell of drops: each is written on the thread that captures, and whoever floods would choose
//! how many there are. Counters, `weir block list` and exported records have them all.

use crate::clock;

/// Lines a second.
const LINES: u32 = 20;

/// Lines of this second, and those left out since the last one.
#[derive(Debug, Default)]
pub(super) struct Said {
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Said {
    /// Whether a line may be written now; with how many were left out since the one before.
    pub(super) fn line(&mut self) -> Option<u64> {
        self.at(clock::monotonic_ns() / 1_000_000_000)
    }

    fn at(&mut self, second: u64) -> Option<u64> {
        if second != self.second {
            (self.second, self.lines) = (second, 0);
        }
        if self.lines == LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_by_number() {
        let mut said = Said::default();
        let told: Vec<_> = (0..1_000).filter_map(|_| said.at(7)).collect();
        assert_eq!(told, [0; LINES as usize]);
        assert_eq!([said.at(8), said.at(8)], [Some(1_000 - u64::from(LINES)), Some(0)]);
    }
}
