//! A shape as the metadata keys that llama.cpp reads (`LLM_KV_NAMES` in `llama-arch.cpp`).

use super::{ModelSpec, PerLayer, tokenizer};
use crate::gguf::GgufWriter;

/// Architectures whose norms subtract a mean: they read another key for their epsilon.
const LAYER_NORM: [&str; 6] = ["bert", "cohere2", "command-r", "nomic-bert", "phi2", "starcoder2"];

/// What stands for the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vocabulary {
    /// Its size alone: enough to count, not to read a text.
    Size,
    /// The smallest tokenizer of that many tokens.
    Tokenizer,
}

/// Writes keys of one architecture.
struct Keys<'a> {
    writer: &'a mut GgufWriter,
    architecture: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn u32(&mut self, key: &str, value: Option<u32>) {
        if let Some(value) = value {
            let key = self.name(key);
            self.writer.u32(&key, value);
        }
    }

    fn f32(&mut self, key: &str, value: Option<f32>) {
        if let Some(value) = value {
            let key = self.name(key);
            self.writer.f32(&key, value);
        }
    }

    fn layers(&mut self, key: &str, value: &PerLayer) {
        let key = self.name(key);
        match value {
            PerLayer::Same(0) => {}
            PerLayer::Same(value) => self.writer.u32(&key, *value),
            PerLayer::Each(values) => self.writer.u32s(&key, values),
        }
    }
}

/// All metadata of a model.
pub(crate) fn write(writer: &mut GgufWriter, spec: &ModelSpec, file_type: u32, vocabulary: Vocabulary) {
    let shape = &spec.shape;
    writer.text("general.architecture", &spec.architecture);
    writer.text("general.name", &spec.name);
    // GGML_QNT_VERSION.
    writer.u32("general.quantization_version", 2);
    writer.u32("general.file_type", file_type);

    let keys = &mut Keys { writer, architecture: &spec.architecture };
    keys.u32("vocab_size", Some(shape.n_vocab));
    keys.u32("context_length", Some(shape.n_ctx_train));
    keys.u32("embedding_length", Some(shape.n_embd));
    keys.u32("block_count", Some(shape.blocks()));
    keys.u32("nextn_predict_layers", shape.n_nextn);
    keys.layers("feed_forward_length", &shape.n_ff);
    keys.layers("attention.head_count", &shape.n_head);
    keys.layers("attention.head_count_kv", &shape.n_head_kv);
    let some = |number: u32| Some(number).filter(|number| *number > 0);
    keys.u32("attention.key_length", some(shape.head_dim_k));
    keys.u32("attention.value_length", some(shape.head_dim_v));
    keys.u32("attention.key_length_swa", shape.head_dim_k_swa);
    keys.u32("attention.value_length_swa", shape.head_dim_k_swa);
    keys.u32("attention.key_length_mla", shape.head_dim_k_mla);
    keys.u32("attention.value_length_mla", shape.head_dim_v_mla);
    keys.u32("attention.q_lora_rank", shape.q_lora_rank);
    keys.u32("attention.kv_lora_rank", shape.kv_lora_rank);
    keys.u32("attention.shared_kv_layers", shape.n_kv_shared);
    let epsilon = if LAYER_NORM.contains(&spec.architecture.as_str()) {
        "attention.layer_norm_epsilon"
    } else {
        "attention.layer_norm_rms_epsilon"
    };
    keys.f32(epsilon, Some(shape.norm_eps.unwrap_or(1e-5)));
    keys.f32("attn_logit_softcapping", shape.attn_softcap);
    keys.f32("final_logit_softcapping", shape.final_softcap);
    keys.f32("logit_scale", shape.logit_scale);
    windows(keys, spec);
    positions(keys, spec);
    experts(keys, spec);
    recurrence(keys, spec);
    encoder(keys, spec);
    match vocabulary {
        Vocabulary::Size => writer.text("tokenizer.ggml.model", "no_vocab"),
        Vocabulary::Tokenizer => tokenizer::write(writer, shape.n_vocab),
    }
    if let Some(types) = shape.n_token_types {
        writer.u32("tokenizer.ggml.token_type_count", types);
    }
}

fn windows(keys: &mut Keys, spec: &ModelSpec) {
    let shape = &spec.shape;
    keys.u32("attention.sliding_window", shape.n_swa.filter(|window| *window > 0));
    keys.u32("attention.sliding_window_pattern", shape.swa_pattern_period);
    if let Some(pattern) = &shape.swa_pattern {
        let key = keys.name("attention.sliding_window_pattern");
        keys.writer.bools(&key, pattern);
    }
    // Gemma 4 reads it also where there is none.
    let per_layer = shape.n_embd_per_layer.or((spec.architecture == "gemma4").then_some(0));
    keys.u32("embedding_length_per_layer_input", per_layer);
}

fn positions(keys: &mut Keys, spec: &ModelSpec) {
    let shape = &spec.shape;
    keys.u32("rope.dimension_count", shape.rope_dim.or(Some(shape.head_dim_k).filter(|width| *width > 0)));
    keys.u32("rope.dimension_count_swa", shape.head_dim_k_swa);
    keys.f32("rope.freq_base", shape.rope_base);
    keys.f32("rope.freq_base_swa", shape.rope_base_swa);
    if let Some(scaling) = &shape.rope_scaling {
        // Files of models with long and short factors name no type.
        if scaling.kind != "longrope" {
            let key = keys.name("rope.scaling.type");
            keys.writer.text(&key, &scaling.kind);
        }
        keys.f32("rope.scaling.factor", scaling.factor);
        keys.u32("rope.scaling.original_context_length", scaling.original_context);
    }
    if ["qwen35", "qwen35moe"].contains(&spec.architecture.as_str()) {
        // How the pairs of a head are shared by time, height and width (Qwen3.5's mrope_section); text uses time alone.
        let key = keys.name("rope.dimension_sections");
        keys.writer.i32s(&key, &[11, 11, 10, 0]);
    }
}

fn experts(keys: &mut Keys, spec: &ModelSpec) {
    let shape = &spec.shape;
    keys.u32("expert_count", shape.n_expert);
    keys.u32("expert_used_count", shape.n_expert_used);
    keys.u32("expert_feed_forward_length", shape.n_ff_exp);
    keys.u32("expert_shared_count", shape.n_expert_shared);
    keys.u32("expert_shared_feed_forward_length", shape.n_ff_shexp);
    keys.u32("leading_dense_block_count", shape.n_layer_dense_lead);
    keys.u32("interleave_moe_layer_step", shape.moe_step);
    keys.u32("expert_gating_func", shape.gating);
    keys.f32("expert_weights_scale", shape.expert_weights_scale);
}

fn recurrence(keys: &mut Keys, spec: &ModelSpec) {
    let shape = &spec.shape;
    keys.u32("full_attention_interval", shape.full_attention_interval);
    keys.u32("ssm.conv_kernel", shape.ssm_d_conv);
    keys.u32("ssm.inner_size", shape.ssm_d_inner);
    keys.u32("ssm.state_size", shape.ssm_d_state);
    keys.u32("ssm.time_step_rank", shape.ssm_dt_rank);
    keys.u32("ssm.group_count", shape.ssm_n_group);
}

fn encoder(keys: &mut Keys, spec: &ModelSpec) {
    // llama_pooling_type: 1 the mean, 2 the first token.
    let pooling = match spec.architecture.as_str() {
        "bert" => 2,
        "nomic-bert" => 1,
        _ => return,
    };
    keys.u32("pooling_type", Some(pooling));
    let key = keys.name("attention.causal");
    keys.writer.bool(&key, false);
}
