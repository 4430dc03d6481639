//! Pieces of a size: each is linear in what sizes of tensors are products of, and the size is the largest.
//!
//! A compute buffer is as large as the graph's fullest moment. At each moment the tensors that are alive have sizes that
//! are products of tokens, cells, rows of logits and constants of the model, so each moment is linear in those products,
//! and the fullest moment is the largest of a few linear functions.

use super::shape::{Rules, Shape};

/// How many products there are.
pub const FEATURES: usize = 9;

/// The products, in the order of a [`Plane`]'s coefficients: 1, tokens, outputs, sequences, tokens × cells, all cells,
/// tokens × window cells, all window cells, tokens × sequences.
pub type Features = [f64; FEATURES];

/// Bytes for each of the products.
pub type Plane = [f64; FEATURES];

#[allow(clippy::cast_precision_loss, reason = "numbers of tokens and cells, and products far below 2^53")]
impl Shape {
    /// The products.
    pub fn features(&self, rules: Rules) -> Features {
        let number = |value: u64| value as f64;
        // Without a cache, tokens attend to the tokens of their own micro-batch.
        let cells = if rules.cacheless { self.tokens } else { self.cells };
        [
            1.0,
            number(self.tokens),
            number(self.outputs),
            number(self.sequences),
            number(self.tokens) * number(cells),
            number(if rules.cacheless { 0 } else { self.total_cells() }),
            number(self.tokens) * number(self.window_cells),
            number(self.total_window_cells()),
            number(self.tokens) * number(self.sequences),
        ]
    }
}

/// The value of a plane.
pub fn value(plane: &Plane, features: &Features) -> f64 {
    plane.iter().zip(features).map(|(coefficient, feature)| coefficient * feature).sum()
}

/// The largest of planes.
pub fn largest<'a>(planes: impl IntoIterator<Item = &'a Plane>, features: &Features) -> f64 {
    planes.into_iter().map(|plane| value(plane, features)).fold(0.0, f64::max)
}
