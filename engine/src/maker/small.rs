//! Small models of an architecture: a few megabytes that still go through all of its code.

use super::{ModelSpec, PerLayer, Shape};
use crate::reference::ReferenceModel;

/// Layers of a small model: a whole period of every pattern of layers that the reference models have.
const LAYERS: u32 = 6;
/// Width of a head.
const HEAD: u32 = 64;
/// Query heads.
const HEADS: u32 = 4;

impl ModelSpec {
    /// A model like this one, of a few million parameters: the same architecture, biases, norms, patterns of layers,
    /// experts and tied matrices, with narrow layers, for tests and for benchmarks of an architecture.
    pub fn small(model: &ReferenceModel) -> Self {
        let full = Self::from(model);
        let from = &full.shape;
        let some = |given: Option<u32>, small: u32| given.map(|_| small);
        let mla = from.kv_lora_rank.is_some();
        let one_or = |given: &PerLayer, other: u32| if given.max() == 1 { 1 } else { other };
        let all_heads = from.n_head == from.n_head_kv;
        let shape = Shape {
            n_layer: LAYERS,
            n_embd: HEADS * HEAD,
            n_head: PerLayer::Same(HEADS),
            n_head_kv: PerLayer::Same(if all_heads { HEADS } else { one_or(&from.n_head_kv, 2) }),
            head_dim_k: if mla { 96 } else { HEAD },
            head_dim_v: HEAD,
            n_ff: PerLayer::Same(if from.n_ff.max() == 0 { 0 } else { 512 }),
            n_vocab: 1024,
            n_ctx_train: 1024,
            rope_dim: some(from.rope_dim, if mla { 32 } else { HEAD }),
            n_swa: from.n_swa.map(|window| window.min(256)),
            swa_pattern: from
                .swa_pattern
                .as_ref()
                .map(|_| (1..=LAYERS).map(|layer| !layer.is_multiple_of(3)).collect()),
            head_dim_k_swa: some(from.head_dim_k_swa, HEAD),
            // The last layers before them are one with a window and one that sees everything.
            n_kv_shared: some(from.n_kv_shared, LAYERS / 2),
            n_embd_per_layer: from.n_embd_per_layer.map(|width| if width == 0 { 0 } else { 256 }),
            n_expert: some(from.n_expert, 8),
            n_expert_used: some(from.n_expert_used, 2),
            n_ff_exp: some(from.n_ff_exp, 256),
            n_ff_shexp: some(from.n_ff_shexp, 256),
            n_layer_dense_lead: some(from.n_layer_dense_lead, 1),
            q_lora_rank: some(from.q_lora_rank, 64),
            kv_lora_rank: some(from.kv_lora_rank, 64),
            head_dim_k_mla: some(from.head_dim_k_mla, 96),
            head_dim_v_mla: some(from.head_dim_v_mla, 64),
            ssm_d_inner: some(from.ssm_d_inner, 512),
            ssm_d_state: some(from.ssm_d_state, 128),
            ssm_dt_rank: some(from.ssm_dt_rank, 4),
            ssm_n_group: some(from.ssm_n_group, 2),
            ..from.clone()
        };
        Self { name: format!("small {}", model.id), shape, ..full }
    }
}
