//! What the controller says of itself: [`ControllerStatus`], [`AdminRecord`], [`PolicyRecord`].

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize, de};

use crate::{AdminName, Bytes, DigestError, Timestamp};

/// SHA-256 of the controller's CA certificate in DER. Prints, parses and serializes as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaFingerprint([u8; 32]);

impl CaFingerprint {
    /// The fingerprint with these 32 bytes.
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

impl fmt::Display for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.hex())
    }
}

impl fmt::Debug for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<&[u8]> for CaFingerprint {
    type Error = DigestError;
    fn try_from(bytes: &[u8]) -> Result<Self, DigestError> {
        bytes.try_into().map(Self).map_err(|_| DigestError)
    }
}

impl FromStr for CaFingerprint {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| DigestError)?;
        Self::try_from(bytes.as_slice())
    }
}

impl Serialize for CaFingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CaFingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// How the controller is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// Its version, e.g. `0.1.0`.
    pub version: String,
    /// The protocol it speaks.
    pub protocol: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// Its data directory.
    pub data_dir: String,
    /// Where agents connect, as bound, e.g. `0.0.0.0:7433`.
    pub listen: String,
    /// What agents know its CA by.
    pub ca_fingerprint: CaFingerprint,
    /// Every machine that ever enrolled.
    pub machines: u32,
    /// Those whose stream is up.
    pub machines_online: u32,
    /// Those that wait for an operator's word.
    pub machines_pending: u32,
    /// Models in the catalog.
    pub models: u32,
    /// What model files take on disk.
    pub blob_bytes: Bytes,
    /// Deployments that run.
    pub deployments_success: u32,
    /// All deployments.
    pub deployments: u32,
}

/// An operator with an admin certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminRecord {
    /// Who.
    pub name: AdminName,
    /// When the certificate was issued.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// The policy in force, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// TOML as the operator wrote it; empty if none was ever applied.
    pub toml: String,
    /// Counts how often a policy was applied; 0 if never.
    pub revision: u64,
    /// When.
    pub applied_at: Timestamp,
    /// By whom, as in the audit log.
    pub applied_by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_its_own_print() {
        let fingerprint = CaFingerprint::new([0xc4; 32]);
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert_eq!("c4".parse::<CaFingerprint>(), Err(DigestError));
        assert_eq!(fingerprint.hex().to_uppercase().parse::<CaFingerprint>(), Err(DigestError));
    }
}
