//! [`ModelCosts`]: what one model costs per token, whatever it runs on.
//!
//! Counted from a GGUF's tensors and keys ([`ModelCosts::of`]) or from a reference model's facts and a quantization
//! ([`ModelCosts::from_facts`]). It does not know of devices or seconds: that is [`physics`](super::physics).

use std::collections::{BTreeMap, BTreeSet};

use crate::gguf::{GgufHeader, Tensor};

/// Matrices of one type of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// ggml's name of the type, e.g. `Q4_K`.
    pub kind: String,
    /// Parameters.
    pub parameters: f64,
    /// Bytes.
    pub bytes: f64,
}

/// Attention layers that cost the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// How many.
    pub layers: f64,
    /// The most tokens that they look back; `None` for the whole context.
    pub window: Option<u64>,
    /// Elements of the KV cache per token and layer, keys and values together.
    pub cache_elements: f64,
    /// Multiplications per token, layer and token of context: query heads × (key + value length).
    pub products: f64,
    /// Query heads.
    pub heads: f64,
    /// Length of a key.
    pub head_size: f64,
}

/// What one token of a model costs: weights read and multiplied, cache read, layers launched.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCosts {
    /// llama.cpp's name of the architecture.
    pub architecture: String,
    /// Transformer blocks.
    pub layers: f64,
    /// Blocks with experts.
    pub expert_layers: f64,
    /// Blocks with a recurrent state instead of attention.
    pub recurrent_layers: f64,
    /// Width of the residual stream.
    pub width: f64,
    /// Weights of the blocks that every token passes.
    pub dense: Vec<Weights>,
    /// Weights of all routed experts.
    pub experts: Vec<Weights>,
    /// Experts in a block; 0 for a dense model.
    pub expert_count: f64,
    /// Of which a token uses this many.
    pub experts_used: f64,
    /// Width of an expert.
    pub expert_width: f64,
    /// The output matrix; `None` for an embedding model.
    pub output: Option<Weights>,
    /// Attention, by kind of layer.
    pub attention: Vec<Attention>,
    /// Elements of the recurrent states of all layers, in F32.
    pub state_elements: f64,
}

/// Why nothing could be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CostsError {
    /// The header lacks something.
    #[error("the model's speed cannot be estimated: its header has no {missing}")]
    Missing {
        /// What it lacks.
        missing: String,
    },
    /// The quantization has no known size.
    #[error("the model's speed cannot be estimated: unknown quantization {name:?}")]
    Quantization {
        /// Its name.
        name: String,
    },
}

/// Shape of a model, as the reference models' data file states it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFacts {
    numbers: BTreeMap<String, f64>,
    architecture: String,
    tied: bool,
}

impl ModelFacts {
    /// Reads one line of the data file: `arch`, `n_layer`, `n_embd`, … as `zoo.jsonl` names them.
    pub fn from_json(value: &serde_json::Value) -> Self {
        let numbers = value
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_f64().filter(|number| *number > 0.0)?)))
            .collect();
        let architecture = value["arch"].as_str().unwrap_or_default().to_owned();
        Self { numbers, architecture, tied: value["tied"].as_bool().unwrap_or(false) }
    }

    fn get(&self, key: &str) -> Option<f64> {
        self.numbers.get(key).copied()
    }

    fn need(&self, key: &str) -> Result<f64, CostsError> {
        self.get(key).ok_or_else(|| CostsError::Missing { missing: key.to_owned() })
    }
}

/// Bits per parameter of ggml's types that quantizations consist of (`ggml-common.h`: bytes of a block over elements).
const TYPE_BITS: [(&str, f64); 30] = [
    ("F32", 32.0),
    ("F16", 16.0),
    ("BF16", 16.0),
    ("Q8_0", 8.5),
    ("Q6_K", 6.5625),
    ("Q5_K", 5.5),
    ("Q5_0", 5.5),
    ("Q5_1", 6.0),
    ("Q4_K", 4.5),
    ("Q4_0", 4.5),
    ("Q4_1", 5.0),
    ("Q3_K", 3.4375),
    ("Q2_K", 2.625),
    ("MXFP4", 4.25),
    ("NVFP4", 4.5),
    ("IQ4_NL", 4.5),
    ("IQ4_XS", 4.25),
    ("IQ3_S", 3.4375),
    ("IQ3_M", 3.66),
    ("IQ3_XS", 3.3),
    ("IQ3_XXS", 3.0625),
    ("IQ3_K", 3.4375),
    ("IQ3_KT", 3.125),
    ("IQ2_M", 2.7),
    ("IQ2_S", 2.5625),
    ("IQ2_XS", 2.3125),
    ("IQ2_XXS", 2.0625),
    ("IQ1_M", 1.75),
    ("IQ1_S", 1.5625),
    ("TQ1_0", 1.6875),
];

/// The type that most matrices of a quantization have, and its bits per parameter with those that get a larger type.
fn body_type(quantization: &str) -> Option<(&'static str, f64)> {
    let base =
        TYPE_BITS.into_iter().filter(|(name, _)| quantization.starts_with(name)).max_by_key(|(name, _)| name.len())?;
    // What llama.cpp's mixtures add on average over the reference models' blocks (`_M` and `_L` keep attention values
    // and half of the down projections in a larger type).
    let more = match quantization {
        "Q2_K" => 0.55,
        "Q3_K_M" => 0.42,
        "Q3_K_L" => 0.8,
        "Q4_K_M" => 0.3,
        "Q5_K_M" => 0.16,
        "Q4_K_S" | "Q5_K_S" | "IQ4_XS" | "IQ3_XXS" | "IQ2_XXS" => 0.05,
        _ => 0.0,
    };
    Some((base.0, base.1 + more))
}

impl ModelCosts {
    /// Counts from a reference model's facts in a quantization such as `Q4_K_M`. With the size of a real file of it, the
    /// blocks' share of that; else llama.cpp's usual mixtures.
    ///
    /// # Errors
    /// A fact is missing, or the quantization is unknown.
    pub fn from_facts(facts: &ModelFacts, quantization: &str, file_bytes: Option<f64>) -> Result<Self, CostsError> {
        let (layers, width, heads) = (facts.need("n_layer")?, facts.need("n_embd")?, facts.need("n_head")?);
        let kv_heads = facts.get("n_head_kv").unwrap_or(heads);
        let key = facts.get("head_dim_k").unwrap_or(width / heads);
        let value = facts.get("head_dim_v").unwrap_or(key);
        let arch = facts.architecture.as_str();
        let (kind, mut bits) =
            body_type(quantization).ok_or_else(|| CostsError::Quantization { name: quantization.to_owned() })?;

        let recurrent_layers = facts.get("n_layer_recurrent").unwrap_or_else(|| {
            facts.get("full_attention_interval").map_or(0.0, |interval| layers - (layers / interval).floor())
        });
        let attention_layers = facts.get("n_layer_attention").unwrap_or(layers - recurrent_layers);
        let (attention_parameters, cache, products, head_size) = if let Some(latent) = facts.get("kv_lora_rank") {
            // Multi-head latent attention, as llama.cpp computes it: queries against the compressed cache.
            let (query, rope) = (facts.need("q_lora_rank")?, facts.get("rope_dim").unwrap_or(64.0));
            let (key, value) = (facts.need("head_dim_k_mla")?, facts.need("head_dim_v_mla")?);
            let parameters = width * query
                + query * heads * key
                + width * (latent + rope)
                + heads * latent * (key - rope + value)
                + heads * value * width;
            (parameters, latent + rope, heads * (2.0 * latent + rope), latent + rope)
        } else {
            let gate = if facts.get("full_attention_interval").is_some() { heads * key } else { 0.0 };
            let parameters = width * (heads * key + kv_heads * (key + value) + gate) + heads * value * width;
            (parameters, kv_heads * (key + value), heads * (key + value), key)
        };
        let inner = facts.get("ssm_d_inner").unwrap_or(0.0);
        let state = facts.get("ssm_d_state").unwrap_or(0.0);
        let groups = facts.get("ssm_n_group").unwrap_or(1.0);
        let recurrent_parameters = width * (2.0 * inner + 2.0 * groups * state) + inner * width;

        let matrices = if matches!(arch, "phi2" | "starcoder2" | "bert" | "nemotron_h_moe") { 2.0 } else { 3.0 };
        let expert_count = facts.get("n_expert").unwrap_or(0.0);
        let expert_layers = if expert_count > 0.0 {
            facts.get("n_layer_moe").unwrap_or(
                ((layers - facts.get("n_layer_dense_lead").unwrap_or(0.0)) / facts.get("moe_step").unwrap_or(1.0))
                    .floor(),
            )
        } else {
            0.0
        };
        let feed_forward = facts.get("n_ff").unwrap_or(4.0 * width);
        let expert_width = facts.get("n_ff_exp").unwrap_or(feed_forward);
        let shared = facts.get("n_ff_shexp").unwrap_or(facts.get("n_expert_shared").unwrap_or(0.0) * expert_width);
        let dense_layers = if facts.get("n_layer_moe").is_some() { 0.0 } else { layers - expert_layers };
        let dense = attention_layers * attention_parameters
            + recurrent_layers * recurrent_parameters
            + dense_layers * matrices * width * feed_forward
            + expert_layers * width * (matrices * shared + expert_count);
        let experts = expert_layers * expert_count * matrices * width * expert_width;

        let output = facts.need("n_vocab")? * width;
        let wide = arch == "gpt-oss" && !quantization.contains('F') || kind == "MXFP4";
        let (dense_kind, output_kind) = match kind {
            "MXFP4" | "NVFP4" => ("Q8_0", "Q8_0"),
            "F32" | "F16" | "BF16" | "Q8_0" => (kind, kind),
            _ => (kind, "Q6_K"),
        };
        let bits_of = |kind: &str| TYPE_BITS.iter().find(|(name, _)| *name == kind).map_or(16.0, |(_, bits)| *bits);
        let mut dense_bits = if wide { 8.5 } else { bits };
        let embedding_bits = match kind {
            _ if facts.tied => 0.0,
            "MXFP4" => 8.5,
            _ => bits_of(kind),
        };
        if let Some(bytes) = file_bytes {
            let rest = bytes * 8.0 - output * (bits_of(output_kind) + embedding_bits);
            if wide && experts > 0.0 {
                bits = ((rest - dense * dense_bits) / experts).max(bits * 0.8);
            } else {
                bits = (rest / (dense + experts)).max(1.5);
                dense_bits = bits;
            }
        }
        let weights = |kind: &str, parameters: f64, bits: f64| Weights {
            kind: kind.to_owned(),
            parameters,
            bytes: parameters * bits / 8.0,
        };

        let full =
            Attention { layers: attention_layers, window: None, cache_elements: cache, products, heads, head_size };
        let mut attention = vec![full.clone()];
        let period = facts.get("swa_pattern_period");
        if let Some(window) = facts.get("n_swa").filter(|_| period.is_some() || arch == "gemma4" || arch == "phi3") {
            let sliding = match period {
                Some(period) => attention_layers - (attention_layers / period).floor(),
                None if arch == "phi3" => attention_layers,
                None => attention_layers - (attention_layers / 6.0).floor(),
            };
            attention = vec![
                Attention { layers: attention_layers - sliding, ..full.clone() },
                Attention { layers: sliding, window: Some(whole(window)), ..full },
            ];
        }
        Ok(Self {
            architecture: arch.to_owned(),
            layers,
            expert_layers,
            recurrent_layers,
            width,
            dense: vec![weights(dense_kind, dense, dense_bits)],
            experts: if experts > 0.0 { vec![weights(kind, experts, bits)] } else { Vec::new() },
            expert_count,
            experts_used: facts.get("n_expert_used").unwrap_or(0.0),
            expert_width,
            output: (!matches!(arch, "bert" | "nomic-bert"))
                .then(|| weights(output_kind, output, bits_of(output_kind))),
            attention,
            state_elements: recurrent_layers * inner * state,
        })
    }

    /// Counts from a file's header.
    ///
    /// # Errors
    /// The header lacks layers, width or heads.
    pub fn of(header: &GgufHeader) -> Result<Self, CostsError> {
        let architecture = header.architecture();
        let number = |key: &str| header.get_u64(&format!("{architecture}.{key}")).map(|number| number as f64);
        let need =
            |key: &str| number(key).ok_or_else(|| CostsError::Missing { missing: format!("{architecture}.{key}") });
        let width = need("embedding_length")?;
        // Blocks for predicting more tokens are in the file and not loaded.
        let layers = need("block_count")? - number("nextn_predict_layers").unwrap_or(0.0);
        let encoder = matches!(architecture, "bert" | "nomic-bert" | "nomic-bert-moe" | "jina-bert-v2");

        let mut dense = BTreeMap::new();
        let mut experts = BTreeMap::new();
        let mut output = None;
        let mut embedding = None;
        let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
        for tensor in &header.tensors {
            let place = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            let Some((index, name)) = place.and_then(|(index, name)| Some((index.parse::<u64>().ok()?, name))) else {
                match tensor.name.as_str() {
                    "output.weight" => output = Some(weights_of(tensor)),
                    "token_embd.weight" => embedding = Some(weights_of(tensor)),
                    // One row of each is read for a token.
                    name if name.contains("_embd") || name.starts_with("token_") => {}
                    _ => add(&mut dense, tensor),
                }
                continue;
            };
            if index as f64 >= layers {
                continue;
            }
            let block = blocks.entry(index).or_default();
            block.names.insert(name.to_owned());
            let rows = tensor.dimensions.get(1).copied().unwrap_or(1) as f64;
            match name {
                "attn_q.weight" => block.query = rows,
                "attn_k.weight" => block.key = rows,
                "attn_v.weight" => block.value = rows,
                "attn_kv_a_mqa.weight" => block.latent = rows,
                _ => {}
            }
            if name.contains("_exps.") {
                add(&mut experts, tensor);
            } else {
                add(&mut dense, tensor);
            }
        }
        if !encoder {
            output = output.or(embedding);
        }

        let heads = number("attention.head_count");
        // Layers with a window may have shorter keys, and a list may say which those are.
        let list = header.get_integers(&format!("{architecture}.attention.sliding_window_pattern"));
        let lengths = ("attention.key_length_swa", "attention.value_length_swa");
        let head_size = number("attention.key_length").or(heads.map(|heads| width / heads)).unwrap_or(128.0);
        let value_size = number("attention.value_length").unwrap_or(head_size);
        let heads = heads
            .or_else(|| blocks.values().map(|block| block.query / head_size).find(|heads| *heads >= 1.0))
            .unwrap_or(width / head_size);
        let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
        let window = number("attention.sliding_window").filter(|window| *window > 0.0).map(whole);
        let period = number("attention.sliding_window_pattern").or(default_period(architecture));
        let mut attention: Vec<Attention> = Vec::new();
        let (mut expert_layers, mut recurrent_layers) = (0.0, 0.0);
        for (blocks_before, block) in blocks.values().enumerate() {
            let index = blocks_before as f64 + 1.0;
            if block.names.iter().any(|name| name.contains("_exps.")) {
                expert_layers += 1.0;
            }
            let recurrent = block.names.iter().any(|name| name.starts_with("ssm_") || name.starts_with("time_mix_"));
            if recurrent {
                recurrent_layers += 1.0;
            }
            let attends =
                block.names.iter().any(|name| name.starts_with("attn_output")) && !(recurrent && block.key == 0.0);
            if !attends {
                continue;
            }
            let slides = match list.and_then(|list| list.get(blocks_before)) {
                Some(listed) => *listed != 0,
                None => period.is_none_or(|period| period <= 1.0 || index % period != 0.0),
            };
            let window = window.filter(|_| slides);
            let own = |key, of_all| number(key).filter(|_| window.is_some()).unwrap_or(of_all);
            let (head_size, value_size) = (own(lengths.0, head_size), own(lengths.1, value_size));
            let (cache_elements, products) = if block.latent > 0.0 {
                (block.latent, heads * (2.0 * block.latent - number("rope.dimension_count").unwrap_or(64.0)))
            } else if block.key > 0.0 {
                // Where keys and values are one matrix, both are stored.
                let value = if block.value > 0.0 { block.value } else { block.key };
                (block.key + value, heads * (head_size + value_size))
            } else {
                (kv_heads * (head_size + value_size), heads * (head_size + value_size))
            };
            let layer = Attention { layers: 1.0, window, cache_elements, products, heads, head_size };
            match attention.iter_mut().find(|known| Attention { layers: 1.0, ..(*known).clone() } == layer) {
                Some(known) => known.layers += 1.0,
                None => attention.push(layer),
            }
        }
        let state_elements = recurrent_layers
            * number("ssm.inner_size").unwrap_or(width)
            * number("ssm.state_size").or(number("wkv.head_size")).unwrap_or(0.0);
        Ok(Self {
            architecture: architecture.to_owned(),
            layers,
            expert_layers,
            recurrent_layers,
            width,
            dense: dense.into_values().collect(),
            experts: experts.into_values().collect(),
            expert_count: number("expert_count").unwrap_or(0.0),
            experts_used: number("expert_used_count").unwrap_or(0.0),
            expert_width: number("expert_feed_forward_length").or(number("feed_forward_length")).unwrap_or(0.0),
            output,
            attention,
            state_elements,
        })
    }

    /// Of the routed experts' weights, the share that `tokens` in one batch read: each token draws `used` of `count`
    /// experts, so an expert stays unread with probability `(1 − used/count)^tokens`.
    pub fn experts_read(&self, tokens: f64) -> f64 {
        if self.expert_count <= 0.0 {
            return 0.0;
        }
        1.0 - (1.0 - (self.experts_used / self.expert_count).min(1.0)).powf(tokens)
    }

    /// Share of the routed experts' weights that one token is multiplied with.
    pub fn experts_active(&self) -> f64 {
        if self.expert_count > 0.0 { (self.experts_used / self.expert_count).min(1.0) } else { 0.0 }
    }

    /// Bytes of weights that one decoded token reads.
    pub fn bytes_per_token(&self) -> f64 {
        let all = |weights: &[Weights]| weights.iter().map(|weights| weights.bytes).sum::<f64>();
        all(&self.dense)
            + all(&self.experts) * self.experts_active()
            + self.output.as_ref().map_or(0.0, |output| output.bytes)
    }

    /// Parameters that one decoded token is multiplied with.
    pub fn parameters_per_token(&self) -> f64 {
        let all = |weights: &[Weights]| weights.iter().map(|weights| weights.parameters).sum::<f64>();
        all(&self.dense)
            + all(&self.experts) * self.experts_active()
            + self.output.as_ref().map_or(0.0, |output| output.parameters)
    }
}

#[derive(Default)]
struct Block {
    names: BTreeSet<String>,
    query: f64,
    key: f64,
    value: f64,
    latent: f64,
}

/// One layer in how many attends to everything, where llama.cpp has it in code and not in the file
/// (`llama_model::load_hparams`: `set_swa_pattern`).
fn default_period(architecture: &str) -> Option<f64> {
    Some(match architecture {
        "gemma2" | "gpt-oss" => 2.0,
        "gemma3" | "gemma4" => 6.0,
        "gemma3n" => 5.0,
        "cohere2" | "llama4" | "olmo2" | "exaone4" => 4.0,
        _ => return None,
    })
}

fn weights_of(tensor: &Tensor) -> Weights {
    Weights { kind: tensor.kind.name.to_owned(), parameters: tensor.elements() as f64, bytes: tensor.bytes as f64 }
}

fn add(all: &mut BTreeMap<&'static str, Weights>, tensor: &Tensor) {
    let one = weights_of(tensor);
    all.entry(tensor.kind.name)
        .and_modify(|sum| {
            sum.parameters += one.parameters;
            sum.bytes += one.bytes;
        })
        .or_insert(one);
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a window of tokens, checked to be positive"
)]
fn whole(number: f64) -> u64 {
    number as u64
}
