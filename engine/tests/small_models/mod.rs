//! Small models with random weights, of architectures that place and cache differently, for comparing dry runs with real
//! loads. Each is a reference model made small: its kinds of layers stay, its widths and counts shrink. Heads are narrow,
//! because a software device compiles the flash attention of 256 and more for minutes.

#![allow(dead_code, reason = "shared by two tests, and each takes what it needs")]

use std::path::{Path, PathBuf};

use muster_engine::maker::{ModelSpec, PerLayer, Shape};
use muster_engine::random_model::{RandomModelSpec, write_random_model};
use muster_engine::reference;
use muster_engine::worker::{MakeRequest, QuantizeRequest, Weights, WorkerCommand, make_model, quantize};

/// A model file.
pub struct Model {
    /// For the table.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Blocks; the output is one layer more.
    pub layers: u32,
    /// Whether it has experts.
    pub experts: bool,
    /// Worth every setting: the first quantization of its kind.
    pub first: bool,
}

/// A reference model to make small: its quantizations, and how it shrinks.
pub struct Recipe {
    id: &'static str,
    quantizations: &'static [&'static str],
    shrink: fn(&mut Shape),
    /// In every setting, not only in the corners: not those whose shaders a software device compiles slowly.
    thorough: bool,
}

/// Dense, with norms of query and key.
pub const DENSE: Recipe = Recipe {
    id: "qwen3-0.6b",
    quantizations: &["Q5_K_M", "Q6_K"],
    shrink: |shape| {
        shape.n_layer = 4;
        shape.n_ff = PerLayer::Same(768);
    },
    thorough: true,
};
/// Experts.
pub const EXPERTS: Recipe = Recipe {
    id: "qwen3-30b-a3b",
    quantizations: &["Q4_K_M", "Q8_0", "IQ4_XS", "Q4_0"],
    shrink: |shape| {
        shape.n_layer = 4;
        shape.n_expert = Some(16);
        shape.n_ff_exp = Some(256);
    },
    thorough: true,
};
/// Sliding windows, norms after each part.
pub const WINDOWS: Recipe = Recipe {
    id: "gemma-3-1b",
    quantizations: &["Q4_K_M", "Q8_0", "BF16"],
    shrink: |shape| {
        shape.n_layer = 7;
        shape.n_ff = PerLayer::Same(768);
        shape.n_swa = Some(256);
        shape.head_dim_k = 64;
        shape.head_dim_v = 64;
    },
    thorough: true,
};
/// Experts with biases in MXFP4, windows, sinks.
pub const SINKS: Recipe = Recipe {
    id: "gpt-oss-20b",
    quantizations: &["MXFP4_MOE"],
    shrink: |shape| {
        shape.n_layer = 4;
        shape.n_expert = Some(8);
        shape.n_ff_exp = Some(256);
    },
    thorough: false,
};
/// Compressed keys and values (MLA), a dense first layer, a shared expert.
pub const COMPRESSED: Recipe = Recipe {
    id: "deepseek-v3",
    quantizations: &["Q4_K_M"],
    shrink: |shape| {
        shape.n_layer = 4;
        shape.n_ff = PerLayer::Same(768);
        shape.n_layer_dense_lead = Some(1);
        shape.q_lora_rank = Some(256);
        shape.kv_lora_rank = Some(64);
        shape.rope_dim = Some(32);
        // What is cached, and what it becomes for each head.
        (shape.head_dim_k, shape.head_dim_v) = (64 + 32, 64);
        (shape.head_dim_k_mla, shape.head_dim_v_mla) = (Some(64), Some(32));
        shape.n_expert = Some(16);
        shape.n_ff_exp = Some(256);
    },
    thorough: false,
};
/// Recurrent layers between those with attention.
pub const RECURRENT: Recipe = Recipe {
    id: "qwen3-next-80b-a3b",
    quantizations: &["Q4_K_M", "Q8_0"],
    shrink: |shape| {
        shape.n_layer = 4;
        shape.n_expert = Some(16);
        shape.n_ff_exp = Some(256);
        shape.n_ff_shexp = Some(256);
        (shape.head_dim_k, shape.head_dim_v) = (64, 64);
        shape.rope_dim = Some(32);
    },
    thorough: false,
};

/// Matrices that are too large for one binding of a software device (128 MiB), which leaves them to the host.
pub const TOO_LARGE: Recipe = Recipe {
    id: "qwen3-0.6b",
    quantizations: &["F16"],
    shrink: |shape| {
        shape.n_layer = 2;
        shape.n_vocab = 150_000;
    },
    thorough: false,
};

/// Some are so wide that a small one would not be: these fit all recipes.
fn narrow(shape: &mut Shape) {
    shape.n_embd = 512;
    shape.n_head = PerLayer::Same(shape.n_head.max().min(8));
    shape.n_head_kv = PerLayer::Same(shape.n_head_kv.max().min(2));
    shape.n_vocab = 4096;
    shape.n_ctx_train = 4096;
}

/// Real weights: the model that ships with Muster, in quantizations that llama.cpp makes of it, and a random one.
pub async fn llama(command: &WorkerCommand, folder: &Path) -> Vec<Model> {
    let mut all = Vec::new();
    let bundled = folder.join("muster-tiny-f16.gguf");
    std::fs::write(&bundled, muster_engine::bundled::MUSTER_TINY_F16).unwrap();
    for quantization in ["Q4_K_M", "Q8_0", "Q4_0", "F16"] {
        let path = if quantization == "F16" {
            bundled.clone()
        } else {
            let target = folder.join(format!("muster-tiny-{quantization}.gguf"));
            let request = QuantizeRequest {
                source: bundled.clone(),
                target: target.clone(),
                quantization: quantization.into(),
                ..QuantizeRequest::default()
            };
            quantize(command, request, |_| {}).await.unwrap();
            target
        };
        let name = format!("muster-tiny (llama) {quantization}");
        all.push(Model { name, path, layers: 4, experts: false, first: quantization == "Q4_K_M" });
    }
    let path = folder.join("llama-8m.gguf");
    let spec = RandomModelSpec::tiny("Q4_K");
    write_random_model(&path, &spec).unwrap();
    all.push(Model { name: "llama-8m Q4_K".into(), path, layers: spec.layers, experts: false, first: false });
    all
}

/// Made small, in each of its quantizations.
pub async fn made(command: &WorkerCommand, folder: &Path, recipe: &Recipe) -> Vec<Model> {
    let mut spec = ModelSpec::from(reference::find(recipe.id).unwrap());
    narrow(&mut spec.shape);
    (recipe.shrink)(&mut spec.shape);
    let mut all = Vec::new();
    for quantization in recipe.quantizations {
        let path = folder.join(format!("{}-{quantization}.gguf", recipe.id));
        let request = MakeRequest {
            spec: spec.clone(),
            quantization: quantization.parse().unwrap(),
            path: path.clone(),
            weights: Weights::Random { seed: 1 },
        };
        make_model(command, request).await.unwrap_or_else(|error| panic!("{} {quantization}: {error}", recipe.id));
        all.push(Model {
            name: format!("{} ({}) made small, {quantization}", recipe.id, spec.architecture),
            path,
            layers: spec.shape.n_layer,
            experts: spec.shape.n_expert.is_some(),
            first: recipe.thorough && *quantization == recipe.quantizations[0],
        });
    }
    all
}
