//! Sizes of tensors as products of what a context is made of: tokens, cells, rows of logits, sequences.
//!
//! A tensor's dimensions are such numbers times constants of the model, so its size is one of a few products with a constant,
//! or a sum of two or three of them. Which, follows from its sizes in a handful of contexts, exactly.

use serde::{Deserialize, Serialize};

use super::shape::{Rules, Shape};

/// How many products there are.
pub const FEATURES: usize = 26;

/// Products that are tried together where fewer explain nothing: scratch of flash attention on Metal, for all cells and for
/// those of a window.
const TOGETHER: [&[usize]; 3] = [&[1, 22, 23, 5, 12], &[1, 22, 24, 7, 12], &[1, 8, 9, 12, 0]];
/// A backend that rounds within a size misses a sum of products by less.
const ROUNDED: f64 = 100.0;

/// The products, by [`Shape::features`].
pub type Features = [f64; FEATURES];

/// Places of products that a [`Choice`](super::trace::Choice) may ask for: numbers of their own.
pub const DECIDING: [usize; 12] = [3, 12, 1, 15, 25, 10, 13, 4, 5, 6, 2, 21];

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
            streams * number((self.tokens / self.streams.max(1)).min(32)),
            streams * number((self.tokens / self.streams.max(1)).next_multiple_of(8)) * cells,
            streams * number((self.tokens / self.streams.max(1)).next_multiple_of(8)) * window,
            number(self.tokens / self.streams.max(1)),
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

    /// The fewest products that explain the bytes at these places, or a size that is known already, and by how many bytes
    /// they miss the worst.
    pub fn of(places: &[Features], bytes: &[u64], known: &[Self]) -> (Self, f64) {
        if bytes.iter().all(|size| *size == bytes[0]) {
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            return (Self(vec![(0, bytes[0] as f64)]), 0.0);
        }
        let mut best = (Self::default(), f64::INFINITY);
        // Those behind are for decisions, or come together.
        let products: Vec<usize> = (0..21).collect();
        let attempt = |best: &mut (Self, f64), chosen: &[usize]| {
            let Some(found) = solved(places, bytes, chosen) else { return false };
            let miss = found.miss(places, bytes);
            if miss < best.1 * 0.5 {
                *best = (found, miss);
            }
            miss < 0.5
        };
        let more = places.len();
        for a in &products {
            if attempt(&mut best, &[*a]) {
                return best;
            }
        }
        if let Some(known) = known.iter().find(|known| known.miss(places, bytes) < ROUNDED) {
            return (known.clone(), 0.0);
        }
        for a in &products {
            for b in products.iter().filter(|b| *b > a && more > 2) {
                if attempt(&mut best, &[*a, *b]) {
                    return best;
                }
            }
        }
        for together in TOGETHER {
            if more > together.len()
                && solved(places, bytes, together).is_some_and(|size| size.miss(places, bytes) < ROUNDED)
            {
                attempt(&mut best, together);
                return best;
            }
        }
        if best.1 < ROUNDED {
            return best;
        }
        for a in &products {
            for b in products.iter().filter(|b| *b > a && more > 3) {
                for c in products.iter().filter(|c| *c > b) {
                    if attempt(&mut best, &[*a, *b, *c]) {
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

/// Products at most at once.
const MOST: usize = 5;

/// The least squares of shares, rounded to eighths where that is as good.
fn solved(places: &[Features], bytes: &[u64], chosen: &[usize]) -> Option<Size> {
    let count = chosen.len();
    let mut matrix = [[0.0_f64; MOST + 1]; MOST];
    // Each product by its own length, so that the numbers are near 1.
    let mut scale = [0.0_f64; MOST];
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let sizes: Vec<f64> = bytes.iter().map(|size| (*size as f64).max(1.0)).collect();
    for (scale, product) in scale.iter_mut().zip(chosen) {
        *scale = places.iter().zip(&sizes).map(|(place, size)| (place[*product] / size).powi(2)).sum::<f64>().sqrt();
    }
    if scale[..count].contains(&0.0) {
        return None;
    }
    for (place, size) in places.iter().zip(&sizes) {
        for (i, row) in matrix.iter_mut().enumerate().take(count) {
            let left = place[chosen[i]] / size / scale[i];
            for ((value, product), scale) in row.iter_mut().zip(chosen).zip(&scale) {
                *value += left * place[*product] / size / scale;
            }
            row[count] += left;
        }
    }
    let mut used = [false; MOST];
    let mut row_of = [None; MOST];
    for column in 0..count {
        let rows = (0..count).filter(|row| !used[*row]);
        let row = rows.max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        // What others say already adds nothing.
        if matrix[row][column].abs() < 1e-11 {
            continue;
        }
        used[row] = true;
        row_of[column] = Some(row);
        let line = matrix[row];
        for (other, values) in matrix.iter_mut().enumerate().take(count) {
            if other != row {
                let factor = values[column] / line[column];
                for (value, of_line) in values.iter_mut().zip(line).take(count + 1) {
                    *value -= factor * of_line;
                }
            }
        }
    }
    let factor = |column: usize| {
        row_of[column].map_or(0.0, |row: usize| matrix[row][count] / matrix[row][column] / scale[column])
    };
    let factors: Vec<f64> = (0..count).map(factor).collect();
    let of = |round: &dyn Fn(f64) -> f64| {
        let of_product = |product: &usize| u8::try_from(*product).unwrap_or(0);
        Size(chosen.iter().map(of_product).zip(factors.iter().map(|factor| round(*factor))).collect())
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
        assert_eq!(Size::of(&places, &sizes(&|x| x[4] * 2.0), &[]).0, Size(vec![(4, 2.0)]));
        assert_eq!(Size::of(&places, &sizes(&|x| x[1] * 40.0 + 512.0), &[]).0, Size(vec![(0, 512.0), (1, 40.0)]));
    }
}
