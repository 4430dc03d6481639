//! [`Quality`] on the wire.

use bytes::Bytes as RawBytes;

use super::error::{ConversionError, figure, from_reference, identity, required, text};
use crate::{ContextTokens, Divergence, Quality, Statistic, wire};

impl From<Quality> for wire::Quality {
    fn from(value: Quality) -> Self {
        let Quality { source, text, context, chunks, engine_build, divergence } = value;
        Self {
            source: RawBytes::copy_from_slice(source.as_bytes()),
            text,
            context: context.get(),
            chunks,
            engine_build,
            divergence: Some(divergence.into()),
        }
    }
}

impl TryFrom<wire::Quality> for Quality {
    type Error = ConversionError;
    fn try_from(message: wire::Quality) -> Result<Self, ConversionError> {
        let wire::Quality { source, text: name, context, chunks, engine_build, divergence } = message;
        Ok(Self {
            source: identity("source", &source)?,
            text: text("text", name)?,
            context: ContextTokens::new(context),
            chunks,
            engine_build: text("engine_build", engine_build)?,
            divergence: required("divergence", divergence)?,
        })
    }
}

impl From<Statistic> for wire::Statistic {
    fn from(value: Statistic) -> Self {
        let Statistic { value, error } = value;
        Self { value, error }
    }
}

impl TryFrom<wire::Statistic> for Statistic {
    type Error = ConversionError;
    fn try_from(message: wire::Statistic) -> Result<Self, ConversionError> {
        let wire::Statistic { value, error } = message;
        Ok(Self { value: finite("value", value)?, error: figure("error", error)? })
    }
}

/// A figure that may be below 0, as a difference or, by rounding, a divergence may.
fn finite(field: &str, value: f64) -> Result<f64, ConversionError> {
    if value.is_finite() { Ok(value) } else { Err(ConversionError::new(field, format!("{value} is not finite"))) }
}

impl From<Divergence> for wire::Divergence {
    fn from(value: Divergence) -> Self {
        let Divergence {
            positions,
            mean,
            median,
            p90,
            p99,
            p999,
            largest,
            same_top,
            perplexity,
            source_perplexity,
            log_ratio,
        } = value;
        Self {
            positions,
            mean: Some(mean.into()),
            median,
            p90,
            p99,
            p999,
            largest,
            same_top: Some(same_top.into()),
            perplexity: Some(perplexity.into()),
            source_perplexity: Some(source_perplexity.into()),
            log_ratio: Some(log_ratio.into()),
        }
    }
}

impl TryFrom<wire::Divergence> for Divergence {
    type Error = ConversionError;
    fn try_from(message: wire::Divergence) -> Result<Self, ConversionError> {
        let wire::Divergence {
            positions,
            mean,
            median,
            p90,
            p99,
            p999,
            largest,
            same_top,
            perplexity,
            source_perplexity,
            log_ratio,
        } = message;
        Ok(Self {
            positions,
            mean: required("mean", mean)?,
            median: finite("median", median)?,
            p90: finite("p90", p90)?,
            p99: finite("p99", p99)?,
            p999: finite("p999", p999)?,
            largest: finite("largest", largest)?,
            same_top: required("same_top", same_top)?,
            perplexity: required("perplexity", perplexity)?,
            source_perplexity: required("source_perplexity", source_perplexity)?,
            log_ratio: required("log_ratio", log_ratio)?,
        })
    }
}

from_reference!(Quality, Divergence, Statistic);
