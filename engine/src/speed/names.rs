//! [`Name`]: what parameters are called: as text where they are learnt, as a [`Key`] where millions of times are summed.
//!
//! A key is a hash of the text that is made piece by piece, without the text. Both are made by the same code, in
//! [`physics`](super::physics), so that a parameter is found under the name that it was learnt by.

use std::hash::{BuildHasherDefault, Hasher};

/// A parameter's name.
pub trait Name: Clone {
    /// The name of that text.
    fn of(text: &str) -> Self;

    /// The name with more text behind it.
    #[must_use]
    fn then(&self, pieces: &[&str]) -> Self;

    /// Whether it is what launching costs, or passing from device to device: what does not grow with weights.
    fn is_launch(&self) -> bool;
}

/// Parameters of launches, as a term's first factor names them.
const LAUNCHES: [&str; 4] = ["d.launch", "p.launch", "d.hop", "p.hop"];

impl Name for String {
    fn of(text: &str) -> Self {
        text.to_owned()
    }

    fn then(&self, pieces: &[&str]) -> Self {
        [self.as_str()].iter().chain(pieces).copied().collect()
    }

    fn is_launch(&self) -> bool {
        LAUNCHES.contains(&self.as_str())
    }
}

/// A name's hash (FNV-1a, 64 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// Those of [`LAUNCHES`].
const LAUNCH_KEYS: [Key; 4] =
    [Key::hashed(LAUNCHES[0]), Key::hashed(LAUNCHES[1]), Key::hashed(LAUNCHES[2]), Key::hashed(LAUNCHES[3])];

impl Key {
    const fn hashed(text: &str) -> Self {
        Self(hash(0xCBF2_9CE4_8422_2325, text.as_bytes()))
    }
}

const fn hash(mut state: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        state = (state ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01B3);
        index += 1;
    }
    state
}

impl Name for Key {
    fn of(text: &str) -> Self {
        Self::hashed(text)
    }

    fn then(&self, pieces: &[&str]) -> Self {
        let mut state = self.0;
        for piece in pieces {
            state = hash(state, piece.as_bytes());
        }
        Self(state)
    }

    fn is_launch(&self) -> bool {
        LAUNCH_KEYS.contains(self)
    }
}

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept(u64);

impl Hasher for Kept {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(self.0, bytes);
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Makes [`Kept`].
pub(super) type Keeps = BuildHasherDefault<Kept>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_that_of_the_whole_text_however_it_was_put_together() {
        let whole = Key::of("p.matmul.k/cuda/Ada");
        assert_eq!(Key::of("p.matmul").then(&[".", "k", "/", "cuda"]).then(&["/", "Ada"]), whole);
        assert_eq!(String::of("p.matmul").then(&[".", "k", "/", "cuda", "/", "Ada"]), "p.matmul.k/cuda/Ada");
        assert!(Key::of("p.hop").is_launch() && !Key::of("p.hop/cuda").is_launch());
    }
}
