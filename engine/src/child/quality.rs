//! Measuring the quality of a file: the logits of two models over one text, side by side.
//!
//! Cuts the text as `llama-perplexity` does: chunks of `context` tokens, the first replaced by the token that begins a text
//! where the model wants one, and only the second half scored, where every token has some past. At no time are more than
//! one batch of logits of each model in memory.

use std::thread;

use super::jobs::{check_header, path_of};
use super::outbox::Outbox;
use crate::divergence::{Precision, Score, Tally, score};
use crate::ffi::{Scorer, ScorerSettings};
use crate::wire::{self, from_worker::Reply};

/// Tokens computed at once: llama.cpp's own default.
const BATCH: usize = 512;
/// Most bytes of one model's logits at once; the largest vocabularies have 256 Ki tokens.
const LOGITS: usize = 256 << 20;
/// Shortest and longest context of a chunk.
const CONTEXT: std::ops::RangeInclusive<u32> = 32..=1 << 17;

pub fn run(request: &wire::Quality, id: u64, outbox: &Outbox) -> Result<Reply, String> {
    let (source, candidate) = (path_of(&request.source), path_of(&request.candidate));
    if !CONTEXT.contains(&request.context) {
        return Err(format!(
            "chunks of {} tokens: {} to {} are possible",
            request.context,
            CONTEXT.start(),
            CONTEXT.end()
        ));
    }
    let vocabulary = |path: &std::path::Path| -> Result<usize, String> {
        let header = check_header(path)?;
        let length = match header.get("tokenizer.ggml.tokens") {
            Some(crate::gguf::Value::Array { length, .. }) => usize::try_from(*length).unwrap_or(usize::MAX),
            _ => return Err(format!("{} has no tokens: no text can be scored", path.display())),
        };
        Ok(length.max(1))
    };
    let length = vocabulary(&source)?;
    if vocabulary(&candidate)? != length {
        return Err("the two files have different vocabularies: they are not of one model".into());
    }
    let context = request.context as usize;
    let batch = (LOGITS / (4 * length)).clamp(16, BATCH).min(context);
    let settings = ScorerSettings {
        context: request.context,
        batch: u32::try_from(batch).expect("at most 512"),
        outputs: u32::try_from(batch).expect("at most 512"),
        threads: request.threads,
        gpu_layers: request.gpu_layers,
    };
    // A large model takes minutes to load: a twentieth of the bar for each.
    let open = |path: &std::path::Path, step: &str, from: f32| {
        Scorer::open(path, &settings, |fraction| outbox.progress(id, from + fraction * 0.05, step))
            .map_err(|reason| format!("{}: {reason}", path.display()))
    };
    let mut source = open(&source, "loading the source", 0.0)?;
    let mut candidate = open(&candidate, "loading the candidate", 0.05)?;
    let text = request.text.strip_suffix('\n').unwrap_or(&request.text);
    let tokens = tokens(&source, &candidate, text, request.special)?;

    let all = tokens.len() / context;
    let chunks = if request.chunks == 0 { all } else { all.min(request.chunks as usize) };
    if chunks == 0 {
        return Err(format!("the text has {} tokens, and one chunk takes {context}", tokens.len()));
    }
    let precision = if request.sixteen_bit { Precision::SixteenBit } else { Precision::Exact };
    let mut tally = Tally::default();
    for (index, chunk) in tokens.chunks_exact(context).take(chunks).enumerate() {
        let step = format!("chunk {} of {chunks}, KL divergence {:.6}", index + 1, tally.mean());
        outbox.progress(id, 0.1 + 0.9 * index as f32 / chunks as f32, &step);
        for score in score_chunk(&mut source, &mut candidate, chunk, batch, precision)? {
            tally.add(&score);
        }
    }
    let positions = tally.clone();
    let found = positions.finish().ok_or("fewer than 100 tokens were scored: take a longer text")?;
    outbox.progress(id, 1.0, "");
    let estimate =
        |estimate: muster_proto::Statistic| Some(wire::Statistic { value: estimate.value, error: estimate.error });
    Ok(Reply::Divergence(wire::Divergence {
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
        chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
    }))
}

/// The text's tokens, which both models must agree on.
fn tokens(source: &Scorer, candidate: &Scorer, text: &str, special: bool) -> Result<Vec<i32>, String> {
    let vocabulary = source.vocabulary();
    if candidate.vocabulary() != vocabulary {
        return Err("the two files have different vocabularies: they are not of one model".into());
    }
    if vocabulary.add_eos {
        return Err("this model ends every text with a token, as embedding models do: it cannot be scored".into());
    }
    let tokens = source.tokenize(text, special)?;
    if candidate.tokenize(text, special)? != tokens {
        return Err("the two files make different tokens of one text: they are not of one model".into());
    }
    let known = |token: &i32| u32::try_from(*token).is_ok_and(|token| token < vocabulary.tokens);
    if !tokens.iter().all(known) {
        return Err("the model makes tokens of the text that it does not have".into());
    }
    Ok(tokens)
}

/// Scores the second half of a chunk: each token's logits against the token that follows it.
fn score_chunk(
    source: &mut Scorer,
    candidate: &mut Scorer,
    chunk: &[i32],
    batch: usize,
    precision: Precision,
) -> Result<Vec<Score>, String> {
    let vocabulary = source.vocabulary();
    let mut given = chunk.to_vec();
    if vocabulary.add_bos && vocabulary.bos >= 0 {
        given[0] = vocabulary.bos;
    }
    let first = chunk.len() / 2;
    source.clear();
    candidate.clear();
    let mut scores = Vec::new();
    for (index, part) in given.chunks(batch).enumerate() {
        let start = index * batch;
        let unscored = first.saturating_sub(start).min(part.len());
        let position = i32::try_from(start).map_err(|_| "the context is too long")?;
        source.decode(part, position, unscored)?;
        candidate.decode(part, position, unscored)?;
        // The last token has nobody to be compared with.
        let next = &chunk[(start + unscored + 1).min(chunk.len())..(start + part.len() + 1).min(chunk.len())];
        let (Some(rows), Some(others)) = (source.logits(), candidate.logits()) else {
            return Err("the model gives no logits: it is not one that writes text".into());
        };
        scores.extend(score_rows(rows, others, next, vocabulary.tokens as usize, precision)?);
    }
    Ok(scores)
}

/// Scores rows of logits on as many threads as there are cores.
fn score_rows(
    rows: &[f32],
    others: &[f32],
    next: &[i32],
    width: usize,
    precision: Precision,
) -> Result<Vec<Score>, String> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = next.len().div_ceil(threads).max(1);
    let one = |((row, other), next): ((&[f32], &[f32]), &i32)| {
        let next = usize::try_from(*next).ok().filter(|next| *next < width)?;
        score(row, other, next, precision)
    };
    let scores: Option<Vec<Score>> = thread::scope(|scope| {
        let parts = rows.chunks(share * width).zip(others.chunks(share * width)).zip(next.chunks(share));
        let workers: Vec<_> = parts
            .map(|((rows, others), next)| {
                scope.spawn(move || -> Option<Vec<Score>> {
                    rows.chunks_exact(width).zip(others.chunks_exact(width)).zip(next).map(one).collect()
                })
            })
            .collect();
        let done: Option<Vec<Vec<Score>>> = workers.into_iter().map(|worker| worker.join().ok().flatten()).collect();
        done.map(|parts| parts.concat())
    });
    scores.ok_or_else(|| "a model computes logits that are no numbers: its weights are damaged".into())
}
