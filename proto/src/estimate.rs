//! [`Estimate`]: what one model takes on given devices, and how fast it will run there.
//!
//! Its JSON is the contract of `muster estimate --json` (`docs/estimate.md`): fields are only ever added.

use serde::{Deserialize, Serialize};

use crate::{Bytes, ContextTokens, FlashAttention, KvType, TokensPerSecond};

/// The answer to one question: this model, on these devices, with these settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// What was judged.
    pub model: EstimatedModel,
    /// Every device that was asked about, in the order asked, those that get nothing too.
    pub devices: Vec<EstimatedDevice>,
    /// Main memory.
    pub host: EstimatedHost,
    /// Layers on devices; the output counts as one.
    pub gpu_layers: u32,
    /// All layers; the output counts as one.
    pub total_layers: u32,
    /// Context over all sequences, as llama.cpp rounded or fitted it.
    pub n_ctx: ContextTokens,
    /// Whether that is less than the model was trained with because more does not fit.
    pub context_shrank: bool,
    /// How fast it will run; `None` where no device is known.
    pub speed: Option<EstimatedSpeed>,
    /// Whether all of it has room as it was placed.
    pub fits: bool,
    /// What is left where it is tightest; nothing if it does not fit.
    pub spare_bytes: Option<Bytes>,
    /// What is missing, all devices together; 0 if it fits.
    pub short_bytes: Bytes,
    /// What all layers on the devices would miss, where llama.cpp's fit left some in main memory.
    pub full_offload_short_bytes: Option<Bytes>,
    /// The answer in one sentence.
    pub sentence: String,
    /// Layers on devices of which a part stays in main memory: the experts of a mixture, else matrices of the feed-forward
    /// part.
    pub partial_layers: u32,
    /// How the model would run.
    pub settings: EstimateSettings,
    /// Changes with which all of it would fit, each checked by a dry run; only looked for where it does not.
    pub alternatives: Vec<Alternative>,
    /// What the reader should know of these figures.
    pub warnings: Vec<String>,
    /// The llama.cpp build whose dry run this is.
    pub engine_build: String,
}

/// The model of an estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EstimatedModel {
    /// Its name, as the file or the list of reference models has it.
    pub name: String,
    /// Where it was found.
    pub source: ModelSource,
    /// llama.cpp's architecture, e.g. `llama`.
    pub architecture: String,
    /// The quantization as llama.cpp names it.
    pub quantization: Option<String>,
    /// Number of parameters.
    pub parameters: u64,
    /// Size of the whole file.
    pub file_bytes: Bytes,
    /// The context it was trained with.
    pub context_train: ContextTokens,
    /// Experts, 0 for a dense model.
    pub experts: u32,
}

/// Where the model of an estimate was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// A file that was named.
    File,
    /// The reference models that ship with Muster.
    Reference,
    /// The catalog of a controller.
    Catalog,
}

/// What goes to one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EstimatedDevice {
    /// The name that it was asked about by.
    pub name: String,
    /// The vendor's name for it, where one is known.
    pub description: Option<String>,
    /// The backend whose rules were taken, e.g. `CUDA`.
    pub backend: String,
    /// What models can have of it.
    pub memory_bytes: Bytes,
    /// Weights.
    pub model_bytes: Bytes,
    /// KV cache and recurrent state.
    pub context_bytes: Bytes,
    /// Compute buffers.
    pub compute_bytes: Bytes,
    /// What the driver takes beyond these buffers; learnt, not computed. `None` on a device that gets nothing.
    pub driver_bytes: Option<Bytes>,
    /// What is left.
    pub free_bytes: Bytes,
    /// What is missing.
    pub short_bytes: Bytes,
    /// Layers on it; the output counts as one.
    pub layers: u32,
}

impl EstimatedDevice {
    /// All that goes to it, the driver's part included.
    pub fn used(&self) -> Bytes {
        self.model_bytes + self.context_bytes + self.compute_bytes + self.driver_bytes.unwrap_or(Bytes::ZERO)
    }
}

/// What goes to main memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EstimatedHost {
    /// What models can have of it; `None` where nothing is known, and nothing is judged then.
    pub memory_bytes: Option<Bytes>,
    /// Weights, copies repacked for the CPU included.
    pub model_bytes: Bytes,
    /// KV cache and recurrent state.
    pub context_bytes: Bytes,
    /// Compute and output buffers.
    pub compute_bytes: Bytes,
}

impl EstimatedHost {
    /// All that goes there.
    pub fn used(&self) -> Bytes {
        self.model_bytes + self.context_bytes + self.compute_bytes
    }
}

/// How fast a model will run, each speed with the interval that four of five real ones are in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EstimatedSpeed {
    /// Prefill.
    pub prefill_tokens_per_second: TokensPerSecond,
    /// The lower end of its interval.
    pub prefill_low: TokensPerSecond,
    /// The upper end.
    pub prefill_high: TokensPerSecond,
    /// Decode of one sequence.
    pub decode_tokens_per_second: TokensPerSecond,
    /// The lower end of its interval.
    pub decode_low: TokensPerSecond,
    /// The upper end.
    pub decode_high: TokensPerSecond,
    /// Context that was filled already.
    pub depth: ContextTokens,
    /// What it was computed from, for people.
    pub basis: String,
}

/// How the model of an estimate would run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EstimateSettings {
    /// Sequences answered at the same time.
    pub parallel: u32,
    /// Tokens submitted to llama.cpp at once (`n_batch`).
    pub batch: u32,
    /// Tokens computed at once (`n_ubatch`).
    pub ubatch: u32,
    /// Type of the KV cache.
    pub kv_type: KvType,
    /// One KV cache that all sequences share.
    pub kv_unified: bool,
    /// Fused attention.
    pub flash_attention: FlashAttention,
    /// Logits reserved: `micro_batch` (llama.cpp's own programs) or `sequence` (Muster's engine).
    pub outputs: OutputsReserved,
    /// Compute graphs counted on devices: `earlier` (builds whose logs are public) or `this_build` (Muster's engine).
    pub graphs: ComputeGraphs,
    /// What llama.cpp's fit was told to leave free on each device; `None` where it did not place the layers.
    pub margin_bytes: Option<Bytes>,
}

/// For how many tokens logits are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputsReserved {
    /// For every token of a micro-batch.
    MicroBatch,
    /// For one token of each sequence.
    Sequence,
}

/// Whose compute graphs are counted on devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeGraphs {
    /// Those of the llama.cpp builds whose logs are public.
    Earlier,
    /// Those of the build that the engine links: what a load on a desk then takes.
    ThisBuild,
}

/// A change with which all of the model would fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// What differs.
    #[serde(flatten)]
    pub change: Change,
    /// What is left then where it is tightest.
    pub spare_bytes: Option<Bytes>,
    /// How fast it runs then.
    pub speed: Option<EstimatedSpeed>,
}

/// One change to what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A smaller context.
    Context {
        /// Over all sequences.
        n_ctx: ContextTokens,
    },
    /// A smaller type of KV cache.
    KvCache {
        /// The type.
        kv_type: KvType,
    },
    /// A smaller quantization.
    Quantization {
        /// llama.cpp's name for it.
        quantization: String,
    },
    /// Fewer layers on devices.
    Offload {
        /// Layers on devices.
        gpu_layers: u32,
        /// Layers on devices of which a part stays in main memory.
        partial_layers: u32,
    },
}
