//! [`quality`]: how far a file's predictions are from those of the file that it was made from.

use std::path::PathBuf;

use muster_proto::{ContextTokens, Divergence, Statistic};

use super::jobs::{Step, once};
use super::{WorkerCommand, WorkerError, convert};
use crate::quality_text::{LARGEST_TEXT, QualityText};
use crate::wire::{self, from_worker::Reply, to_worker::Request};

/// Two files to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualityRequest {
    /// The file with the weights as they were trained.
    pub source: PathBuf,
    /// The file that was made from it.
    pub candidate: PathBuf,
    /// On what.
    pub text: QualityText,
    /// Tokens in each chunk; `None` takes what suits the text.
    pub context: Option<ContextTokens>,
    /// Chunks at most; `None` takes the whole text.
    pub chunks: Option<u32>,
    /// Threads to compute on; `None` takes all physical cores.
    pub threads: Option<u32>,
    /// Layers of each model on GPUs; `None` stays on the CPU.
    pub gpu_layers: Option<u32>,
    /// Round the source's logarithms of probabilities to 16 bits, as `llama-perplexity` does, to compare with its figures.
    pub sixteen_bit: bool,
}

impl QualityRequest {
    /// A comparison on a text, all of it, on the CPU.
    pub fn new(source: PathBuf, candidate: PathBuf, text: QualityText) -> Self {
        let (context, chunks, threads, gpu_layers) = (None, None, None, None);
        Self { source, candidate, text, context, chunks, threads, gpu_layers, sixteen_bit: false }
    }
}

/// How far a measurement is.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityProgress {
    /// What is being done, e.g. `chunk 3 of 40, KL divergence 0.013312`.
    pub step: String,
    /// 0 to 1.
    pub fraction: f32,
}

/// What a measurement came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityFound {
    /// The figures.
    pub divergence: Divergence,
    /// Tokens in each chunk.
    pub context: ContextTokens,
    /// Chunks that were scored.
    pub chunks: u32,
}

/// Measures as `llama-perplexity --kl-divergence` does, but for the source's logits, which are not rounded unless asked
/// for. Both files are mapped into memory, so the system may drop and read again what does not fit. Dropping the future
/// cancels.
///
/// # Errors
/// `Refused` where the files are not of one model, the model writes no text, or the text is too short.
pub async fn quality(
    command: &WorkerCommand,
    request: QualityRequest,
    mut progress: impl FnMut(QualityProgress) + Send,
) -> Result<QualityFound, WorkerError> {
    let QualityRequest { source, candidate, text, context, chunks, threads, gpu_layers, sixteen_bit } = request;
    if text.content.len() > LARGEST_TEXT {
        let reason = format!("the text has {} bytes, at most {LARGEST_TEXT} are taken", text.content.len());
        return Err(WorkerError::Refused { reason });
    }
    let context = context.map_or(text.context, ContextTokens::get);
    let job = wire::Quality {
        source: convert::path(&source),
        candidate: convert::path(&candidate),
        text: text.content.into_owned(),
        special: text.special,
        context,
        chunks: chunks.unwrap_or(0),
        threads: threads.unwrap_or(0),
        gpu_layers: gpu_layers.map_or(0, |layers| i32::try_from(layers).unwrap_or(i32::MAX)),
        sixteen_bit,
    };
    once(command, Request::Quality(job), |reply| match reply {
        Reply::Progress(step) => {
            progress(QualityProgress { step: step.step, fraction: step.fraction });
            Step::More
        }
        Reply::Divergence(found) => Step::Done(QualityFound {
            chunks: found.chunks,
            context: ContextTokens::new(context),
            divergence: divergence(found),
        }),
        _ => Step::Unexpected,
    })
    .await
}

fn divergence(found: wire::Divergence) -> Divergence {
    let estimate = |estimate: Option<wire::Statistic>| {
        let wire::Statistic { value, error } = estimate.unwrap_or_default();
        Statistic { value, error }
    };
    Divergence {
        positions: found.positions,
        mean: estimate(found.mean),
        median: found.median,
        p90: found.p90,
        p99: found.p99,
        p999: found.p999,
        largest: found.largest,
        same_top: estimate(found.same_top),
        perplexity: estimate(found.perplexity),
        source_perplexity: estimate(found.source_perplexity),
        log_ratio: estimate(found.log_ratio),
    }
}
