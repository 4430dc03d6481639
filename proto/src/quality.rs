//! [`Quality`]: how far an artifact's predictions are from those of the artifact that it was made from.

use serde::{Deserialize, Serialize};

use crate::{ContextTokens, ModelDigest};

/// A measured quality. Two compare only if measured against the same source on the same text in the same way:
/// [`same_basis`](Self::same_basis).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// The artifact that it was compared with.
    pub source: ModelDigest,
    /// The name of the text.
    pub text: String,
    /// Tokens in each chunk of the text.
    pub context: ContextTokens,
    /// Chunks that were scored.
    pub chunks: u32,
    /// The llama.cpp build that computed it.
    pub engine_build: String,
    /// The figures.
    pub divergence: Divergence,
}

impl Quality {
    /// Whether this figure and that may be compared.
    pub fn same_basis(&self, other: &Self) -> bool {
        self.basis() == other.basis()
    }

    /// What it was measured against: source, text, context and chunks.
    pub fn basis(&self) -> (ModelDigest, &str, u32, u32) {
        (self.source, self.text.as_str(), self.context.get(), self.chunks)
    }
}

/// Distances of one model's predictions from another's over the scored tokens of a text, as
/// `llama-perplexity --kl-divergence` defines them; natural logarithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Tokens that were scored.
    pub positions: u64,
    /// Mean KL divergence from the source's distribution; 0 is the same.
    pub mean: Statistic,
    /// Half of the tokens diverge less.
    pub median: f64,
    /// 90 of 100 diverge less.
    pub p90: f64,
    /// 99 of 100 diverge less.
    pub p99: f64,
    /// 999 of 1000 diverge less.
    pub p999: f64,
    /// The most that any token diverges.
    pub largest: f64,
    /// Share of tokens at which both find the same one likeliest, 0 to 1.
    pub same_top: Statistic,
    /// Perplexity of the artifact.
    pub perplexity: Statistic,
    /// Perplexity of the source.
    pub source_perplexity: Statistic,
    /// Logarithm of the first over the second; may be below 0.
    pub log_ratio: Statistic,
}

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistic {
    /// The mean.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}
