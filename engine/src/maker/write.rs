//! Writing the file, inside a worker: llama.cpp is asked here.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use super::metadata::{self, Vocabulary};
use super::{ModelSpec, Noise, Quantization, tensors, tokenizer};
use crate::ffi;
use crate::gguf::{GgufWriter, TensorPlan, TensorType};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Making {
    pub file_size: u64,
    pub tensor_bytes: u64,
    pub parameters: u64,
    pub tensors: u32,
}

/// Most layers that llama.cpp takes (`LLAMA_MAX_LAYERS`); above it, it aborts.
const MOST_LAYERS: u32 = 512;
/// Most experts that it takes (`LLAMA_MAX_EXPERTS`).
const MOST_EXPERTS: u32 = 1024;

/// Writes a model to `path`, replacing what is there: with a seed, random weights; without one, the header alone in a
/// sparse file of the full length.
pub(crate) fn make(
    spec: &ModelSpec,
    quantization: Quantization,
    seed: Option<u64>,
    path: &Path,
) -> Result<Making, String> {
    check(spec, seed.is_some())?;
    let vocabulary = if seed.is_some() { Vocabulary::Tokenizer } else { Vocabulary::Size };
    let mut writer = GgufWriter::new();
    metadata::write(&mut writer, spec, quantization.file_type(), vocabulary);
    for tensor in plan(spec, quantization, &writer.header())? {
        writer.tensor(tensor);
    }
    let io = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let header = writer.header();
    let tensor_bytes: u64 = writer.tensors().iter().map(TensorPlan::bytes).sum();
    let padded: u64 = writer.tensors().iter().map(|tensor| GgufWriter::padded(tensor.bytes())).sum();
    let file_size = header.len() as u64 + padded;
    let mut file = File::create(path).map_err(io)?;
    match seed {
        None => {
            file.write_all(&header).map_err(io)?;
            file.set_len(file_size).map_err(io)?;
        }
        Some(seed) => {
            let mut noise = Noise::new(seed);
            let mut out = BufWriter::with_capacity(1 << 20, file);
            writer.write(&mut out, |tensor, out| noise.write(tensor, out)).map_err(io)?;
        }
    }
    Ok(Making {
        file_size,
        tensor_bytes,
        parameters: writer.tensors().iter().map(TensorPlan::elements).sum(),
        tensors: u32::try_from(writer.tensors().len()).unwrap_or(u32::MAX),
    })
}

fn check(spec: &ModelSpec, weights: bool) -> Result<(), String> {
    let shape = &spec.shape;
    let refuse = |what: String| Err(format!("no {} model can be made of this: {what}", spec.architecture));
    if shape.n_layer == 0 || shape.blocks() > MOST_LAYERS {
        return refuse(format!("{} layers, 1 to {MOST_LAYERS} are possible", shape.blocks()));
    }
    let experts = shape.n_expert.unwrap_or(0);
    let used = shape.n_expert_used.unwrap_or(0);
    if experts > MOST_EXPERTS || used > experts || (experts > 0 && used == 0) {
        return refuse(format!(
            "{used} of {experts} experts are used, 1 to all of at most {MOST_EXPERTS} are possible"
        ));
    }
    if shape.n_embd == 0 || shape.n_vocab == 0 || shape.n_ctx_train == 0 || shape.n_head.max() == 0 {
        return refuse("n_embd, n_head, n_vocab and n_ctx_train must be at least 1".into());
    }
    if weights && shape.n_vocab < tokenizer::FEWEST_TOKENS {
        return refuse(format!("with weights it takes a vocabulary of at least {}", tokenizer::FEWEST_TOKENS));
    }
    Ok(())
}

/// The tensors with the types that llama.cpp's quantizer gives them.
fn plan(spec: &ModelSpec, quantization: Quantization, metadata: &[u8]) -> Result<Vec<TensorPlan>, String> {
    let maker = ffi::Maker::new(metadata)?;
    let mut chosen = tensors::published(spec, maker.tensors()?);
    let (mut free, native): (Vec<_>, Vec<_>) =
        chosen.drain(..).partition(|tensor| !tensors::is_native(spec, &tensor.name));
    maker.quantize(quantization.file_type(), &mut free)?;
    free.extend(native);
    free.into_iter().map(|tensor| planned(spec, tensor)).collect()
}

fn planned(spec: &ModelSpec, tensor: ffi::MakerTensor) -> Result<TensorPlan, String> {
    let refuse = |what: String| Err(format!("tensor {}: {what}", tensor.name));
    let wanted = spec.types.iter().rev().find(|(pattern, _)| tensors::matches(pattern, &tensor.name));
    let kind = match wanted {
        Some((_, name)) => match TensorType::from_name(&name.to_uppercase()) {
            Some(kind) => kind,
            None => return refuse(format!("{name:?} is no tensor type")),
        },
        None => tensor.kind,
    };
    let mut dimensions = tensor.shape.to_vec();
    while dimensions.len() > 1 && dimensions.last() == Some(&1) {
        dimensions.pop();
    }
    if !dimensions[0].is_multiple_of(kind.block) {
        return refuse(format!("rows of {} are no multiple of {}'s block of {}", dimensions[0], kind.name, kind.block));
    }
    Ok(TensorPlan { name: tensor.name, dimensions, kind })
}
