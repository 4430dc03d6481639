//! [`DesiredState`] on the wire.

use bytes::Bytes as RawBytes;

use super::error::{ConversionError, from_reference, identity, list, optional_tokens_rate, required, text};
use crate::{
    Bytes, ContextTokens, DesiredAssignment, DesiredState, EngineSettings, FlashAttention, KvType, Prediction,
    TokensPerSecond, wire,
};

impl From<DesiredState> for wire::DesiredState {
    fn from(value: DesiredState) -> Self {
        let DesiredState { generation, assignments } = value;
        Self { generation, assignments: assignments.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::DesiredState> for DesiredState {
    type Error = ConversionError;
    fn try_from(message: wire::DesiredState) -> Result<Self, ConversionError> {
        let wire::DesiredState { generation, assignments } = message;
        Ok(Self { generation, assignments: list("assignments", assignments)? })
    }
}

impl From<DesiredAssignment> for wire::DesiredAssignment {
    fn from(value: DesiredAssignment) -> Self {
        let DesiredAssignment { id, role, model, quantization, digest, size, settings, prediction } = value;
        Self {
            id: RawBytes::copy_from_slice(id.as_bytes()),
            role,
            model,
            quantization,
            digest: RawBytes::copy_from_slice(digest.as_bytes()),
            size: size.get(),
            settings: Some(settings.into()),
            prediction: Some(prediction.into()),
        }
    }
}

impl TryFrom<wire::DesiredAssignment> for DesiredAssignment {
    type Error = ConversionError;
    fn try_from(message: wire::DesiredAssignment) -> Result<Self, ConversionError> {
        let wire::DesiredAssignment { id, role, model, quantization, digest, size, settings, prediction } = message;
        Ok(Self {
            id: identity("id", &id)?,
            role: text("role", role)?,
            model: text("model", model)?,
            quantization: text("quantization", quantization)?,
            digest: identity("digest", &digest)?,
            size: Bytes::new(size),
            settings: required("settings", settings)?,
            prediction: required("prediction", prediction)?,
        })
    }
}

impl From<EngineSettings> for wire::EngineSettings {
    fn from(value: EngineSettings) -> Self {
        let EngineSettings {
            context,
            parallel,
            batch,
            ubatch,
            kv_type,
            gpu_layers,
            kv_unified,
            flash_attention,
            expert_layers_on_host,
        } = value;
        Self {
            context: context.get(),
            parallel,
            batch,
            ubatch,
            kv_type: kv_type.number(),
            gpu_layers,
            kv_unified,
            flash_attention: flash_attention.number(),
            expert_layers_on_host,
        }
    }
}

impl TryFrom<wire::EngineSettings> for EngineSettings {
    type Error = ConversionError;
    fn try_from(message: wire::EngineSettings) -> Result<Self, ConversionError> {
        let wire::EngineSettings {
            context,
            parallel,
            batch,
            ubatch,
            kv_type,
            gpu_layers,
            kv_unified,
            flash_attention,
            expert_layers_on_host,
        } = message;
        Ok(Self {
            context: ContextTokens::new(context),
            parallel,
            batch,
            ubatch,
            kv_type: KvType::from_number(kv_type),
            gpu_layers,
            kv_unified,
            // A controller that knows nothing of it leaves it to llama.cpp.
            flash_attention: match flash_attention {
                0 => FlashAttention::Auto,
                number => FlashAttention::from_number(number),
            },
            expert_layers_on_host,
        })
    }
}

impl From<Prediction> for wire::Prediction {
    fn from(value: Prediction) -> Self {
        let Prediction { memory, prefill, decode } = value;
        Self {
            memory: Some(memory.into()),
            prefill: prefill.map(TokensPerSecond::get),
            decode: decode.map(TokensPerSecond::get),
        }
    }
}

impl TryFrom<wire::Prediction> for Prediction {
    type Error = ConversionError;
    fn try_from(message: wire::Prediction) -> Result<Self, ConversionError> {
        let wire::Prediction { memory, prefill, decode } = message;
        Ok(Self {
            memory: required("memory", memory)?,
            prefill: optional_tokens_rate("prefill", prefill)?,
            decode: optional_tokens_rate("decode", decode)?,
        })
    }
}

from_reference!(DesiredState, DesiredAssignment, EngineSettings, Prediction);
