//! Every kind of identifier, each its own type, so that one never stands in for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de};
use uuid::Uuid;

/// Why a text is not an identifier of the named kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: {wanted}")]
pub struct IdError {
    /// What was expected, e.g. `machine id`.
    pub kind: &'static str,
    /// The form it must have.
    pub wanted: &'static str,
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random one (122 bits from the operating system).
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The one with these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| IdError { kind: $kind, wanted: "expected 16 bytes" })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.to_string())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdError { kind: $kind, wanted: "expected a UUID" })
            }
        }
    };
}

random_id! {
    /// A machine: random, made by the controller at enrolment, kept for ever. Hardware has its own fingerprint.
    MachineId, "machine id"
}
random_id! {
    /// One enrolment token; its secret is another thing.
    TokenId, "token id"
}
random_id! {
    /// One decision: this machine runs this artifact for this role with these settings.
    AssignmentId, "assignment id"
}
random_id! {
    /// An operator's order to benchmark one machine.
    BenchOrderId, "benchmark order id"
}

/// The name of an operator who holds an admin certificate: 1 to 64 of `a-z A-Z 0-9 . _ - @`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AdminName(String);

impl AdminName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AdminName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError { kind: "admin name", wanted: "expected 1 to 64 letters, digits or . _ - @" })
        }
    }
}

impl<'de> Deserialize<'de> for AdminName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for AdminName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
