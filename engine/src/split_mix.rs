//! [`SplitMix64`]: numbers for weights that mean nothing.

/// A generator of 64-bit numbers (Steele, Lea, Flood 2014): fast, and the same from one seed.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next number; every one of 64 bits is as likely.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix64;

    #[test]
    fn models_of_one_seed_stay_the_same() {
        let mut numbers = SplitMix64::new(1);
        assert_eq!([numbers.next(), numbers.next()], [0x1d0b_14e4_db01_8fed, 0xb346_6f8a_7b81_a989]);
    }
}
