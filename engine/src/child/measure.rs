//! Timing prefill and decode with made-up tokens: no text, no sampling.

use std::time::{Duration, Instant};

use crate::ffi::{BatchToken, Model};

/// Tokens a second of one run.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub prefill: f64,
    pub decode: f64,
}

/// Runs `prefill` tokens in batches and then `decode` tokens one by one in an empty sequence, and leaves it empty.
pub fn run(model: &mut Model, sequence: i32, batch: usize, prefill: u32, decode: u32) -> Result<Rates, String> {
    model.clear(sequence);
    let prefill_time = append(model, sequence, 0, prefill, batch)?;
    let decode_time = append(model, sequence, prefill, decode, 1)?;
    model.clear(sequence);
    Ok(Rates { prefill: rate(prefill, prefill_time), decode: rate(decode, decode_time) })
}

/// How long `count` tokens take after `depth` others, in batches of up to `batch`: 1 decodes them one by one, with logits
/// for each; more prefills them, with logits for the last. They stay in the sequence.
pub fn append(model: &mut Model, sequence: i32, depth: u32, count: u32, batch: usize) -> Result<Duration, String> {
    let vocabulary = model.facts().vocabulary.max(1);
    // A large prime visits the vocabulary in no order that any cache knows.
    let token = |position: u32| BatchToken {
        token: i32::try_from(position.wrapping_mul(7919) % vocabulary).unwrap_or(0),
        position: i32::try_from(position).unwrap_or(0),
        sequence,
        logits: batch <= 1,
    };
    let mut tokens: Vec<BatchToken> = (depth..depth + count).map(token).collect();
    if let Some(last) = tokens.last_mut() {
        last.logits = true;
    }
    let start = Instant::now();
    for chunk in tokens.chunks(batch.max(1)) {
        model.decode(chunk)?;
        if batch <= 1 {
            // Each token's logits are there before the next is chosen.
            model.synchronize();
        }
    }
    model.synchronize();
    Ok(start.elapsed())
}

/// Tokens a second.
pub fn rate(tokens: u32, time: Duration) -> f64 {
    f64::from(tokens) / time.as_secs_f64().max(1e-9)
}
