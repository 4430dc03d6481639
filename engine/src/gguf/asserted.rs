//! What llama.cpp asserts, or divides by, of single architectures when it builds their graphs (`src/models/*.cpp` of the
//! version that is built in). Found by giving workers odd shapes of every architecture; a header that breaks a rule here
//! ends the process there, so refusing it loses nothing.

use super::GgufError;
use super::metadata::Metadata;

/// Those whose keys and values must have heads of the same size: `n_embd_head == hparams.n_embd_head_k()`.
const EVEN_HEADS: [&str; 44] = [
    "arcee",
    "arctic",
    "baichuan",
    "bitnet",
    "bloom",
    "chameleon",
    "chatglm",
    "codeshell",
    "command-r",
    "dbrx",
    "deepseek",
    "dream",
    "exaone",
    "falcon",
    "gpt2",
    "gptneox",
    "granite",
    "granitemoe",
    "internlm2",
    "jais",
    "jais2",
    "llada",
    "llada-moe",
    "llama",
    "maincoder",
    "minimax-m2",
    "nemotron",
    "olmo",
    "olmoe",
    "orion",
    "phi2",
    "plamo",
    "qwen",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder",
    "starcoder2",
    "xverse",
];
/// Those of them that rotate whole heads: `n_embd_head == n_rot`.
const ROTATED_HEADS: [&str; 27] = [
    "arcee",
    "arctic",
    "baichuan",
    "chameleon",
    "codeshell",
    "dbrx",
    "deepseek",
    "dream",
    "exaone",
    "falcon",
    "internlm2",
    "jais2",
    "llada",
    "llada-moe",
    "llama",
    "maincoder",
    "olmo",
    "olmoe",
    "orion",
    "plamo",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "smollm3",
    "starcoder2",
];
/// Those that are mixtures of experts always.
const ALWAYS_EXPERTS: [&str; 5] = ["bailingmoe2", "glm4moe", "grovemoe", "llada-moe", "smallthinker"];
/// Those that divide the feed-forward width by the experts in use where experts have no width of their own.
const DIVIDED_WIDTH: [&str; 7] = ["mellum", "qwen2moe", "qwen35moe", "qwen3moe", "qwen3next", "qwen3vlmoe", "rnd1"];
/// Those that split heads into a rotated part and a rest, which must not be empty.
const SPLIT_HEADS: [&str; 2] = ["deepseek2", "mistral4"];

/// Judges what the architecture asserts. Ranges were judged before.
pub(super) fn check(metadata: &Metadata, architecture: &str) -> Result<(), GgufError> {
    let key = |name: &str| format!("{architecture}.{name}");
    let number = |name: &str| metadata.u32(&key(name), 0, u64::from(u32::MAX));
    let most = |name: &str| -> Result<u64, GgufError> {
        let layers = metadata.per_layer(&key(name), 0, u64::from(u32::MAX))?;
        Ok(layers.and_then(|layers| layers.into_iter().max()).unwrap_or(0))
    };
    if ALWAYS_EXPERTS.contains(&architecture) && number("expert_count")?.unwrap_or(0) == 0 {
        return Err(metadata.fail(&key("expert_count"), "this architecture always has experts, and none are counted"));
    }
    if DIVIDED_WIDTH.contains(&architecture)
        && most("expert_used_count")? == 0
        && most("expert_feed_forward_length")? == 0
    {
        return Err(
            metadata.fail(&key("expert_used_count"), "no expert is used, and experts have no width of their own")
        );
    }
    if architecture.starts_with("qwen3") || matches!(architecture, "qwen4exp" | "minimax-01") {
        // Layers are counted by it: the remainder of a division.
        metadata.u32(&key("full_attention_interval"), 1, u64::from(u32::MAX))?;
    }
    if matches!(architecture, "granitehybrid" | "jamba")
        && let (Some(inner), Some(width)) = (number("ssm.inner_size")?, number("embedding_length")?)
        && inner != 2 * width
    {
        return Err(metadata.fail(&key("ssm.inner_size"), format!("it is {inner}, not twice the width of {width}")));
    }

    // As `load_hparams` derives them, of the first layer.
    let heads = metadata.per_layer(&key("attention.head_count"), 0, u64::from(u32::MAX))?;
    let heads = heads.and_then(|heads| heads.first().copied()).unwrap_or(0);
    let Some(width) = number("embedding_length")?.filter(|_| heads > 0) else { return Ok(()) };
    let keys = number("attention.key_length")?.unwrap_or(width / heads);
    let values = number("attention.value_length")?.unwrap_or(width / heads);
    let rotated = number("rope.dimension_count")?.unwrap_or(keys);
    if EVEN_HEADS.contains(&architecture) && keys != values {
        let detail = format!("keys of {keys} and values of {values}, which must be the same in this architecture");
        return Err(metadata.fail(&key("attention.key_length"), detail));
    }
    if ROTATED_HEADS.contains(&architecture) && rotated != keys {
        let detail = format!("it is {rotated}, and must be the heads' {keys} in this architecture");
        return Err(metadata.fail(&key("rope.dimension_count"), detail));
    }
    let mla = number("attention.key_length_mla")?.zip(number("attention.value_length_mla")?);
    let keys = mla.filter(|(keys, values)| *keys > 0 && *values > 0).map_or(keys, |(keys, _)| keys);
    if SPLIT_HEADS.contains(&architecture) && rotated >= keys {
        let detail = format!("it is {rotated}, and must be less than the heads' {keys} in this architecture");
        return Err(metadata.fail(&key("rope.dimension_count"), detail));
    }
    Ok(())
}
