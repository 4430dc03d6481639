//! [`Question`]: everything that an estimate depends on.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use muster_proto::{Benchmark, Bytes, ContextTokens, FlashAttention, KvType, ModelSource};

use super::TargetDevice;
use crate::device_table::KnownDevice;
use crate::worker::{Graphs, Outputs};

/// This model, on these devices, with these settings.
#[derive(Clone, Debug)]
pub struct Question {
    /// The file; its header is enough.
    pub path: PathBuf,
    /// What to call the model; `None` takes the file's own name for it.
    pub name: Option<String>,
    /// Where it was found.
    pub source: ModelSource,
    /// Its devices, in llama.cpp's order; none means on the CPU alone.
    pub devices: Vec<TargetDevice>,
    /// What models can have of main memory; `None` judges nothing there.
    pub host_memory: Option<Bytes>,
    /// Context over all sequences; `None` takes what the model was trained with, or as much of it as fits.
    pub context: Option<ContextTokens>,
    /// Sequences answered at the same time.
    pub parallel: u32,
    /// Tokens submitted to llama.cpp at once.
    pub batch: u32,
    /// Tokens computed at once.
    pub ubatch: u32,
    /// Type of the KV cache.
    pub kv_type: KvType,
    /// One KV cache that all sequences share.
    pub kv_unified: bool,
    /// Fused attention.
    pub flash_attention: FlashAttention,
    /// For how many tokens logits are reserved.
    pub outputs: Outputs,
    /// Whose compute graphs are counted on devices.
    pub graphs: Graphs,
    /// Layers on devices.
    pub gpu_layers: GpuLayers,
    /// Layers whose experts stay in main memory.
    pub experts_on_host: ExpertsOnHost,
    /// What llama.cpp's fit, and a context that may shrink, leave free on each device.
    pub margin: Bytes,
    /// Context that is filled already, for the speed.
    pub depth: ContextTokens,
    /// What was measured on the machine that the devices are of.
    pub benchmark: Option<Benchmark>,
    /// The machine's processor; `None` takes a usual desktop's for what is computed there.
    pub host: Option<&'static KnownDevice>,
    /// What the reader should know of how the question came about.
    pub notes: Vec<String>,
    /// The same model in other quantizations, which may fit where this one does not.
    pub siblings: Vec<Sibling>,
}

impl Question {
    /// A question with llama.cpp's own settings about a file on these devices.
    pub fn new(path: PathBuf, source: ModelSource, devices: Vec<TargetDevice>) -> Self {
        Self {
            path,
            name: None,
            source,
            devices,
            host_memory: None,
            context: None,
            parallel: 1,
            batch: 2048,
            ubatch: 512,
            kv_type: KvType::F16,
            kv_unified: false,
            flash_attention: FlashAttention::Auto,
            outputs: Outputs::MicroBatch,
            graphs: Graphs::EarlierBuilds,
            gpu_layers: GpuLayers::Auto,
            experts_on_host: ExpertsOnHost::Layers(0),
            margin: Self::MARGIN,
            depth: ContextTokens::new(0),
            benchmark: None,
            host: None,
            notes: Vec::new(),
            siblings: Vec::new(),
        }
    }

    /// llama.cpp's own margin: 1 GiB on each device (`fit_params_target` in `common.h`).
    pub const MARGIN: Bytes = Bytes::from_gib(1);

    /// A context that may shrink does not get smaller than this for each sequence (`fit_params_min_ctx` in `common.h`).
    pub const MIN_CONTEXT: ContextTokens = ContextTokens::new(4096);

    /// KV caches of their own that sequences have.
    pub(super) fn streams(&self) -> u32 {
        if self.kv_unified { 1 } else { self.parallel.max(1) }
    }
}

/// Who decides how many layers go to devices. The output counts as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuLayers {
    /// llama.cpp's own fit.
    Auto,
    /// All, whether they fit or not.
    All,
    /// So many, from the last.
    Count(u32),
}

/// Layers whose experts stay in main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertsOnHost {
    /// Those of every layer.
    All,
    /// Those of so many layers, from the first; 0 leaves it to llama.cpp's fit, where that decides.
    Layers(u32),
}

/// The same model in another quantization.
#[derive(Clone)]
pub struct Sibling {
    /// llama.cpp's name of the quantization.
    pub quantization: String,
    /// Bytes of its weights, about: what is offered is checked by a dry run.
    pub weights: Bytes,
    /// Makes its file, or finds it.
    pub file: Arc<dyn Fn() -> SiblingFile + Send + Sync>,
}

/// A file that is being found or made; the error is a sentence.
pub type SiblingFile = Pin<Box<dyn Future<Output = Result<PathBuf, String>> + Send>>;

impl fmt::Debug for Sibling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sibling")
            .field("quantization", &self.quantization)
            .field("weights", &self.weights)
            .finish_non_exhaustive()
    }
}
