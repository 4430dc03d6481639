//! [`BenchOrder`] on the wire.

use bytes::Bytes as RawBytes;

use super::error::{ConversionError, clip, figure, from_reference, identity, moment, optional_text, text};
use crate::{BenchOrder, BenchOrderState, BenchmarkKind, Timestamp, wire};

impl From<BenchOrder> for wire::BenchOrder {
    fn from(value: BenchOrder) -> Self {
        let BenchOrder {
            id,
            machine,
            hostname,
            kind,
            state,
            step,
            fraction,
            reason,
            ordered_at,
            ordered_by,
            expires_at,
            ended_at,
        } = value;
        Self {
            id: RawBytes::copy_from_slice(id.as_bytes()),
            machine: RawBytes::copy_from_slice(machine.as_bytes()),
            hostname,
            kind: kind.number(),
            state: state.number(),
            step: step.map(clip),
            fraction,
            reason: reason.map(clip),
            ordered_at: ordered_at.unix_millis(),
            ordered_by,
            expires_at: expires_at.unix_millis(),
            ended_at: ended_at.map(Timestamp::unix_millis),
        }
    }
}

impl TryFrom<wire::BenchOrder> for BenchOrder {
    type Error = ConversionError;
    fn try_from(message: wire::BenchOrder) -> Result<Self, ConversionError> {
        let wire::BenchOrder {
            id,
            machine,
            hostname,
            kind,
            state,
            step,
            fraction,
            reason,
            ordered_at,
            ordered_by,
            expires_at,
            ended_at,
        } = message;
        Ok(Self {
            id: identity("id", &id)?,
            machine: identity("machine", &machine)?,
            hostname: text("hostname", hostname)?,
            kind: BenchmarkKind::from_number(kind),
            state: BenchOrderState::from_number(state),
            step: optional_text("step", step)?,
            fraction: fraction.map(|fraction| figure("fraction", fraction)).transpose()?,
            reason: optional_text("reason", reason)?,
            ordered_at: moment("ordered_at", ordered_at)?,
            ordered_by: text("ordered_by", ordered_by)?,
            expires_at: moment("expires_at", expires_at)?,
            ended_at: ended_at.map(|millis| moment("ended_at", millis)).transpose()?,
        })
    }
}

from_reference!(BenchOrder);
