//! [`Observed`] on the wire.

use bytes::Bytes as RawBytes;

use super::error::{
    ConversionError, clip, from_reference, identity, list, moment, optional, optional_bytes_rate, optional_text,
    optional_tokens_rate, required, text,
};
use crate::{Bytes, BytesPerSecond, Deployment, DeploymentState, Measured, Observed, TokensPerSecond, Transfer, wire};

impl From<Observed> for wire::Observed {
    fn from(value: Observed) -> Self {
        let Observed { at, generation, deployments, endpoint, store_used } = value;
        Self {
            at: at.unix_millis(),
            generation,
            deployments: deployments.into_iter().map(Into::into).collect(),
            endpoint,
            store_used: store_used.get(),
        }
    }
}

impl TryFrom<wire::Observed> for Observed {
    type Error = ConversionError;
    fn try_from(message: wire::Observed) -> Result<Self, ConversionError> {
        let wire::Observed { at, generation, deployments, endpoint, store_used } = message;
        Ok(Self {
            at: moment("at", at)?,
            generation,
            deployments: list("deployments", deployments)?,
            endpoint: optional_text("endpoint", endpoint)?,
            store_used: Bytes::new(store_used),
        })
    }
}

impl From<Deployment> for wire::Deployment {
    fn from(value: Deployment) -> Self {
        let Deployment { assignment, digest, model, state, reason, transfer, measured } = value;
        Self {
            assignment: RawBytes::copy_from_slice(assignment.as_bytes()),
            digest: RawBytes::copy_from_slice(digest.as_bytes()),
            model,
            state: state.number(),
            reason: reason.map(clip),
            transfer: transfer.map(Into::into),
            measured: measured.map(Into::into),
        }
    }
}

impl TryFrom<wire::Deployment> for Deployment {
    type Error = ConversionError;
    fn try_from(message: wire::Deployment) -> Result<Self, ConversionError> {
        let wire::Deployment { assignment, digest, model, state, reason, transfer, measured } = message;
        Ok(Self {
            assignment: identity("assignment", &assignment)?,
            digest: identity("digest", &digest)?,
            model: text("model", model)?,
            state: DeploymentState::from_number(state),
            reason: optional_text("reason", reason)?,
            transfer: optional("transfer", transfer)?,
            measured: optional("measured", measured)?,
        })
    }
}

impl From<Transfer> for wire::Transfer {
    fn from(value: Transfer) -> Self {
        let Transfer { total, done, resumed_from, speed } = value;
        Self {
            total: total.get(),
            done: done.get(),
            resumed_from: resumed_from.get(),
            bytes_per_second: speed.map(BytesPerSecond::get),
        }
    }
}

impl TryFrom<wire::Transfer> for Transfer {
    type Error = ConversionError;
    fn try_from(message: wire::Transfer) -> Result<Self, ConversionError> {
        let wire::Transfer { total, done, resumed_from, bytes_per_second } = message;
        Ok(Self {
            total: Bytes::new(total),
            done: Bytes::new(done),
            resumed_from: Bytes::new(resumed_from),
            speed: optional_bytes_rate("bytes_per_second", bytes_per_second)?,
        })
    }
}

impl From<Measured> for wire::Measured {
    fn from(value: Measured) -> Self {
        let Measured { memory, resident, load_ms, prefill, decode } = value;
        Self {
            memory: Some(memory.into()),
            resident: resident.map(Bytes::get),
            load_ms,
            prefill: prefill.map(TokensPerSecond::get),
            decode: decode.map(TokensPerSecond::get),
        }
    }
}

impl TryFrom<wire::Measured> for Measured {
    type Error = ConversionError;
    fn try_from(message: wire::Measured) -> Result<Self, ConversionError> {
        let wire::Measured { memory, resident, load_ms, prefill, decode } = message;
        Ok(Self {
            memory: required("memory", memory)?,
            resident: resident.map(Bytes::new),
            load_ms,
            prefill: optional_tokens_rate("prefill", prefill)?,
            decode: optional_tokens_rate("decode", decode)?,
        })
    }
}

from_reference!(Observed, Deployment, Transfer, Measured);
