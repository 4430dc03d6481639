//! What a model's header says of its shape, where llama.cpp would divide by it, index by it, allocate by it, or end the
//! process: `load_hparams` in `llama-model.cpp` asserts most of these and trusts others.
//!
//! It does not know which keys and tensors an architecture needs: that is llama.cpp's to say, in words.

use super::metadata::Metadata;
use super::tokenizer::MOST_TOKENS;
use super::value::kind;
use super::{GgufError, Value, asserted};

/// llama.cpp's `LLAMA_MAX_LAYERS`.
const MOST_LAYERS: u64 = 512;
/// llama.cpp's `LLAMA_MAX_EXPERTS`.
const MOST_EXPERTS: u64 = 1024;
/// Longest context: llama.cpp's positions are `i32`.
const LONGEST_CONTEXT: u64 = i32::MAX as u64;
/// Widest hidden state and the like; the largest models have some twenty thousand.
const WIDEST: u64 = 1 << 20;
/// Widest feed-forward layer.
const WIDEST_FORWARD: u64 = 1 << 24;
/// Most attention heads, and the widest of them.
const MOST_HEADS: u64 = 1 << 14;
const WIDEST_HEAD: u64 = 1 << 16;
/// What llama.cpp knows; it asserts that it knows it.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

/// Keys behind the architecture's name that must be a `u32` in a range.
const NUMBERS: [(&str, u64, u64); 28] = [
    ("context_length", 1, LONGEST_CONTEXT),
    ("embedding_length", 1, WIDEST),
    ("embedding_length_out", 0, WIDEST),
    ("vocab_size", 0, MOST_TOKENS),
    ("attention.key_length", 0, WIDEST_HEAD),
    ("attention.value_length", 0, WIDEST_HEAD),
    ("attention.key_length_mla", 0, WIDEST_HEAD),
    ("attention.value_length_mla", 0, WIDEST_HEAD),
    ("attention.key_length_swa", 0, WIDEST_HEAD),
    ("attention.value_length_swa", 0, WIDEST_HEAD),
    ("attention.q_lora_rank", 0, WIDEST),
    ("attention.kv_lora_rank", 0, WIDEST),
    ("attention.indexer.head_count", 0, MOST_HEADS),
    ("attention.indexer.key_length", 0, WIDEST_HEAD),
    ("rope.dimension_count_swa", 0, WIDEST_HEAD),
    ("expert_shared_count", 0, MOST_EXPERTS),
    ("expert_shared_feed_forward_length", 0, WIDEST_FORWARD),
    ("leading_dense_block_count", 0, MOST_LAYERS),
    ("ssm.conv_kernel", 0, 1 << 10),
    ("ssm.inner_size", 0, WIDEST),
    ("ssm.state_size", 0, WIDEST_HEAD),
    ("ssm.time_step_rank", 0, WIDEST),
    ("ssm.group_count", 0, WIDEST_HEAD),
    ("kda.head_dim", 0, WIDEST_HEAD),
    ("token_shift_count", 0, 1 << 10),
    ("decoder_block_count", 0, MOST_LAYERS),
    // llama.cpp divides by it.
    ("wkv.head_size", 1, WIDEST_HEAD),
    ("embedding_length_per_layer_input", 0, WIDEST),
];

/// Keys behind the architecture's name that must be an `f32`.
const FRACTIONS: [&str; 6] = [
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "attention.max_alibi_bias",
];

/// Architectures whose layers divide `ssm.inner_size` by `ssm.group_count`.
const GROUPED_SSM: [&str; 5] = ["mamba2", "falcon-h1", "granitehybrid", "nemotron_h", "nemotron_h_moe"];
/// Architectures that count layers by `interleave_moe_layer_step` and divide by it.
const INTERLEAVED: [&str; 1] = ["ernie4_5-moe"];

/// Judges the shape of the model of this architecture.
pub(super) fn check(metadata: &Metadata, architecture: &str) -> Result<(), GgufError> {
    if architecture == "clip" {
        let detail = "it is a projector of images or sound (mmproj), not a language model".to_owned();
        return Err(GgufError::NoModel { detail });
    }
    let key = |name: &str| format!("{architecture}.{name}");
    for (name, least, most) in NUMBERS {
        metadata.u32(&key(name), least, most)?;
    }
    for name in FRACTIONS {
        metadata.typed(&key(name), kind::F32)?;
    }
    metadata.u32("general.file_type", 0, u64::from(u32::MAX))?;

    let layers = metadata.u32(&key("block_count"), 1, MOST_LAYERS)?;
    let next = key("nextn_predict_layers");
    if let (Some(layers), Some(predicting)) = (layers, metadata.u32(&next, 0, MOST_LAYERS)?)
        && predicting > layers
    {
        return Err(metadata.fail(&next, format!("it is {predicting}, more than the {layers} layers")));
    }
    for name in ["posnet.block_count", "convnext.block_count"] {
        metadata.u32(&key(name), 0, layers.unwrap_or(MOST_LAYERS))?;
    }
    metadata.per_layer(&key("feed_forward_length"), 0, WIDEST_FORWARD)?;
    metadata.per_layer(&key("expert_feed_forward_length"), 0, WIDEST_FORWARD)?;
    check_heads(metadata, architecture)?;
    check_experts(metadata, architecture)?;

    let rotated = key("rope.dimension_count");
    if metadata.u32(&rotated, 0, WIDEST_HEAD)?.is_some_and(|dimensions| dimensions % 2 != 0) {
        return Err(metadata.fail(&rotated, "it is odd, and dimensions are rotated in pairs"));
    }
    let scaling = key("rope.scaling.type");
    if let Some(name) = metadata.text(&scaling)?
        && !ROPE_SCALINGS.contains(&name)
    {
        let detail = format!("{} is none of {}", super::error::quote(name), ROPE_SCALINGS.join(", "));
        return Err(metadata.fail(&scaling, detail));
    }
    if GROUPED_SSM.contains(&architecture) {
        metadata.u32(&key("ssm.group_count"), 1, WIDEST_HEAD)?;
        if metadata.u32(&key("ssm.inner_size"), 0, WIDEST)?.is_some_and(|size| size > 0) {
            metadata.u32(&key("ssm.time_step_rank"), 1, WIDEST)?;
        }
    }
    if architecture == "grovemoe" {
        metadata.u32(&key("experts_per_group"), 1, MOST_EXPERTS)?;
    }
    if INTERLEAVED.contains(&architecture) {
        metadata.u32(&key("interleave_moe_layer_step"), 1, MOST_LAYERS)?;
    }
    asserted::check(metadata, architecture)
}

fn check_heads(metadata: &Metadata, architecture: &str) -> Result<(), GgufError> {
    let key = format!("{architecture}.attention.head_count");
    let key_kv = format!("{architecture}.attention.head_count_kv");
    let heads = metadata.per_layer(&key, 0, MOST_HEADS)?;
    let heads_kv = metadata.per_layer(&key_kv, 0, MOST_HEADS)?;
    let (Some(heads), Some(heads_kv)) = (heads, heads_kv) else { return Ok(()) };
    let of = |counts: &[u64], layer: usize| counts.get(layer).or(counts.first()).copied().unwrap_or_default();
    for layer in 0..heads.len().max(heads_kv.len()) {
        let (heads, heads_kv) = (of(&heads, layer), of(&heads_kv, layer));
        if heads > 0 && heads_kv > 0 && heads % heads_kv != 0 {
            let detail = format!("{heads} heads of layer {layer} cannot share {heads_kv} KV heads evenly");
            return Err(metadata.fail(&key_kv, detail));
        }
    }
    Ok(())
}

fn check_experts(metadata: &Metadata, architecture: &str) -> Result<(), GgufError> {
    let key = |name: &str| format!("{architecture}.{name}");
    let experts = metadata.u32(&key("expert_count"), 0, MOST_EXPERTS)?.unwrap_or(0);
    let used_key = key("expert_used_count");
    let used = metadata.per_layer(&used_key, 0, MOST_EXPERTS)?.unwrap_or_default();
    let used = used.into_iter().max().unwrap_or(0);
    let groups_key = key("expert_group_count");
    let groups = metadata.u32(&groups_key, 0, MOST_EXPERTS)?.unwrap_or(0);
    let groups_used_key = key("expert_group_used_count");
    let groups_used = metadata.u32(&groups_used_key, 0, MOST_EXPERTS)?.unwrap_or(0);
    // llama.cpp takes one expert for none in these.
    let none = matches!(architecture, "hunyuan-dense" | "hunyuan_vl") && experts <= 1;
    let (experts, used) = if none { (0, 0) } else { (experts, used) };
    if used > experts {
        return Err(metadata.fail(&used_key, format!("it is {used}, more than the {experts} experts")));
    }
    if experts > 0 && used == 0 {
        return Err(metadata.fail(&key("expert_count"), format!("of {experts} experts none is used")));
    }
    if groups > 0 && groups >= experts {
        return Err(metadata.fail(&groups_key, format!("{groups} groups of {experts} experts")));
    }
    if groups > 1 {
        if experts % groups != 0 {
            return Err(metadata.fail(&groups_key, format!("{experts} experts do not divide into {groups} groups")));
        }
        if groups_used == 0 || groups_used >= groups {
            return Err(metadata.fail(&groups_key, format!("{groups_used} of {groups} groups are used")));
        }
    }
    Ok(())
}

/// The alignment of tensor data.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    const KEY: &str = "general.alignment";
    match metadata.typed(KEY, kind::U32)?.and_then(Value::as_u64) {
        None => Ok(super::DEFAULT_ALIGNMENT),
        Some(alignment) if alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) => Ok(alignment),
        Some(alignment) => {
            Err(metadata.fail(KEY, format!("it is {alignment}, and must be a power of two from 8 to 1048576")))
        }
    }
}
