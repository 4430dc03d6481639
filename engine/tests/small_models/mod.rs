//! Small models with random weights, of architectures that place and cache differently, for comparing dry runs with real
//! loads. Each is a reference model made small: its kinds of layers stay, its widths and counts shrink.

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
    /// The first quantization of its kind: worth every setting.
    pub first: bool,
}

/// What is made, by reference model: its quantizations, and how it becomes small.
type Recipe = (&'static str, &'static [&'static str], fn(&mut Shape));

const RECIPES: [Recipe; 6] = [
    // Dense, with norms of query and key.
    ("qwen3-0.6b", &["Q5_K_M", "Q6_K"], |shape| {
        shape.n_layer = 4;
        shape.n_ff = PerLayer::Same(768);
    }),
    // Experts.
    ("qwen3-30b-a3b", &["Q4_K_M", "Q8_0", "IQ4_XS", "Q4_0"], |shape| {
        shape.n_layer = 4;
        shape.n_expert = Some(16);
        shape.n_ff_exp = Some(256);
    }),
    // Sliding windows, norms after each part.
    ("gemma-3-1b", &["Q4_K_M", "Q8_0", "BF16"], |shape| {
        shape.n_layer = 7;
        shape.n_ff = PerLayer::Same(768);
        shape.n_swa = Some(256);
    }),
    // Experts with biases in MXFP4, windows, sinks.
    ("gpt-oss-20b", &["MXFP4_MOE"], |shape| {
        shape.n_layer = 4;
        shape.n_expert = Some(8);
        shape.n_ff_exp = Some(256);
    }),
    // Compressed keys and values (MLA), a dense first layer, a shared expert.
    ("deepseek-v3", &["Q4_K_M", "Q8_0"], |shape| {
        shape.n_layer = 4;
        shape.n_ff = PerLayer::Same(768);
        shape.n_layer_dense_lead = Some(1);
        shape.q_lora_rank = Some(256);
        shape.n_expert = Some(16);
        shape.n_ff_exp = Some(256);
    }),
    // Recurrent layers between those with attention.
    ("qwen3-next-80b-a3b", &["Q4_K_M", "Q8_0"], |shape| {
        shape.n_layer = 4;
        shape.n_expert = Some(16);
        shape.n_ff_exp = Some(256);
        shape.n_ff_shexp = Some(256);
    }),
];

/// Some are so wide that a small one would not be: these fit all recipes.
fn narrow(shape: &mut Shape) {
    shape.n_embd = 512;
    shape.n_head = PerLayer::Same(shape.n_head.max().min(8));
    shape.n_head_kv = PerLayer::Same(shape.n_head_kv.max().min(2));
    shape.n_vocab = 4096;
    shape.n_ctx_train = 4096;
}

/// All of them, made in a folder.
pub async fn all(command: &WorkerCommand, folder: &Path) -> Vec<Model> {
    let mut all = Vec::new();
    // With real weights: the model that ships with Muster, in quantizations that llama.cpp made.
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
                threads: None,
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

    for (id, quantizations, shrink) in RECIPES {
        let model = reference::find(id).unwrap();
        let mut spec = ModelSpec::from(model);
        narrow(&mut spec.shape);
        shrink(&mut spec.shape);
        for quantization in quantizations {
            let path = folder.join(format!("{id}-{quantization}.gguf"));
            let request = MakeRequest {
                spec: spec.clone(),
                quantization: quantization.parse().unwrap(),
                path: path.clone(),
                weights: Weights::Random { seed: 1 },
            };
            make_model(command, request).await.unwrap_or_else(|error| panic!("{id} {quantization}: {error}"));
            all.push(Model {
                name: format!("{id} ({}) made small, {quantization}", spec.architecture),
                path,
                layers: spec.shape.n_layer,
                experts: spec.shape.n_expert.is_some(),
                first: *quantization == quantizations[0],
            });
        }
    }
    all
}
