//! [`AuditEvent`] on the wire.

use super::error::{ConversionError, FLEET_MAX, clip, from_reference, list_up_to, moment, text};
use crate::{AuditEvent, wire};

impl From<AuditEvent> for wire::AuditEvent {
    fn from(value: AuditEvent) -> Self {
        let AuditEvent { sequence, at, actor, action, subject, detail } = value;
        Self { sequence, at: at.unix_millis(), actor, action, subject, detail: clip(detail) }
    }
}

impl TryFrom<wire::AuditEvent> for AuditEvent {
    type Error = ConversionError;
    fn try_from(message: wire::AuditEvent) -> Result<Self, ConversionError> {
        let wire::AuditEvent { sequence, at, actor, action, subject, detail } = message;
        Ok(Self {
            sequence,
            at: moment("at", at)?,
            actor: text("actor", actor)?,
            action: text("action", action)?,
            subject: text("subject", subject)?,
            detail: text("detail", detail)?,
        })
    }
}

from_reference!(AuditEvent);

impl From<Vec<AuditEvent>> for wire::ListAuditEventsResponse {
    fn from(values: Vec<AuditEvent>) -> Self {
        Self { events: values.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::ListAuditEventsResponse> for Vec<AuditEvent> {
    type Error = ConversionError;
    fn try_from(message: wire::ListAuditEventsResponse) -> Result<Self, ConversionError> {
        let wire::ListAuditEventsResponse { events } = message;
        list_up_to(FLEET_MAX, "events", events)
    }
}
