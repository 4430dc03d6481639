//! [`Benchmark`] on the wire. Only samples travel; median and deviation follow from them.

use super::error::{ConversionError, from_reference, list, moment, required, samples, text};
use crate::{BenchModel, BenchPoint, Benchmark, Bytes, Spread, wire};

impl From<Benchmark> for wire::Benchmark {
    fn from(value: Benchmark) -> Self {
        let Benchmark { measured_at, took_ms, engine_build, hardware_fingerprint, points } = value;
        Self {
            measured_at: measured_at.unix_millis(),
            took_ms,
            engine_build,
            hardware_fingerprint,
            points: points.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Benchmark> for Benchmark {
    type Error = ConversionError;
    fn try_from(message: wire::Benchmark) -> Result<Self, ConversionError> {
        let wire::Benchmark { measured_at, took_ms, engine_build, hardware_fingerprint, points } = message;
        Ok(Self {
            measured_at: moment("measured_at", measured_at)?,
            took_ms,
            engine_build: text("engine_build", engine_build)?,
            hardware_fingerprint: text("hardware_fingerprint", hardware_fingerprint)?,
            points: list("points", points)?,
        })
    }
}

impl From<BenchPoint> for wire::BenchPoint {
    fn from(value: BenchPoint) -> Self {
        let BenchPoint { device, threads, model, prefill_tokens, decode_tokens, prefill, decode } = value;
        Self {
            device,
            threads,
            model: Some(model.into()),
            prefill_tokens,
            decode_tokens,
            prefill: Some(prefill.into()),
            decode: Some(decode.into()),
        }
    }
}

impl TryFrom<wire::BenchPoint> for BenchPoint {
    type Error = ConversionError;
    fn try_from(message: wire::BenchPoint) -> Result<Self, ConversionError> {
        let wire::BenchPoint { device, threads, model, prefill_tokens, decode_tokens, prefill, decode } = message;
        Ok(Self {
            device: text("device", device)?,
            threads,
            model: required("model", model)?,
            prefill_tokens,
            decode_tokens,
            prefill: required("prefill", prefill)?,
            decode: required("decode", decode)?,
        })
    }
}

impl From<BenchModel> for wire::BenchModel {
    fn from(value: BenchModel) -> Self {
        let BenchModel { name, quantization, bytes_per_token, parameters_per_token, layers } = value;
        Self { name, quantization, bytes_per_token: bytes_per_token.get(), parameters_per_token, layers }
    }
}

impl TryFrom<wire::BenchModel> for BenchModel {
    type Error = ConversionError;
    fn try_from(message: wire::BenchModel) -> Result<Self, ConversionError> {
        let wire::BenchModel { name, quantization, bytes_per_token, parameters_per_token, layers } = message;
        Ok(Self {
            name: text("name", name)?,
            quantization: text("quantization", quantization)?,
            bytes_per_token: Bytes::new(bytes_per_token),
            parameters_per_token,
            layers,
        })
    }
}

impl From<Spread> for wire::Spread {
    fn from(value: Spread) -> Self {
        let Spread { samples, median: _, median_absolute_deviation: _ } = value;
        Self { samples }
    }
}

impl TryFrom<wire::Spread> for Spread {
    type Error = ConversionError;
    fn try_from(message: wire::Spread) -> Result<Self, ConversionError> {
        let wire::Spread { samples: values } = message;
        Self::of(samples("samples", values)?).ok_or_else(|| ConversionError::new("samples", "empty"))
    }
}

from_reference!(Benchmark, BenchPoint, BenchModel, Spread);
