//! Which of llama.cpp's tensors a published file has, and in which type before quantizing.
//!
//! Owns: the choice among what llama.cpp takes as optional (it creates all of it for metadata alone), the two ways to store
//! what is one or three matrices, and the converter's choice of types. Names and shapes come from llama.cpp.

use std::collections::BTreeSet;

use super::{ModelSpec, OutputMatrix};
use crate::ffi::MakerTensor;
use crate::gguf::TensorType;

/// The tensors of the file that `spec` means, out of all that llama.cpp would take.
pub(crate) fn published(spec: &ModelSpec, all: Vec<MakerTensor>) -> Vec<MakerTensor> {
    let mut chosen: Vec<MakerTensor> = Vec::with_capacity(all.len());
    let mut seen = BTreeSet::new();
    for tensor in all {
        // What layers share (factors of the rotary frequencies) is created for each of them and is once in the file.
        if !is_published(spec, &tensor.name) || !seen.insert(tensor.name.clone()) {
            continue;
        }
        match parts(spec, &tensor) {
            Some([gate, up]) => chosen.extend([gate, up]),
            None => chosen.push(tensor),
        }
    }
    if spec.shape.fused_qkv {
        fuse_attention(&mut chosen);
    }
    for tensor in &mut chosen {
        tensor.kind = source_type(spec, tensor);
    }
    chosen
}

/// The block number and the rest of a name.
fn split_name(name: &str) -> (Option<u32>, &str) {
    let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    match block {
        Some((number, part)) => (number.parse().ok(), part),
        None => (None, name),
    }
}

fn is_published(spec: &ModelSpec, name: &str) -> bool {
    let shape = &spec.shape;
    let architecture = spec.architecture.as_str();
    let (block, part) = split_name(name);
    let is = |names: &[&str]| names.contains(&architecture);
    match part {
        "output.weight" => spec.output == OutputMatrix::Separate,
        "output.bias" => is(&["phi2"]),
        // Heads of classifiers and of embedding models that some files have.
        "cls.weight" | "cls.bias" | "cls.output.weight" | "cls.output.bias" => false,
        "rope_freqs.weight" => shape.rope_freqs || is(&["gemma4"]),
        "rope_factors_long.weight" | "rope_factors_short.weight" => shape.rope_long,
        "attn_q.bias" | "attn_k.bias" | "attn_v.bias" => shape.qkv_bias,
        "attn_output.bias" => is(&["bert", "gpt-oss", "phi2", "starcoder2"]),
        "ffn_gate.bias" => false,
        "ffn_up.bias" | "ffn_down.bias" => is(&["bert", "phi2", "starcoder2"]),
        "attn_q_norm.weight" | "attn_k_norm.weight" if is(&["glm4moe"]) => shape.qk_norm,
        "exp_probs_b.bias" if is(&["deepseek2"]) => shape.exp_probs_b,
        "attn_v.weight" if shape.k_is_v_global => block.is_some_and(|block| shape.has_window(block)),
        // Only old files of Qwen3-Next have it, in the place of attn_qkv and attn_gate.
        "ssm_in.weight" if is(&["qwen3next"]) => false,
        // Factors that belong to the router and to each expert, not to a quantization.
        "ffn_gate_inp.scale" | "ffn_down_exps.scale" if is(&["gemma4"]) => shape.n_expert.is_some(),
        // Factors of one tensor that files of NVFP4 have.
        _ => !part.ends_with(".scale") && !part.ends_with(".input_scale"),
    }
}

/// Gate and up of all experts as llama.cpp fuses them, taken apart as converters write them; all but Gemma 4's, which comes
/// fused.
fn parts(spec: &ModelSpec, tensor: &MakerTensor) -> Option<[MakerTensor; 2]> {
    let stem = tensor.name.strip_suffix("ffn_gate_up_exps.weight").filter(|_| spec.architecture != "gemma4")?;
    let part = |name: &str| {
        let mut half = MakerTensor { name: format!("{stem}{name}.weight"), ..tensor.clone() };
        half.shape[1] /= 2;
        half
    };
    Some([part("ffn_gate_exps"), part("ffn_up_exps")])
}

/// Query, key and value of each block as one matrix (and one bias).
fn fuse_attention(tensors: &mut Vec<MakerTensor>) {
    let mut fused: Vec<MakerTensor> = Vec::with_capacity(tensors.len());
    for tensor in tensors.drain(..) {
        let (_, part) = split_name(&tensor.name);
        let (query, more, axis) = match part {
            "attn_q.weight" => (true, false, 1),
            "attn_q.bias" => (true, false, 0),
            "attn_k.weight" | "attn_v.weight" => (false, true, 1),
            "attn_k.bias" | "attn_v.bias" => (false, true, 0),
            _ => (false, false, 0),
        };
        let name = ["attn_q.", "attn_k.", "attn_v."]
            .iter()
            .fold(tensor.name.clone(), |name, one| name.replace(one, "attn_qkv."));
        if query {
            fused.push(MakerTensor { name, ..tensor });
        } else if more {
            if let Some(whole) = fused.iter_mut().rev().find(|whole| whole.name == name) {
                whole.shape[axis] += tensor.shape[axis];
            }
        } else {
            fused.push(tensor);
        }
    }
    *tensors = fused;
}

/// The type in the file that is quantized: the converter (`conversion/base.py` of llama.cpp) keeps vectors, norms, routers,
/// position tables and convolution kernels in F32 and makes the rest half precision.
fn source_type(spec: &ModelSpec, tensor: &MakerTensor) -> TensorType {
    let (_, part) = split_name(&tensor.name);
    let vector = tensor.shape[1..].iter().all(|size| *size == 1);
    let exact = vector
        || !part.ends_with(".weight")
        || part.ends_with("_norm.weight")
        || [
            "ffn_gate_inp.weight",
            "ffn_gate_inp_shexp.weight",
            "position_embd.weight",
            "token_types.weight",
            "ssm_conv1d.weight",
        ]
        .contains(&part);
    let half = if native_experts(spec, part) {
        "MXFP4"
    } else if part == "per_layer_model_proj.weight" {
        // Not quantized, and published in the precision of the training.
        "BF16"
    } else {
        "F16"
    };
    known(if exact { "F32" } else { half })
}

/// Whether a tensor is published in MXFP4 and stays so in every quantization, because quantizing it again costs quality and
/// saves nothing: gpt-oss's experts (`llama-quantize` refuses to requantize them, and every published file keeps them).
pub(crate) fn is_native(spec: &ModelSpec, name: &str) -> bool {
    native_experts(spec, split_name(name).1)
}

fn native_experts(spec: &ModelSpec, part: &str) -> bool {
    spec.architecture == "gpt-oss"
        && ["ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"].contains(&part)
}

/// A type that is in the table for certain.
fn known(name: &str) -> TensorType {
    TensorType::from_name(name).expect("a name of the crate's own table")
}

/// Whether a pattern, in which `*` stands for anything, is the whole of a name.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [
            ("blk.*.ffn_down.weight", "blk.12.ffn_down.weight"),
            ("*exps*", "blk.0.ffn_up_exps.weight"),
            ("output.weight", "output.weight"),
            ("*", "anything"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("blk.*.ffn_down.weight", "blk.12.ffn_down.bias"),
            ("output", "output.weight"),
            ("attn*", "blk.0.attn_q.weight"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
