//! Sizes of tensors as products of what a context is made of: tokens, cells, rows of logits, sequences.
//!
//! A tensor's dimensions are such numbers times constants of the model, so its size is one of a few products with a constant,
//! or a sum of two or three of them. Which, follows from its sizes in a handful of contexts, exactly.

use serde::{Deserialize, Serialize};

use super::shape::{Rules, Shape};

/// How many products there are.
pub const FEATURES: usize = 22;

/// The products, by [`Shape::features`].
pub type Features = [f64; FEATURES];

/// Places of products that a [`Choice`](super::trace::Choice) may ask for: numbers of their own.
pub const DECIDING: [usize; 11] = [3, 12, 1, 15, 10, 13, 4, 5, 6, 2, 21];

#[allow(clippy::cast_precision_loss, reason = "numbers of tokens and cells, and products far below 2^53")]
impl Shape {
    /// The products.
    pub fn features(&self, rules: Rules) -> Features {
        let number = |value: u64| value as f64;
        // Without a cache, tokens attend to the tokens of their own micro-batch.
        let cells = number(if rules.cacheless { self.tokens } else { self.cells });
        let (tokens, outputs, sequences) = (number(self.tokens), number(self.outputs), number(self.sequences));
        let (streams, window) = (number(self.streams), number(self.window_cells));
        let each = number(self.tokens / self.sequences.max(1));
        let padded = number((self.tokens / self.sequences.max(1)).next_multiple_of(64));
        [
            1.0,
            tokens,
            outputs,
            sequences,
            tokens * cells,
            cells * streams,
            tokens * window,
            window * streams,
            tokens * sequences,
            padded * sequences,
            cells,
            tokens * each,
            streams,
            window,
            each,
            padded,
            number(self.tokens.next_multiple_of(64)),
            number(self.tokens.next_multiple_of(64)) * cells,
            number(self.tokens.next_multiple_of(32)),
            sequences * sequences,
            outputs * sequences,
            outputs / tokens.max(1.0),
        ]
    }
}

/// A size: constants by product.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Size(Vec<(u8, f64)>);

impl Size {
    /// Bytes.
    pub fn bytes(&self, features: &Features) -> u64 {
        let bytes: f64 = self.0.iter().map(|(product, factor)| features[usize::from(*product)] * factor).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size, far below 2^53")]
        let bytes = bytes.max(0.0).round() as u64;
        bytes
    }

    /// The fewest products that explain the bytes at these places, and by how many bytes they miss the worst.
    pub fn of(places: &[Features], bytes: &[u64]) -> (Self, f64) {
        if bytes.iter().all(|size| *size == bytes[0]) {
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            return (Self(vec![(0, bytes[0] as f64)]), 0.0);
        }
        let mut best = (Self::default(), f64::INFINITY);
        // The last one is for decisions alone.
        let products: Vec<usize> = (0..FEATURES - 1).collect();
        let mut attempt = |chosen: &[usize]| {
            let Some(found) = solved(places, bytes, chosen) else { return false };
            let miss = found.miss(places, bytes);
            if miss < best.1 * 0.5 {
                best = (found, miss);
            }
            miss < 0.5
        };
        let more = places.len();
        for a in &products {
            if attempt(&[*a]) {
                return best;
            }
        }
        for a in &products {
            for b in products.iter().filter(|b| *b > a && more > 2) {
                if attempt(&[*a, *b]) {
                    return best;
                }
            }
        }
        for a in &products {
            for b in products.iter().filter(|b| *b > a && more > 3) {
                for c in products.iter().filter(|c| *c > b) {
                    if attempt(&[*a, *b, *c]) {
                        return best;
                    }
                }
            }
        }
        best
    }

    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    fn miss(&self, places: &[Features], bytes: &[u64]) -> f64 {
        let miss = |(place, size): (&Features, &u64)| (self.bytes(place) as f64 - *size as f64).abs();
        places.iter().zip(bytes).map(miss).fold(0.0, f64::max)
    }
}

/// The least squares of shares, rounded to eighths where that is as good.
fn solved(places: &[Features], bytes: &[u64], chosen: &[usize]) -> Option<Size> {
    let count = chosen.len();
    let mut matrix = [[0.0_f64; 4]; 3];
    for (place, size) in places.iter().zip(bytes) {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let size = (*size as f64).max(1.0);
        for i in 0..count {
            let left = place[chosen[i]] / size;
            for j in 0..count {
                matrix[i][j] += left * place[chosen[j]] / size;
            }
            matrix[i][count] += left;
        }
    }
    for i in 0..count {
        let pivot = (i..count).max_by(|a, b| matrix[*a][i].abs().total_cmp(&matrix[*b][i].abs()))?;
        matrix.swap(i, pivot);
        let line = matrix[i];
        if line[i].abs() < 1e-18 {
            return None;
        }
        for (other, row) in matrix.iter_mut().enumerate().take(count) {
            if other != i {
                let factor = row[i] / line[i];
                for (value, of_line) in row.iter_mut().zip(line).take(count + 1) {
                    *value -= factor * of_line;
                }
            }
        }
    }
    let factors: Vec<f64> = (0..count).map(|i| matrix[i][count] / matrix[i][i]).collect();
    let of = |round: &dyn Fn(f64) -> f64| {
        Size(chosen.iter().zip(&factors).map(|(product, factor)| (*product as u8, round(*factor))).collect())
    };
    let rounded = of(&|factor| (factor * 8.0).round() / 8.0);
    if rounded.miss(places, bytes) < 0.5 {
        return Some(rounded);
    }
    Some(of(&|factor| {
        if factor == 0.0 {
            return 0.0;
        }
        let digits = 10_f64.powf(12.0 - factor.abs().log10().floor());
        (factor * digits).round() / digits
    }))
}

#[cfg(test)]
mod tests {
    use super::super::shape::Wanted;
    use super::*;

    #[test]
    fn products_are_found_again() {
        let places: Vec<Features> = [(512, 512, 1), (4096, 200, 1), (20_000, 2048, 4), (9000, 777, 3)]
            .into_iter()
            .map(|(context, ubatch, parallel)| {
                let wanted = Wanted { context, parallel, batch: 4096, ubatch, unified: false, all_outputs: false };
                Shape::of(&wanted, Rules::default()).features(Rules::default())
            })
            .collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let sizes = |size: &dyn Fn(&Features) -> f64| places.iter().map(|x| size(x) as u64).collect::<Vec<_>>();
        assert_eq!(Size::of(&places, &sizes(&|x| x[4] * 2.0)).0, Size(vec![(4, 2.0)]));
        assert_eq!(Size::of(&places, &sizes(&|x| x[1] * 40.0 + 512.0)).0, Size(vec![(0, 512.0), (1, 40.0)]));
    }
}
