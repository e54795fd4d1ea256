//! Numbers by chance, the same for the same seed, and the changes that are made to bytes by them.

/// `SplitMix64`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..n; 0 for an `n` of 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T
    where
        &'a T: Default,
    {
        of.get(self.below(of.len())).copied().unwrap_or_default()
    }

    /// Random bytes, often text.
    pub(crate) fn bytes(&mut self, into: &mut Vec<u8>, len: usize) {
        let text = self.one_in(2);
        for _ in 0..len {
            let byte = self.next() as u8;
            into.push(if text { b' ' + byte % 95 } else { byte });
        }
    }

    /// Changes bytes in some places: flips, cuts, doubles, puts words in.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>, words: &[&[u8]]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let to = (at + self.below(16)).min(bytes.len());
            match self.below(6) {
                0 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
                1 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = self.next() as u8;
                    }
                }
                2 => {
                    bytes.drain(at..to);
                }
                3 => {
                    let copy = bytes.get(at..to).map(<[u8]>::to_vec).unwrap_or_default();
                    bytes.splice(at..at, copy);
                }
                4 => {
                    bytes.splice(at..at, self.pick(words).iter().copied());
                }
                _ => bytes.truncate(at),
            }
        }
    }
}
