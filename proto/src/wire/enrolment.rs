//! [`TokenRecord`] on the wire. The token itself travels only as the text that an operator hands over.

use bytes::Bytes as RawBytes;

use super::error::{ConversionError, FLEET_MAX, from_reference, identity, list_up_to, moment, texts};
use crate::{TokenRecord, wire};

impl From<TokenRecord> for wire::TokenRecord {
    fn from(value: TokenRecord) -> Self {
        let TokenRecord { id, created_at, expires_at, uses_allowed, uses, needs_acceptance, revoked, groups } = value;
        Self {
            id: RawBytes::copy_from_slice(id.as_bytes()),
            created_at: created_at.unix_millis(),
            expires_at: expires_at.unix_millis(),
            uses_allowed,
            uses,
            needs_acceptance,
            revoked,
            groups,
        }
    }
}

impl TryFrom<wire::TokenRecord> for TokenRecord {
    type Error = ConversionError;
    fn try_from(message: wire::TokenRecord) -> Result<Self, ConversionError> {
        let wire::TokenRecord { id, created_at, expires_at, uses_allowed, uses, needs_acceptance, revoked, groups } =
            message;
        Ok(Self {
            id: identity("id", &id)?,
            created_at: moment("created_at", created_at)?,
            expires_at: moment("expires_at", expires_at)?,
            uses_allowed,
            uses,
            needs_acceptance,
            revoked,
            groups: texts("groups", groups)?,
        })
    }
}

from_reference!(TokenRecord);

impl From<Vec<TokenRecord>> for wire::ListTokensResponse {
    fn from(values: Vec<TokenRecord>) -> Self {
        Self { tokens: values.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::ListTokensResponse> for Vec<TokenRecord> {
    type Error = ConversionError;
    fn try_from(message: wire::ListTokensResponse) -> Result<Self, ConversionError> {
        let wire::ListTokensResponse { tokens } = message;
        list_up_to(FLEET_MAX, "tokens", tokens)
    }
}
