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
    let vocabulary = model.facts().vocabulary.max(1);
    // A large prime visits the vocabulary in no order that any cache knows.
    let token = |position: u32| BatchToken {
        token: i32::try_from(position.wrapping_mul(7919) % vocabulary).unwrap_or(0),
        position: i32::try_from(position).unwrap_or(0),
        sequence,
        logits: false,
    };
    let mut tokens: Vec<BatchToken> = (0..prefill).map(token).collect();
    if let Some(last) = tokens.last_mut() {
        last.logits = true;
    }
    let mut timed = |tokens: &[BatchToken], batch: usize| -> Result<Duration, String> {
        let start = Instant::now();
        for chunk in tokens.chunks(batch.max(1)) {
            model.decode(chunk)?;
        }
        model.synchronize();
        Ok(start.elapsed())
    };
    let prefill_time = timed(&tokens, batch)?;
    let steps: Vec<BatchToken> =
        (prefill..prefill + decode).map(|position| BatchToken { logits: true, ..token(position) }).collect();
    let decode_time = timed(&steps, 1)?;
    model.clear(sequence);
    let rate = |tokens: u32, time: Duration| f64::from(tokens) / time.as_secs_f64().max(1e-9);
    Ok(Rates { prefill: rate(prefill, prefill_time), decode: rate(decode, decode_time) })
}
