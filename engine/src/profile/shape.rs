//! What llama.cpp makes of the settings: rounded contexts, micro-batches, rows of logits. All that sizes depend on.
//!
//! A mirror of the constructor of `llama_context` and of `llama_kv_cache_iswa`, checked against dry runs by the tests.

use serde::{Deserialize, Serialize};

/// llama.cpp rounds contexts up to this many cells.
const CELLS: u64 = 256;

/// What of a model decides how contexts are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Tokens of the sliding window; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub window: u32,
    /// Whether a micro-batch may be larger than the context: an embedding model attends to all tokens of one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub bidirectional: bool,
    /// Whether every token is an output.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all_outputs: bool,
    /// Whether there is neither a KV cache nor a recurrent state.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cacheless: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A context and a micro-batch as they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wanted {
    /// Over all sequences.
    pub context: u32,
    /// Sequences.
    pub parallel: u32,
    /// `n_batch`.
    pub batch: u32,
    /// `n_ubatch`.
    pub ubatch: u32,
    /// One cache for all sequences.
    pub unified: bool,
    /// Logits for a whole micro-batch instead of one row a sequence.
    pub all_outputs: bool,
}

/// A context and a micro-batch as llama.cpp reserves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Tokens of a micro-batch.
    pub tokens: u64,
    /// Rows of logits.
    pub outputs: u64,
    /// Sequences.
    pub sequences: u64,
    /// Caches beside each other: one, or one for each sequence.
    pub streams: u64,
    /// Cells of each cache.
    pub cells: u64,
    /// Cells of each cache of the layers with a sliding window; 0 without a window.
    pub window_cells: u64,
}

impl Shape {
    /// What llama.cpp makes of `wanted`.
    pub fn of(wanted: &Wanted, rules: Rules) -> Self {
        let sequences = u64::from(wanted.parallel.max(1));
        let asked = u64::from(wanted.context);
        let batch = if rules.bidirectional { wanted.batch.into() } else { asked.min(wanted.batch.into()) };
        let ubatch = batch.min(wanted.ubatch.into());
        let most_outputs = if wanted.all_outputs || rules.all_outputs { batch } else { sequences };
        let streams = if wanted.unified { 1 } else { sequences };
        let cells = (asked.next_multiple_of(CELLS) / streams).next_multiple_of(CELLS);
        let tokens = (cells * streams).min(ubatch).max(1);
        let window_cells = match u64::from(rules.window) {
            0 => 0,
            window => {
                let windows = if wanted.unified { window * sequences } else { window };
                cells.min(windows + ubatch).next_multiple_of(CELLS)
            }
        };
        Self {
            outputs: tokens.min(most_outputs),
            tokens: tokens.next_multiple_of(sequences),
            sequences,
            streams,
            cells,
            window_cells,
        }
    }

    /// Cells of all caches.
    pub fn total_cells(&self) -> u64 {
        self.cells * self.streams
    }

    /// Cells of all caches with a window.
    pub fn total_window_cells(&self) -> u64 {
        self.window_cells * self.streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted =
        Wanted { context: 4096, parallel: 1, batch: 2048, ubatch: 512, unified: false, all_outputs: false };

    #[test]
    fn contexts_are_rounded_as_llama_cpp_rounds_them() {
        let shape = |wanted| Shape::of(&wanted, Rules::default());
        let small = shape(Wanted { context: 300, ..WANTED });
        assert_eq!((small.cells, small.tokens, small.outputs), (512, 300, 1));
        let four = shape(Wanted { context: 5000, parallel: 3, ..WANTED });
        assert_eq!((four.cells, four.streams, four.tokens, four.total_cells()), (1792, 3, 513, 5376));
        let unified = shape(Wanted { parallel: 4, unified: true, all_outputs: true, ..WANTED });
        assert_eq!((unified.cells, unified.streams, unified.tokens, unified.outputs), (4096, 1, 512, 512));
    }

    #[test]
    fn a_window_holds_its_tokens_and_a_micro_batch() {
        let rules = Rules { window: 1024, ..Rules::default() };
        assert_eq!(Shape::of(&WANTED, rules).window_cells, 1536);
        assert_eq!(Shape::of(&Wanted { context: 600, ..WANTED }, rules).window_cells, 768);
        let unified = Wanted { context: 65536, parallel: 4, unified: true, ..WANTED };
        assert_eq!(Shape::of(&unified, rules).window_cells, 4608);
    }
}
