//! [`ControllerStatus`], [`AdminRecord`] and [`PolicyRecord`] on the wire.

use bytes::Bytes as RawBytes;

use super::error::{
    ConversionError, FLEET_MAX, POLICY_MAX, from_reference, identity, list_up_to, moment, text, text_up_to,
};
use crate::{AdminRecord, Bytes, ControllerStatus, IdError, PolicyRecord, wire};

impl From<ControllerStatus> for wire::Status {
    fn from(value: ControllerStatus) -> Self {
        let ControllerStatus {
            version,
            protocol,
            started_at,
            data_dir,
            listen,
            ca_fingerprint,
            machines,
            machines_online,
            machines_pending,
            models,
            blob_bytes,
            deployments_success,
            deployments,
        } = value;
        Self {
            version,
            protocol,
            started_at: started_at.unix_millis(),
            data_dir,
            listen,
            ca_fingerprint: RawBytes::copy_from_slice(ca_fingerprint.as_bytes()),
            machines,
            machines_online,
            machines_pending,
            models,
            blob_bytes: blob_bytes.get(),
            deployments_success,
            deployments,
        }
    }
}

impl TryFrom<wire::Status> for ControllerStatus {
    type Error = ConversionError;
    fn try_from(message: wire::Status) -> Result<Self, ConversionError> {
        let wire::Status {
            version,
            protocol,
            started_at,
            data_dir,
            listen,
            ca_fingerprint,
            machines,
            machines_online,
            machines_pending,
            models,
            blob_bytes,
            deployments_success,
            deployments,
        } = message;
        Ok(Self {
            version: text("version", version)?,
            protocol,
            started_at: moment("started_at", started_at)?,
            data_dir: text("data_dir", data_dir)?,
            listen: text("listen", listen)?,
            ca_fingerprint: identity("ca_fingerprint", &ca_fingerprint)?,
            machines,
            machines_online,
            machines_pending,
            models,
            blob_bytes: Bytes::new(blob_bytes),
            deployments_success,
            deployments,
        })
    }
}

impl From<&ControllerStatus> for wire::Status {
    fn from(value: &ControllerStatus) -> Self {
        Self::from(value.clone())
    }
}

impl From<AdminRecord> for wire::AdminRecord {
    fn from(value: AdminRecord) -> Self {
        let AdminRecord { name, created_at, expires_at, revoked } = value;
        Self {
            name: name.as_str().to_owned(),
            created_at: created_at.unix_millis(),
            expires_at: expires_at.unix_millis(),
            revoked,
        }
    }
}

impl TryFrom<wire::AdminRecord> for AdminRecord {
    type Error = ConversionError;
    fn try_from(message: wire::AdminRecord) -> Result<Self, ConversionError> {
        let wire::AdminRecord { name, created_at, expires_at, revoked } = message;
        Ok(Self {
            name: name.parse().map_err(|error: IdError| ConversionError::new("name", error.to_string()))?,
            created_at: moment("created_at", created_at)?,
            expires_at: moment("expires_at", expires_at)?,
            revoked,
        })
    }
}

impl From<Vec<AdminRecord>> for wire::ListAdminsResponse {
    fn from(values: Vec<AdminRecord>) -> Self {
        Self { admins: values.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::ListAdminsResponse> for Vec<AdminRecord> {
    type Error = ConversionError;
    fn try_from(message: wire::ListAdminsResponse) -> Result<Self, ConversionError> {
        let wire::ListAdminsResponse { admins } = message;
        list_up_to(FLEET_MAX, "admins", admins)
    }
}

impl From<PolicyRecord> for wire::PolicyRecord {
    fn from(value: PolicyRecord) -> Self {
        let PolicyRecord { toml, revision, applied_at, applied_by } = value;
        Self { toml, revision, applied_at: applied_at.unix_millis(), applied_by }
    }
}

impl TryFrom<wire::PolicyRecord> for PolicyRecord {
    type Error = ConversionError;
    fn try_from(message: wire::PolicyRecord) -> Result<Self, ConversionError> {
        let wire::PolicyRecord { toml, revision, applied_at, applied_by } = message;
        Ok(Self {
            toml: text_up_to(POLICY_MAX, "toml", toml)?,
            revision,
            applied_at: moment("applied_at", applied_at)?,
            applied_by: text("applied_by", applied_by)?,
        })
    }
}

from_reference!(AdminRecord, PolicyRecord);
