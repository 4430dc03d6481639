//! [`Benchmark`] on the wire. Only samples travel; median and deviation follow from them.

use super::error::{
    ConversionError, clip, from_reference, list, moment, optional, optional_text, required, samples, text, texts,
};
use crate::{
    BenchModel, BenchPoint, Benchmark, BenchmarkKind, Bytes, Conditions, OnBattery, PartQuantity, PartRate, Spread,
    wire,
};

impl From<Benchmark> for wire::Benchmark {
    fn from(value: Benchmark) -> Self {
        let Benchmark {
            measured_at,
            took_ms,
            engine_build,
            hardware_fingerprint,
            points,
            conditions,
            parts,
            on_battery,
        } = value;
        Self {
            measured_at: measured_at.unix_millis(),
            took_ms,
            engine_build,
            hardware_fingerprint,
            points: points.into_iter().map(Into::into).collect(),
            conditions: (conditions != Conditions::default()).then(|| conditions.into()),
            parts: parts.into_iter().map(Into::into).collect(),
            on_battery: on_battery.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Benchmark> for Benchmark {
    type Error = ConversionError;
    fn try_from(message: wire::Benchmark) -> Result<Self, ConversionError> {
        let wire::Benchmark {
            measured_at,
            took_ms,
            engine_build,
            hardware_fingerprint,
            points,
            conditions,
            parts,
            on_battery,
        } = message;
        Ok(Self {
            measured_at: moment("measured_at", measured_at)?,
            took_ms,
            engine_build: text("engine_build", engine_build)?,
            hardware_fingerprint: text("hardware_fingerprint", hardware_fingerprint)?,
            points: list("points", points)?,
            conditions: optional("conditions", conditions)?.unwrap_or_default(),
            parts: list("parts", parts)?,
            on_battery: list("on_battery", on_battery)?,
        })
    }
}

impl From<BenchPoint> for wire::BenchPoint {
    fn from(value: BenchPoint) -> Self {
        let BenchPoint { device, threads, model, prefill_tokens, decode_tokens, prefill, decode, depth } = value;
        Self {
            device,
            threads,
            model: Some(model.into()),
            prefill_tokens,
            decode_tokens,
            prefill: Some(prefill.into()),
            decode: Some(decode.into()),
            depth,
        }
    }
}

impl TryFrom<wire::BenchPoint> for BenchPoint {
    type Error = ConversionError;
    fn try_from(message: wire::BenchPoint) -> Result<Self, ConversionError> {
        let wire::BenchPoint { device, threads, model, prefill_tokens, decode_tokens, prefill, decode, depth } =
            message;
        Ok(Self {
            device: text("device", device)?,
            threads,
            model: required("model", model)?,
            prefill_tokens,
            decode_tokens,
            prefill: required("prefill", prefill)?,
            decode: required("decode", decode)?,
            depth,
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

impl From<Conditions> for wire::Conditions {
    fn from(value: Conditions) -> Self {
        let Conditions { kind, other_load, idle, on_mains, temperature_celsius, drivers, stopped_by, has_battery } =
            value;
        Self {
            kind: kind.map_or(0, BenchmarkKind::number),
            other_load,
            idle,
            on_mains,
            temperature_celsius,
            drivers,
            stopped_by: stopped_by.map(clip),
            has_battery,
        }
    }
}

impl TryFrom<wire::Conditions> for Conditions {
    type Error = ConversionError;
    fn try_from(message: wire::Conditions) -> Result<Self, ConversionError> {
        let wire::Conditions {
            kind,
            other_load,
            idle,
            on_mains,
            temperature_celsius,
            drivers,
            stopped_by,
            has_battery,
        } = message;
        Ok(Self {
            kind: (kind != 0).then(|| BenchmarkKind::from_number(kind)),
            other_load: other_load.filter(|load| load.is_finite()),
            idle,
            on_mains,
            temperature_celsius: temperature_celsius.filter(|degrees| degrees.is_finite()),
            drivers: texts("drivers", drivers)?,
            stopped_by: optional_text("stopped_by", stopped_by)?,
            has_battery,
        })
    }
}

impl From<PartRate> for wire::PartRate {
    fn from(value: PartRate) -> Self {
        let PartRate { part, quantity, rate } = value;
        Self { part, quantity: quantity.number(), rate: Some(rate.into()) }
    }
}

impl TryFrom<wire::PartRate> for PartRate {
    type Error = ConversionError;
    fn try_from(message: wire::PartRate) -> Result<Self, ConversionError> {
        let wire::PartRate { part, quantity, rate } = message;
        Ok(Self {
            part: text("part", part)?,
            quantity: PartQuantity::from_number(quantity),
            rate: required("rate", rate)?,
        })
    }
}

impl From<OnBattery> for wire::OnBattery {
    fn from(value: OnBattery) -> Self {
        let OnBattery { device, prefill, decode, points } = value;
        Self { device, prefill, decode, points }
    }
}

impl TryFrom<wire::OnBattery> for OnBattery {
    type Error = ConversionError;
    fn try_from(message: wire::OnBattery) -> Result<Self, ConversionError> {
        let wire::OnBattery { device, prefill, decode, points } = message;
        let ratio = |field: &str, value: f64| {
            let sound = value.is_finite() && value >= 0.0;
            sound.then_some(value).ok_or_else(|| ConversionError::new(field, format!("{value} is no ratio")))
        };
        Ok(Self {
            device: text("device", device)?,
            prefill: ratio("prefill", prefill)?,
            decode: ratio("decode", decode)?,
            points,
        })
    }
}

from_reference!(OnBattery, Conditions, PartRate, Benchmark, BenchPoint, BenchModel, Spread);
