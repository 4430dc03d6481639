//! What the gate lets through, llama.cpp takes or refuses in words: no worker dies of it.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use muster_engine::gguf::fuzz_one;
use muster_engine::worker::{SizeOptions, SizeRequest, WorkerCommand, WorkerError, size};
use muster_proto::{ContextTokens, EngineSettings};

use crate::attacks::valid;
use crate::fuzz::{Random, mutate};
use crate::raw::{Raw, llama};

/// Changed files that passed the gate and go to a worker.
const INPUTS: usize = 150;

/// What a worker says of a file.
async fn outcome(bytes: Vec<u8>) -> Result<(), WorkerError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let settings = EngineSettings { context: ContextTokens::new(256), parallel: 1, ..EngineSettings::default() };
    let request = SizeRequest { path, settings, devices: Vec::new(), options: SizeOptions::default() };
    let command = WorkerCommand::new(env!("CARGO_BIN_EXE_engine-worker"));
    let sized = tokio::time::timeout(Duration::from_mins(2), size(&command, request)).await;
    sized.expect("a worker that does not come back").map(drop)
}

#[tokio::test]
async fn the_tiny_models_are_models() {
    for (name, raw) in valid().into_iter().filter(|(name, _)| !name.contains("part")) {
        outcome(raw.bytes()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn what_passes_kills_no_worker() {
    let corpus: Vec<Vec<u8>> =
        valid().into_iter().filter(|(name, _)| !name.contains("part")).map(|(_, raw)| raw.bytes()).collect();
    let seed = std::env::var("MUSTER_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = Random(seed);
    let mut inputs = Vec::new();
    while inputs.len() < INPUTS {
        let original = &corpus[random.below(corpus.len())];
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut random);
        let judged = fuzz_one(&bytes);
        // A change of the data alone is none.
        if judged.is_ok_and(|header| {
            bytes.get(..usize::try_from(header.data_offset).unwrap())
                != original.get(..usize::try_from(header.data_offset).unwrap())
        }) {
            inputs.push(bytes);
        }
    }
    no_deaths(inputs).await;
}

/// Sends files to workers; none may die.
async fn no_deaths(inputs: Vec<Vec<u8>>) {
    let keep = std::env::var_os("MUSTER_KEEP_DEATHS");
    let outcomes: Vec<(usize, Vec<u8>, Result<(), WorkerError>)> = stream::iter(inputs.into_iter().enumerate())
        .map(|(index, bytes)| async move { (index, bytes.clone(), outcome(bytes).await) })
        .buffer_unordered(4)
        .collect()
        .await;
    let mut deaths = Vec::new();
    for (index, bytes, outcome) in outcomes {
        match outcome {
            Ok(()) | Err(WorkerError::Refused { .. }) => {}
            Err(error) => {
                if let Some(folder) = &keep {
                    std::fs::write(std::path::Path::new(folder).join(format!("death-{index}.gguf")), &bytes).unwrap();
                }
                let architecture = fuzz_one(&bytes).map(|header| header.architecture().to_owned());
                deaths.push(format!("{index} ({}): {error:?}", architecture.unwrap_or_default()));
            }
        }
    }
    assert!(deaths.is_empty(), "{} workers died:\n{}", deaths.len(), deaths.join("\n"));
}

/// Numbers that architectures read beside those of the tiny model.
const NUMBERS: [&str; 38] = [
    "expert_count",
    "expert_used_count",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "expert_shared_count",
    "expert_group_count",
    "expert_group_used_count",
    "expert_gating_func",
    "experts_per_group",
    "leading_dense_block_count",
    "interleave_moe_layer_step",
    "moe_every_n_layers",
    "nextn_predict_layers",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_mla",
    "attention.value_length_mla",
    "attention.q_lora_rank",
    "attention.kv_lora_rank",
    "attention.sliding_window",
    "attention.group_norm_groups",
    "attention.relative_buckets_count",
    "attention.shared_kv_layers",
    "attention.indexer.head_count",
    "attention.indexer.key_length",
    "attention.indexer.top_k",
    "attention.output_group_count",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "ssm.group_count",
    "wkv.head_size",
    "token_shift_count",
    "time_mix_extra_dim",
    "full_attention_interval",
    "kda.head_dim",
    "embedding_length_per_layer_input",
];

/// The tiny model as one of another architecture.
fn as_architecture(architecture: &str, random: &mut Random) -> Raw {
    let mut raw = llama().text("general.architecture", architecture);
    for (key, _) in &mut raw.entries {
        if let Some(name) = key.strip_prefix("llama.") {
            *key = format!("{architecture}.{name}");
        }
    }
    raw = raw.f32(&format!("{architecture}.attention.layer_norm_epsilon"), 1e-5);
    for name in NUMBERS {
        if random.below(3) > 0 {
            let values = [0, 1, 2, 2, 4, 4, 8, 16, 32, 3];
            raw = raw.u32(&format!("{architecture}.{name}"), values[random.below(values.len())]);
        }
    }
    raw
}

#[tokio::test]
async fn odd_shapes_of_every_architecture_kill_no_worker() {
    let seed = std::env::var("MUSTER_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = Random(seed);
    let mut inputs = Vec::new();
    for architecture in ARCHITECTURES {
        // The gate refuses most of such numbers.
        let passes = (0..3000).map(|_| as_architecture(architecture, &mut random).bytes());
        let passes: Vec<Vec<u8>> = passes.filter(|bytes| fuzz_one(bytes).is_ok()).take(2).collect();
        assert!(!passes.is_empty(), "{architecture}");
        inputs.extend(passes);
    }
    no_deaths(inputs).await;
}

/// llama.cpp's (`llama-arch.cpp`).
const ARCHITECTURES: [&str; 153] = [
    "llama",
    "llama4",
    "deci",
    "falcon",
    "grok",
    "gpt2",
    "gptj",
    "gptneox",
    "mpt",
    "baichuan",
    "starcoder",
    "refact",
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "bloom",
    "stablelm",
    "qwen",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "qwen3next",
    "qwen3vl",
    "qwen3vlmoe",
    "qwen35",
    "qwen35moe",
    "clef",
    "qwen4exp",
    "phi2",
    "phi3",
    "phimoe",
    "plamo",
    "plamo2",
    "plamo3",
    "codeshell",
    "orion",
    "internlm2",
    "minicpm",
    "minicpm3",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma4-assistant",
    "gemma-embedding",
    "starcoder2",
    "mamba",
    "mamba2",
    "maple",
    "jamba",
    "falcon-h1",
    "xverse",
    "command-r",
    "cohere2",
    "cohere2moe",
    "dbrx",
    "olmo",
    "olmo2",
    "olmoe",
    "muse-glimmer",
    "openelm",
    "arctic",
    "deepseek",
    "deepseek2",
    "deepseek2-ocr",
    "deepseek32",
    "deepseek4",
    "chatglm",
    "glm4",
    "glm4moe",
    "glm-dsa",
    "bitnet",
    "t5",
    "t5encoder",
    "jais",
    "jais2",
    "nemotron",
    "nemotron_h",
    "nemotron_h_moe",
    "exaone",
    "exaone4",
    "exaone-moe",
    "rwkv6",
    "rwkv6qwen2",
    "rwkv7",
    "arwkv7",
    "granite",
    "granitemoe",
    "granitehybrid",
    "graniteswitch",
    "granite_swa",
    "chameleon",
    "wavtokenizer-dec",
    "plm",
    "bailingmoe",
    "bailingmoe2",
    "bailingmoe3",
    "dots1",
    "dots3note",
    "arcee",
    "afmoe",
    "laguna",
    "ernie4_5",
    "ernie4_5-moe",
    "hunyuan-moe",
    "hunyuan-dense",
    "hunyuan_vl",
    "hy_v3",
    "hy_v4",
    "smollm3",
    "gpt-oss",
    "lfm2",
    "lfm2moe",
    "dream",
    "smallthinker",
    "llada",
    "llada-moe",
    "seed_oss",
    "grovemoe",
    "apertus",
    "minimax-01",
    "hrm_text",
    "minimax-m2",
    "minimax-m3",
    "cogvlm",
    "rnd1",
    "pangu-embedded",
    "mistral3",
    "eagle3",
    "dflash",
    "mistral4",
    "paddleocr",
    "mimo2",
    "step35",
    "spark2_5",
    "llama-embed",
    "maincoder",
    "kimi-linear",
    "kimi-k3",
    "glm5-next",
    "talkie",
    "mellum",
    "nanbeige",
    "qwen3tts",
    "pockettts",
];
