//! The catalog: [`Model`]s, their [`Artifact`]s, and what each artifact needs in memory.

use serde::{Deserialize, Serialize};

use crate::{Bytes, ContextTokens, ModelDigest, Quality, Timestamp};

/// A model that the operator imported, in one or more quantizations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// What operators and clients call it: 1 to 96 of `a-z A-Z 0-9 . _ - : /`, unique in the catalog.
    pub name: String,
    /// llama.cpp's architecture, e.g. `llama`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// The context it was trained with.
    pub context_train: Option<ContextTokens>,
    /// The licence as the file states it.
    pub licence: Option<String>,
    /// When it came into the catalog.
    pub imported_at: Timestamp,
    /// Its files, most bits per weight first.
    pub artifacts: Vec<Artifact>,
}

/// One file of a model: one quantization, one digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// SHA-256 of the file: its identity.
    pub digest: ModelDigest,
    /// The quantization as llama.cpp names it, e.g. `Q4_K_M`.
    pub quantization: String,
    /// Size of the file.
    pub size: Bytes,
    /// Bits of tensor data per parameter.
    pub bits_per_weight: f64,
    /// Where it came from.
    pub source: ArtifactSource,
    /// How far it is from what it was made from; `None` if that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

/// Where an artifact came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ArtifactSource {
    /// An operator imported the file.
    Imported,
    /// Quantized on the controller from another artifact.
    QuantizedFrom {
        /// The artifact it was made from.
        digest: ModelDigest,
    },
}

/// What one artifact takes with given settings on given devices, as llama.cpp's own dry run says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNeed {
    /// One entry for each device that gets something, in llama.cpp's order; the host is not among them.
    pub devices: Vec<DeviceMemory>,
    /// Main memory, the CPU's own buffers included.
    pub host: DeviceMemory,
}

impl MemoryNeed {
    /// All of it, over host and devices.
    pub fn total(&self) -> Bytes {
        self.devices.iter().map(DeviceMemory::total).sum::<Bytes>() + self.host.total()
    }
}

/// Memory on one device, by what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// llama.cpp's name of the device; `Host` for main memory.
    pub name: String,
    /// Weights.
    pub model: Bytes,
    /// KV cache and recurrent state.
    pub context: Bytes,
    /// Compute and output buffers.
    pub compute: Bytes,
}

impl DeviceMemory {
    /// All three together.
    pub fn total(&self) -> Bytes {
        self.model + self.context + self.compute
    }
}
