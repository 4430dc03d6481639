//! [`Model`]s, their [`Artifact`]s and [`MemoryNeed`] on the wire.

use bytes::Bytes as RawBytes;

use super::error::{
    ConversionError, figure, from_reference, identity, list, list_up_to, moment, optional, optional_text, required,
    text,
};
use crate::{Artifact, ArtifactSource, Bytes, ContextTokens, DeviceMemory, MemoryNeed, Model, wire};

impl From<Model> for wire::Model {
    fn from(value: Model) -> Self {
        let Model { name, architecture, parameters, context_train, licence, imported_at, artifacts } = value;
        Self {
            name,
            architecture,
            parameters,
            context_train: context_train.map(ContextTokens::get),
            licence: licence.map(super::error::clip),
            imported_at: imported_at.unix_millis(),
            artifacts: artifacts.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Model> for Model {
    type Error = ConversionError;
    fn try_from(message: wire::Model) -> Result<Self, ConversionError> {
        let wire::Model { name, architecture, parameters, context_train, licence, imported_at, artifacts } = message;
        Ok(Self {
            name: text("name", name)?,
            architecture: text("architecture", architecture)?,
            parameters,
            context_train: context_train.map(ContextTokens::new),
            licence: optional_text("licence", licence)?,
            imported_at: moment("imported_at", imported_at)?,
            artifacts: list("artifacts", artifacts)?,
        })
    }
}

impl From<Artifact> for wire::Artifact {
    fn from(value: Artifact) -> Self {
        let Artifact { digest, quantization, size, bits_per_weight, source, quality } = value;
        Self {
            digest: RawBytes::copy_from_slice(digest.as_bytes()),
            quantization,
            size: size.get(),
            bits_per_weight,
            quantized_from: match source {
                ArtifactSource::Imported => None,
                ArtifactSource::QuantizedFrom { digest } => Some(RawBytes::copy_from_slice(digest.as_bytes())),
            },
            quality: quality.map(Into::into),
        }
    }
}

impl TryFrom<wire::Artifact> for Artifact {
    type Error = ConversionError;
    fn try_from(message: wire::Artifact) -> Result<Self, ConversionError> {
        let wire::Artifact { digest, quantization, size, bits_per_weight, quantized_from, quality } = message;
        Ok(Self {
            digest: identity("digest", &digest)?,
            quantization: text("quantization", quantization)?,
            size: Bytes::new(size),
            bits_per_weight: figure("bits_per_weight", bits_per_weight)?,
            source: match quantized_from {
                None => ArtifactSource::Imported,
                Some(digest) => ArtifactSource::QuantizedFrom { digest: identity("quantized_from", &digest)? },
            },
            quality: optional("quality", quality)?,
        })
    }
}

impl From<MemoryNeed> for wire::MemoryNeed {
    fn from(value: MemoryNeed) -> Self {
        let MemoryNeed { devices, host } = value;
        Self { devices: devices.into_iter().map(Into::into).collect(), host: Some(host.into()) }
    }
}

impl TryFrom<wire::MemoryNeed> for MemoryNeed {
    type Error = ConversionError;
    fn try_from(message: wire::MemoryNeed) -> Result<Self, ConversionError> {
        let wire::MemoryNeed { devices, host } = message;
        Ok(Self { devices: list("devices", devices)?, host: required("host", host)? })
    }
}

impl From<DeviceMemory> for wire::DeviceMemory {
    fn from(value: DeviceMemory) -> Self {
        let DeviceMemory { name, model, context, compute } = value;
        Self { name, model: model.get(), context: context.get(), compute: compute.get() }
    }
}

impl TryFrom<wire::DeviceMemory> for DeviceMemory {
    type Error = ConversionError;
    fn try_from(message: wire::DeviceMemory) -> Result<Self, ConversionError> {
        let wire::DeviceMemory { name, model, context, compute } = message;
        Ok(Self {
            name: text("name", name)?,
            model: Bytes::new(model),
            context: Bytes::new(context),
            compute: Bytes::new(compute),
        })
    }
}

from_reference!(Model, Artifact, MemoryNeed, DeviceMemory);

impl From<Vec<Model>> for wire::ListModelsResponse {
    fn from(values: Vec<Model>) -> Self {
        Self { models: values.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::ListModelsResponse> for Vec<Model> {
    type Error = ConversionError;
    fn try_from(message: wire::ListModelsResponse) -> Result<Self, ConversionError> {
        let wire::ListModelsResponse { models } = message;
        list_up_to(super::error::FLEET_MAX, "models", models)
    }
}
