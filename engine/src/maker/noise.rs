//! [`Noise`]: random weights in any type, encoded by llama.cpp itself, so that no layout of a block is known here.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::ffi;
use crate::gguf::{TensorPlan, TensorType};
use crate::split_mix::SplitMix64;

/// A row of noise: every type's block divides it.
const COLUMNS: usize = 256;
/// Rows that are encoded once and then repeated from another place in each tensor.
const ROWS: usize = 256;
/// How far weights are from zero at most; small enough that sums over wide rows stay in half precision.
const SPREAD: f32 = 0.05;

/// Weights of one model.
pub(crate) struct Noise {
    numbers: SplitMix64,
    values: Vec<f32>,
    encoded: BTreeMap<u32, Vec<u8>>,
}

impl Noise {
    /// The same seed gives the same weights.
    pub(crate) fn new(seed: u64) -> Self {
        let mut numbers = SplitMix64::new(seed);
        let values = (0..COLUMNS * ROWS)
            .map(|_| {
                // 24 bits are what a float holds.
                let bits = u16::try_from(numbers.next() >> 48).unwrap_or(0);
                (f32::from(bits) / 32768.0 - 1.0) * SPREAD
            })
            .collect();
        Self { numbers, values, encoded: BTreeMap::new() }
    }

    /// Writes the data of a tensor: norms and factors are ones, biases zeros, decays below zero, the rest is noise.
    pub(crate) fn write(&mut self, tensor: &TensorPlan, out: &mut impl Write) -> io::Result<()> {
        let name = tensor.name.as_str();
        let last = name.rsplit('.').next().unwrap_or_default();
        let one = name.ends_with("norm.weight")
            || name.ends_with("output_scale.weight")
            || name.starts_with("rope_f")
            || last == "scale";
        let exact = match last {
            _ if tensor.kind.name != "F32" => None,
            _ if one => Some(1.0),
            "ssm_a" => Some(-1.0),
            "bias" => Some(0.0_f32),
            _ if name.ends_with("sinks.weight") => Some(0.0),
            _ => None,
        };
        if let Some(value) = exact {
            let block: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), 4096).flatten().collect();
            return repeat(&block, 0, tensor.bytes(), out);
        }
        let blocks = (COLUMNS * ROWS) as u64 / tensor.kind.block;
        let start = (self.numbers.next() % blocks) * tensor.kind.bytes;
        let block = self.encoded(tensor.kind)?;
        repeat(block, start, tensor.bytes(), out)
    }

    fn encoded(&mut self, kind: TensorType) -> io::Result<&[u8]> {
        if !self.encoded.contains_key(&kind.number) {
            let bytes = usize::try_from((COLUMNS * ROWS) as u64 / kind.block * kind.bytes).unwrap_or(0);
            let encoded = ffi::encode(kind.number, &self.values, COLUMNS, bytes).map_err(io::Error::other)?;
            self.encoded.insert(kind.number, encoded);
        }
        Ok(&self.encoded[&kind.number])
    }
}

/// Writes `bytes` of a block that is repeated without end, from `start` on.
fn repeat(block: &[u8], start: u64, bytes: u64, out: &mut impl Write) -> io::Result<()> {
    let mut at = usize::try_from(start).unwrap_or(0) % block.len().max(1);
    let mut left = bytes;
    while left > 0 && !block.is_empty() {
        let piece = &block[at..];
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        out.write_all(&piece[..take])?;
        left -= take as u64;
        at = 0;
    }
    Ok(())
}
