//! [`EarlierBuild`]: in what the compute buffers of llama.cpp's earlier builds differed.
//!
//! Each is a public fact of a build, not a number fitted to logs: the linked llama.cpp's own dry run is made with the graph
//! that such a build had, as far as a phantom device can change it (`shim/phantom.cpp`). When a build changed is from memory
//! of its public history; the shape of its log lines says the same (`tests/memory_logs/vintage.rs`).

/// What differs between earlier builds. All of them lacked the inputs for batches that mix tokens and embeddings, and their
/// backends did not reorder graphs or keep tensors longer for fused operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlierBuild {
    /// The mask of fused attention came to the first device in F32 (4 bytes for each token of a micro-batch and cell of the
    /// cache) and was cast to F16 there; other devices got the cast. Until b8680 at least, by the size of the mask in main
    /// memory.
    pub f32_masks: bool,
    /// New rows were copied into the KV cache by views. Since the summer of 2025 (`ggml_set_rows`) an input says where each
    /// goes: 8 bytes for each value of a micro-batch where attention is not fused, whose cache of values is transposed.
    pub copied_rows: bool,
}

impl Default for EarlierBuild {
    /// Builds from the autumn of 2025 to the spring of 2026.
    fn default() -> Self {
        Self { f32_masks: true, copied_rows: false }
    }
}
