//! Models of random weights: valid GGUF files of llama's architecture in any size, made locally in seconds.
//!
//! Speed and memory do not depend on the values of weights, so such a model benchmarks like a real one, and nothing is
//! downloaded. Entry point: [`write_random_model`]. It does not know what they are for. It needs no llama.cpp: a benchmark and
//! tests of transfers call it anywhere; other architectures and quantizations are [`maker`](crate::maker)'s.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use muster_proto::Bytes;

use crate::gguf::{GgufWriter, TensorPlan, TensorType, file_type_number};
use crate::maker::tokenizer::{self, FEWEST_TOKENS};
use crate::split_mix::SplitMix64;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomModelSpec {
    /// Its name.
    pub name: String,
    /// Width of the residual stream; a multiple of 256.
    pub embedding: u32,
    /// Transformer blocks.
    pub layers: u32,
    /// Query heads; the width is a multiple of them.
    pub heads: u32,
    /// Key/value heads; they divide the query heads.
    pub kv_heads: u32,
    /// Width of the feed-forward part; a multiple of 256.
    pub feed_forward: u32,
    /// Tokens in the vocabulary, at least 264.
    pub vocabulary: u32,
    /// Longest context.
    pub context: u32,
    /// Type of all matrices: `F16`, `Q8_0`, `Q4_0` or `Q4_K`.
    pub quantization: String,
    /// Seed of the random bytes.
    pub seed: u64,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// Size of the file.
    pub file_size: Bytes,
    /// All parameters.
    pub parameters: u64,
    /// Bytes of weights that each decoded token reads.
    pub bytes_per_token: Bytes,
    /// Parameters that each token is multiplied with.
    pub parameters_per_token: u64,
    /// Transformer blocks.
    pub layers: u32,
}

/// Why a model was not made.
#[derive(Debug, thiserror::Error)]
pub enum RandomModelError {
    /// The numbers do not go together.
    #[error("no model can be made of this: {0}")]
    Spec(String),
    /// The file system refused.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
}

impl RandomModelSpec {
    /// About 8 million parameters: decoding is ruled by what each token costs anyway, not by memory.
    pub fn tiny(quantization: &str) -> Self {
        Self {
            name: "llama-8m".into(),
            embedding: 256,
            layers: 8,
            heads: 4,
            kv_heads: 2,
            feed_forward: 768,
            vocabulary: 8192,
            context: 2048,
            quantization: quantization.into(),
            seed: 1,
        }
    }

    /// About 110 million parameters: more than any processor's cache in most quantizations.
    pub fn small(quantization: &str) -> Self {
        Self {
            name: "llama-113m".into(),
            embedding: 1024,
            layers: 8,
            heads: 16,
            kv_heads: 4,
            feed_forward: 3072,
            vocabulary: 16384,
            ..Self::tiny(quantization)
        }
    }

    /// A model whose file has at least `size` bytes (and at most some megabytes more), for tests of transfers. It loads, but
    /// its shape is made for its size.
    pub fn of_file_size(size: Bytes, quantization: &str) -> Self {
        let mut spec = Self { name: "llama-sized".into(), layers: 1, ..Self::small(quantization) };
        let tensor_bytes = |spec: &Self| -> u64 { spec.tensors().iter().flatten().map(TensorPlan::bytes).sum() };
        let one = tensor_bytes(&spec);
        spec.layers = 2;
        let layer = tensor_bytes(&spec).saturating_sub(one).max(1);
        spec.layers = 1 + u32::try_from(size.get().saturating_sub(one).div_ceil(layer)).unwrap_or(1 << 16).min(1 << 12);
        spec
    }

    fn check(&self) -> Result<TensorType, RandomModelError> {
        let fail = |text: String| Err(RandomModelError::Spec(text));
        if self.embedding == 0 || !self.embedding.is_multiple_of(256) {
            return fail(format!("embedding {} is no multiple of 256", self.embedding));
        }
        if self.feed_forward == 0 || !self.feed_forward.is_multiple_of(256) {
            return fail(format!("feed_forward {} is no multiple of 256", self.feed_forward));
        }
        if self.heads == 0
            || !self.embedding.is_multiple_of(self.heads)
            || !(self.embedding / self.heads).is_multiple_of(2)
        {
            return fail(format!("{} heads do not divide an embedding of {}", self.heads, self.embedding));
        }
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return fail(format!("{} key/value heads do not divide {} heads", self.kv_heads, self.heads));
        }
        if self.layers == 0 || self.context == 0 || self.vocabulary < FEWEST_TOKENS {
            return fail(format!("it takes a layer, a context and a vocabulary of at least {FEWEST_TOKENS}"));
        }
        match TensorType::from_name(&self.quantization) {
            Some(kind) if ["F16", "Q8_0", "Q4_0", "Q4_K"].contains(&kind.name) => Ok(kind),
            _ => fail(format!("quantization {:?} is none of F16, Q8_0, Q4_0 and Q4_K", self.quantization)),
        }
    }

    fn tensors(&self) -> Option<Vec<TensorPlan>> {
        let matrix = TensorType::from_name(&self.quantization)?;
        let float = TensorType::from_name("F32")?;
        let [embedding, feed_forward] = [self.embedding, self.feed_forward].map(u64::from);
        let kv = u64::from(self.embedding / self.heads * self.kv_heads);
        let plan = |name: String, dimensions: &[u64], kind| TensorPlan { name, dimensions: dimensions.to_vec(), kind };
        let mut all = vec![
            plan("token_embd.weight".into(), &[embedding, self.vocabulary.into()], matrix),
            plan("output_norm.weight".into(), &[embedding], float),
        ];
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            all.extend([
                plan(name("attn_norm"), &[embedding], float),
                plan(name("attn_q"), &[embedding, embedding], matrix),
                plan(name("attn_k"), &[embedding, kv], matrix),
                plan(name("attn_v"), &[embedding, kv], matrix),
                plan(name("attn_output"), &[embedding, embedding], matrix),
                plan(name("ffn_norm"), &[embedding], float),
                plan(name("ffn_gate"), &[embedding, feed_forward], matrix),
                plan(name("ffn_up"), &[embedding, feed_forward], matrix),
                plan(name("ffn_down"), &[feed_forward, embedding], matrix),
            ]);
        }
        Some(all)
    }
}

/// Writes a model of random weights to `path`, replacing what is there. Not synced to disk: it is made to be read now.
///
/// # Errors
/// See [`RandomModelError`].
pub fn write_random_model(path: &Path, spec: &RandomModelSpec) -> Result<ModelFacts, RandomModelError> {
    let kind = spec.check()?;
    let mut writer = GgufWriter::new();
    metadata(&mut writer, spec);
    for tensor in spec.tensors().unwrap_or_default() {
        writer.tensor(tensor);
    }
    let io = |source| RandomModelError::Io { path: path.to_owned(), source };
    let file = File::create(path).map_err(io)?;
    let mut noise = Noise::new(spec.seed, kind);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    writer
        .write(&mut out, |tensor, out| match tensor.kind.name {
            // Norms: ones.
            "F32" => (0..tensor.elements()).try_for_each(|_| out.write_all(&1_f32.to_le_bytes())),
            _ => noise.write(tensor.bytes(), out),
        })
        .map_err(io)?;
    let file_size = out.get_ref().metadata().map_err(io)?.len();
    let tensors = writer.tensors();
    // The output is tied to the embedding, so a token reads every tensor.
    let parameters = tensors.iter().map(TensorPlan::elements).sum();
    Ok(ModelFacts {
        file_size: Bytes::new(file_size),
        parameters,
        bytes_per_token: tensors.iter().map(|tensor| Bytes::new(tensor.bytes())).sum(),
        parameters_per_token: parameters,
        layers: spec.layers,
    })
}

fn metadata(writer: &mut GgufWriter, spec: &RandomModelSpec) {
    writer.text("general.architecture", "llama");
    writer.text("general.name", &spec.name);
    writer.u32("general.quantization_version", 2);
    writer.u32(
        "general.file_type",
        match spec.quantization.as_str() {
            "Q4_K" => 14, // Q4_K_S: the file type whose matrices are Q4_K
            name => file_type_number(name).unwrap_or_default(),
        },
    );
    writer.u32("llama.context_length", spec.context);
    writer.u32("llama.embedding_length", spec.embedding);
    writer.u32("llama.block_count", spec.layers);
    writer.u32("llama.feed_forward_length", spec.feed_forward);
    writer.u32("llama.attention.head_count", spec.heads);
    writer.u32("llama.attention.head_count_kv", spec.kv_heads);
    writer.u32("llama.rope.dimension_count", spec.embedding / spec.heads);
    writer.f32("llama.rope.freq_base", 10_000.0);
    writer.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    writer.u32("llama.vocab_size", spec.vocabulary);
    tokenizer::write(writer, spec.vocabulary);
}

/// Random blocks of a tensor type, with scales that are small, positive and finite.
struct Noise {
    numbers: SplitMix64,
    kind: TensorType,
    block: Vec<u8>,
}

impl Noise {
    /// Blocks made at once.
    const BLOCKS: u64 = 4096;

    fn new(seed: u64, kind: TensorType) -> Self {
        let block = vec![0; usize::try_from(Self::BLOCKS * kind.bytes).unwrap_or_default()];
        Self { numbers: SplitMix64::new(seed), kind, block }
    }

    fn write(&mut self, bytes: u64, out: &mut impl Write) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            self.refill();
            let take = left.min(self.block.len() as u64);
            out.write_all(&self.block[..usize::try_from(take).unwrap_or(self.block.len())])?;
            left -= take;
        }
        Ok(())
    }

    fn refill(&mut self) {
        let mut block = std::mem::take(&mut self.block);
        for chunk in block.chunks_mut(8) {
            let bytes = self.numbers.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        // Halves of about 0.002: exponent bits of 2^-9, any mantissa, positive.
        let half = |bytes: &mut [u8]| bytes[1] = (bytes[1] & 0x03) | 0x18;
        let each = usize::try_from(self.kind.bytes).unwrap_or(1);
        match self.kind.name {
            // Every element is a half: keep its sign.
            "F16" => block.chunks_exact_mut(2).for_each(|bytes| bytes[1] = (bytes[1] & 0x83) | 0x20),
            // One scale in front.
            "Q8_0" | "Q4_0" => block.chunks_exact_mut(each).for_each(|bytes| half(&mut bytes[..2])),
            // Scale and minimum in front.
            "Q4_K" => block.chunks_exact_mut(each).for_each(|bytes| {
                half(&mut bytes[..2]);
                half(&mut bytes[2..4]);
            }),
            _ => {}
        }
        self.block = block;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgufHeader;

    #[test]
    fn a_model_of_a_wanted_size_is_that_large_and_in_order() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("sized.gguf");
        let wanted = Bytes::from_mib(256);
        let facts = write_random_model(&path, &RandomModelSpec::of_file_size(wanted, "Q8_0")).expect("written");
        assert!(facts.file_size >= wanted && facts.file_size < wanted + Bytes::from_mib(16), "{}", facts.file_size);
        assert_eq!(GgufHeader::read(&path).expect("in order").file_type().as_deref(), Some("Q8_0"));
    }

    #[test]
    fn numbers_that_do_not_go_together_are_refused() {
        let good = RandomModelSpec::tiny("Q4_0");
        for wrong in [
            RandomModelSpec { embedding: 100, ..good.clone() },
            RandomModelSpec { heads: 3, ..good.clone() },
            RandomModelSpec { kv_heads: 3, ..good.clone() },
            RandomModelSpec { layers: 0, ..good.clone() },
            RandomModelSpec { vocabulary: 10, ..good.clone() },
            RandomModelSpec { quantization: "Q9".into(), ..good.clone() },
        ] {
            assert!(matches!(wrong.check(), Err(RandomModelError::Spec(_))), "{wrong:?}");
        }
    }
}
