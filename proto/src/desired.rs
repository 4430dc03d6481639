//! [`DesiredState`]: everything one machine should run, whole, with a generation.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{AssignmentId, Bytes, ContextTokens, MemoryNeed, ModelDigest, TokensPerSecond};

/// Everything a machine should run. Always whole, never a change: an agent that holds it needs nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesiredState {
    /// Rises with every change. An agent refuses an older one, and the same one with other content.
    pub generation: u64,
    /// What should run; empty means nothing.
    pub assignments: Vec<DesiredAssignment>,
}

/// One model to run on the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesiredAssignment {
    /// The decision that this is.
    pub id: AssignmentId,
    /// What it is for, e.g. `chat`.
    pub role: String,
    /// The name that clients of the desk's endpoint use.
    pub model: String,
    /// The quantization, for people.
    pub quantization: String,
    /// The file.
    pub digest: ModelDigest,
    /// Its size.
    pub size: Bytes,
    /// How the engine runs it: the very settings that memory was computed with.
    pub settings: EngineSettings,
    /// What the controller expects of it on this machine.
    pub prediction: Prediction,
}

open_enum! {
    /// Type of the numbers in the KV cache.
    KvType {
        /// 16-bit floats.
        F16 = 1 => "f16",
        /// 8-bit blocks.
        Q8_0 = 2 => "q8_0",
        /// 4-bit blocks.
        Q4_0 = 3 => "q4_0",
    }
}

open_enum! {
    /// Whether attention is computed by fused kernels, which need no matrix of scores.
    FlashAttention {
        /// Where the device can.
        Auto = 1 => "auto",
        /// Always.
        On = 2 => "on",
        /// Never.
        Off = 3 => "off",
    }
}

/// llama.cpp's own choice: wherever the device can.
fn auto() -> FlashAttention {
    FlashAttention::Auto
}

/// How the engine loads and runs a model; sizing and loading take the same type, so that an estimate is what happens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EngineSettings {
    /// Context of each sequence.
    pub context: ContextTokens,
    /// Sequences answered at the same time.
    pub parallel: u32,
    /// Tokens submitted to llama.cpp at once (`n_batch`).
    pub batch: u32,
    /// Tokens computed at once (`n_ubatch`).
    pub ubatch: u32,
    /// Type of the KV cache.
    pub kv_type: KvType,
    /// Layers on GPU devices; `None` leaves it to llama.cpp, which takes all.
    pub gpu_layers: Option<u32>,
    /// One KV cache that all sequences share, instead of an equal part for each.
    #[serde(default)]
    pub kv_unified: bool,
    /// Fused attention.
    #[serde(default = "auto")]
    pub flash_attention: FlashAttention,
    /// Layers, from the first, whose experts stay in main memory though the rest of the layer is on a GPU.
    #[serde(default)]
    pub expert_layers_on_host: u32,
}

impl Default for EngineSettings {
    /// llama.cpp's own batch sizes, one sequence of 4096 tokens.
    fn default() -> Self {
        Self {
            context: ContextTokens::new(4096),
            parallel: 1,
            batch: 2048,
            ubatch: 512,
            kv_type: KvType::F16,
            gpu_layers: None,
            kv_unified: false,
            flash_attention: FlashAttention::Auto,
            expert_layers_on_host: 0,
        }
    }
}

/// What is expected of an assignment on its machine. What nothing is known of is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Memory, from llama.cpp's dry run.
    pub memory: MemoryNeed,
    /// Prefill speed of an empty context.
    pub prefill: Option<TokensPerSecond>,
    /// Decode speed of an empty context.
    pub decode: Option<TokensPerSecond>,
}
