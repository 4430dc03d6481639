//! [`Shape`]: the numbers that make a model's tensors and caches, by the names that the reference models' file gives them.

use serde::{Deserialize, Serialize};

/// A number that all layers share, or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLayer {
    /// The same everywhere.
    Same(u32),
    /// One for each layer, the first layer first.
    Each(Vec<u32>),
}

impl Default for PerLayer {
    fn default() -> Self {
        Self::Same(0)
    }
}

impl PerLayer {
    /// The largest of them.
    pub fn max(&self) -> u32 {
        match self {
            Self::Same(number) => *number,
            Self::Each(numbers) => numbers.iter().copied().max().unwrap_or(0),
        }
    }
}

/// How rotary positions are stretched beyond the first training context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeScaling {
    /// `linear`, `yarn` or `longrope`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f32>,
    /// The context before.
    #[serde(default, rename = "orig", skip_serializing_if = "Option::is_none")]
    pub original_context: Option<u32>,
}

/// Widths, counts and switches. What an architecture does not have is `None` or false. The names are those of the data
/// file `data/reference_models.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Transformer blocks that compute; blocks that predict further tokens come on top.
    pub n_layer: u32,
    /// Width of the residual stream.
    pub n_embd: u32,
    /// Query heads.
    pub n_head: PerLayer,
    /// Key/value heads.
    pub n_head_kv: PerLayer,
    /// Width of a key head.
    pub head_dim_k: u32,
    /// Width of a value head.
    pub head_dim_v: u32,
    /// Width of the feed-forward part; 0 where there are only experts.
    pub n_ff: PerLayer,
    /// Tokens in the vocabulary.
    pub n_vocab: u32,
    /// Context that it was trained with.
    pub n_ctx_train: u32,

    /// The output matrix is the embedding.
    pub tied: Option<bool>,
    /// Query, key and value have biases.
    pub qkv_bias: bool,
    /// Query, key and value are one matrix in the file.
    pub fused_qkv: bool,
    /// Query and key are normalized.
    pub qk_norm: bool,
    /// Epsilon of the norms.
    pub norm_eps: Option<f32>,

    /// Width of the rotated part of a head.
    pub rope_dim: Option<u32>,
    /// Base of the rotary frequencies.
    pub rope_base: Option<f32>,
    /// The same in layers with a window.
    pub rope_base_swa: Option<f32>,
    /// The file has factors of the frequencies.
    pub rope_freqs: bool,
    /// The file has factors for short and for long contexts.
    pub rope_long: bool,
    /// Stretched positions.
    pub rope_scaling: Option<RopeScaling>,

    /// Sliding window in tokens.
    pub n_swa: Option<u32>,
    /// One layer of so many sees everything.
    pub swa_pattern_period: Option<u32>,
    /// Which layers have the window.
    pub swa_pattern: Option<Vec<bool>>,
    /// Width of a key head (and value head) in layers with a window.
    pub head_dim_k_swa: Option<u32>,
    /// The last so many layers use the cache of an earlier one.
    pub n_kv_shared: Option<u32>,
    /// Layers that see everything use the key as the value.
    pub k_is_v_global: bool,
    /// Width of the embedding of each layer.
    pub n_embd_per_layer: Option<u32>,

    /// Experts.
    pub n_expert: Option<u32>,
    /// Experts that a token uses.
    pub n_expert_used: Option<u32>,
    /// Width of an expert.
    pub n_ff_exp: Option<u32>,
    /// Experts that every token uses.
    pub n_expert_shared: Option<u32>,
    /// Width of the shared expert.
    pub n_ff_shexp: Option<u32>,
    /// First layers without experts.
    pub n_layer_dense_lead: Option<u32>,
    /// Every so many layers has experts.
    pub moe_step: Option<u32>,
    /// The router has biases for choosing.
    pub exp_probs_b: bool,
    /// llama.cpp's number of the router's function.
    pub gating: Option<u32>,
    /// Factor of the experts' weights.
    pub expert_weights_scale: Option<f32>,

    /// Blocks that predict further tokens.
    pub n_nextn: Option<u32>,

    /// Rank of the query's compression.
    pub q_lora_rank: Option<u32>,
    /// Rank of the key's and value's compression.
    pub kv_lora_rank: Option<u32>,
    /// Width of a key head after decompression.
    pub head_dim_k_mla: Option<u32>,
    /// Width of a value head after decompression.
    pub head_dim_v_mla: Option<u32>,

    /// One layer of so many has full attention, the others are recurrent.
    pub full_attention_interval: Option<u32>,
    /// Kernel of the recurrent layers' convolution.
    pub ssm_d_conv: Option<u32>,
    /// Their inner width.
    pub ssm_d_inner: Option<u32>,
    /// Their state's width.
    pub ssm_d_state: Option<u32>,
    /// Their value heads.
    pub ssm_dt_rank: Option<u32>,
    /// Their key heads.
    pub ssm_n_group: Option<u32>,

    /// Factor of the logits.
    pub logit_scale: Option<f32>,
    /// Soft limit of attention scores.
    pub attn_softcap: Option<f32>,
    /// Soft limit of logits.
    pub final_softcap: Option<f32>,
    /// Token types of an encoder.
    pub n_token_types: Option<u32>,
}

impl Shape {
    /// Blocks in the file, those that predict further tokens too.
    pub fn blocks(&self) -> u32 {
        self.n_layer.saturating_add(self.n_nextn.unwrap_or(0))
    }

    /// Whether a layer has the sliding window, as far as an explicit pattern says it.
    pub fn has_window(&self, layer: u32) -> bool {
        let at = usize::try_from(layer).unwrap_or(usize::MAX);
        self.swa_pattern.as_ref().is_some_and(|pattern| pattern.get(at).copied().unwrap_or(false))
    }
}
