//! The models that the benchmark makes: shapes by name, and what each costs a token.
//!
//! A benchmark on disk or from a desk names a model; what is learnt from it depends on the shape that the name meant, so a
//! shape never changes under its name. It does not know how models are made or timed.

use std::collections::BTreeMap;

use muster_proto::BenchModel;

use crate::gguf::TensorType;
use crate::maker::{ModelSpec, OutputMatrix, PerLayer, Shape};
use crate::speed::{Attention, ModelCosts, Weights};

/// A shape of llama's architecture (`qwen3moe`'s where it has experts) with a tied output matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BenchShape {
    /// Its name, for ever.
    pub name: &'static str,
    pub width: u32,
    pub layers: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub feed_forward: u32,
    pub vocabulary: u32,
    /// Experts of the width `feed_forward`, and how many a token uses; 0 for a dense model.
    pub experts: (u32, u32),
}

/// Decoding it is ruled by what each token costs anyway, not by memory.
pub(crate) const SMALL: BenchShape = BenchShape {
    name: "muster-8m",
    width: 256,
    layers: 8,
    heads: 4,
    kv_heads: 2,
    feed_forward: 768,
    vocabulary: 8192,
    experts: (0, 0),
};
/// What types of weights are compared on: seconds on two slow cores.
pub(crate) const MIDDLE: BenchShape = BenchShape {
    name: "muster-61m",
    width: 768,
    layers: 8,
    heads: 12,
    kv_heads: 4,
    feed_forward: 2304,
    vocabulary: 8192,
    experts: (0, 0),
};
/// Larger than the caches of a desk's processor.
pub(crate) const LARGE: BenchShape = BenchShape {
    name: "muster-300m",
    width: 1536,
    layers: 10,
    heads: 12,
    kv_heads: 4,
    feed_forward: 4608,
    vocabulary: 16384,
    experts: (0, 0),
};
/// Many thin layers, also larger than those caches: what each matrix costs when it comes from memory.
pub(crate) const DEEP: BenchShape = BenchShape {
    name: "muster-226m-deep",
    width: 768,
    layers: 32,
    heads: 12,
    kv_heads: 4,
    feed_forward: 2304,
    vocabulary: 8192,
    experts: (0, 0),
};
/// What fills a GPU.
pub(crate) const GPU: BenchShape = BenchShape {
    name: "muster-1b",
    width: 2048,
    layers: 16,
    heads: 16,
    kv_heads: 4,
    feed_forward: 8192,
    vocabulary: 16384,
    experts: (0, 0),
};
/// A mixture of experts.
pub(crate) const EXPERTS: BenchShape = BenchShape {
    name: "muster-moe-170m",
    width: 768,
    layers: 8,
    heads: 12,
    kv_heads: 4,
    feed_forward: 512,
    vocabulary: 8192,
    experts: (16, 4),
};

const ALL: [BenchShape; 6] = [SMALL, MIDDLE, LARGE, DEEP, GPU, EXPERTS];

impl BenchShape {
    /// The shape that a name means.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|shape| shape.name == name)
    }

    fn head(&self) -> u32 {
        self.width / self.heads
    }

    fn output_parameters(&self) -> f64 {
        f64::from(self.width) * f64::from(self.vocabulary)
    }

    fn expert_parameters(&self) -> f64 {
        let one = 3.0 * f64::from(self.width) * f64::from(self.feed_forward);
        f64::from(self.layers) * f64::from(self.experts.0) * one
    }

    /// Parameters of all matrices.
    pub(crate) fn parameters(&self) -> f64 {
        let (width, head) = (f64::from(self.width), f64::from(self.head()));
        let attention = 2.0 * width * width + 2.0 * width * head * f64::from(self.kv_heads);
        let dense = if self.experts.0 == 0 { 3.0 * width * f64::from(self.feed_forward) } else { 0.0 };
        f64::from(self.layers) * (attention + dense) + self.expert_parameters() + self.output_parameters()
    }

    /// What the maker makes it from: every matrix of `quantization` if that is a tensor type, else llama.cpp's mixture.
    pub(crate) fn spec(&self, quantization: &str) -> ModelSpec {
        let moe = self.experts.0 > 0;
        let some = |number: u32| moe.then_some(number);
        let shape = Shape {
            n_layer: self.layers,
            n_embd: self.width,
            n_head: PerLayer::Same(self.heads),
            n_head_kv: PerLayer::Same(self.kv_heads),
            head_dim_k: self.head(),
            head_dim_v: self.head(),
            n_ff: PerLayer::Same(if moe { 0 } else { self.feed_forward }),
            n_vocab: self.vocabulary,
            n_ctx_train: 8192,
            rope_dim: Some(self.head()),
            rope_base: Some(10_000.0),
            norm_eps: Some(1e-5),
            tied: Some(true),
            qk_norm: moe,
            n_expert: some(self.experts.0),
            n_expert_used: some(self.experts.1),
            n_ff_exp: some(self.feed_forward),
            ..Shape::default()
        };
        let matrices = ["token_embd", "*.attn_q", "*.attn_k", "*.attn_v", "*.attn_output", "*.ffn_gate", "*.ffn_up"];
        let experts = ["*.ffn_down", "*.ffn_gate_exps", "*.ffn_up_exps", "*.ffn_down_exps"];
        let types: BTreeMap<String, String> = TensorType::from_name(quantization)
            .into_iter()
            .flat_map(|kind| {
                let name = move |part: &&str| (format!("{part}.weight"), kind.name.to_owned());
                matrices.iter().chain(&experts).map(name).collect::<Vec<_>>()
            })
            .collect();
        ModelSpec {
            name: self.name.into(),
            architecture: if moe { "qwen3moe" } else { "llama" }.into(),
            shape,
            output: OutputMatrix::Tied,
            types,
            importance: false,
            published: None,
        }
    }

    /// What a token of it costs. The types of a mixture (`Q4_K_M`: mostly `Q4_K`, the rest and the output `Q6_K`) follow
    /// from its bytes.
    pub(crate) fn costs(&self, model: &BenchModel) -> Option<ModelCosts> {
        let bytes_of = |kind: TensorType| kind.bytes as f64 / kind.block as f64;
        let (body, other) = match model.quantization.as_str() {
            "Q4_K_M" => (TensorType::from_name("Q4_K")?, Some(TensorType::from_name("Q6_K")?)),
            name => (TensorType::from_name(name)?, None),
        };
        let weights = |kind: TensorType, parameters: f64| Weights {
            kind: kind.name.to_owned(),
            parameters,
            bytes: parameters * bytes_of(kind),
        };
        let output = weights(other.unwrap_or(body), self.output_parameters());
        let experts = self.expert_parameters();
        let rest = self.parameters() - experts - output.parameters;
        let mut dense = vec![weights(body, rest)];
        if let Some(other) = other.filter(|_| experts == 0.0) {
            let bytes = model.bytes_per_token.get() as f64 - output.bytes;
            let share = ((bytes - dense[0].bytes) / (bytes_of(other) - bytes_of(body))).clamp(0.0, rest);
            dense = vec![weights(body, rest - share), weights(other, share)];
        }
        let (head, layers) = (f64::from(self.head()), f64::from(self.layers));
        let moe = self.experts.0 > 0;
        Some(ModelCosts {
            architecture: if moe { "qwen3moe" } else { "llama" }.into(),
            layers,
            expert_layers: if moe { layers } else { 0.0 },
            recurrent_layers: 0.0,
            width: self.width.into(),
            dense,
            experts: if moe { vec![weights(body, experts)] } else { Vec::new() },
            expert_count: self.experts.0.into(),
            experts_used: self.experts.1.into(),
            expert_width: if moe { self.feed_forward.into() } else { 0.0 },
            output: Some(output),
            attention: vec![Attention {
                layers,
                window: None,
                cache_elements: 2.0 * head * f64::from(self.kv_heads),
                products: 2.0 * head * f64::from(self.heads),
                heads: self.heads.into(),
                head_size: head,
            }],
            state_elements: 0.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::Bytes;

    use super::*;

    #[test]
    fn names_say_their_parameters() {
        for (shape, millions) in [(SMALL, 8.0), (MIDDLE, 61.0), (LARGE, 300.0), (DEEP, 226.0), (EXPERTS, 170.0)] {
            let counted = shape.parameters() / 1e6;
            assert!((counted - millions).abs() < 1.0, "{}: {counted}", shape.name);
        }
        assert!((GPU.parameters() / 1e9 - 1.0).abs() < 0.05, "{}", GPU.parameters());
    }

    #[test]
    fn a_mixture_has_the_bytes_that_were_measured() {
        let model = BenchModel {
            name: MIDDLE.name.into(),
            quantization: "Q4_K_M".into(),
            bytes_per_token: Bytes::new(38_000_000),
            parameters_per_token: 61_000_000,
            layers: 8,
        };
        let costs = MIDDLE.costs(&model).expect("known types");
        let all = costs.dense.iter().chain(&costs.output);
        let bytes: f64 = all.clone().map(|weights| weights.bytes).sum();
        assert!((bytes - 38e6).abs() < 1.0, "{bytes}");
        assert!((all.map(|weights| weights.parameters).sum::<f64>() - MIDDLE.parameters()).abs() < 1.0);
        assert!(MIDDLE.costs(&BenchModel { quantization: "Q9".into(), ..model }).is_none());
    }
}
