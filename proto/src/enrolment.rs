//! [`EnrolmentToken`]: what an operator hands to a desk so that it can enrol, once.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Specification};
use serde::{Deserialize, Serialize};

use crate::{Timestamp, TokenId};

/// A one-time secret together with the fingerprint of the controller's CA, so that the first contact cannot be
/// intercepted. Prints as `muster1-…`: one word of lower-case letters and digits, safe in a shell and on the telephone.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    secret: [u8; 20],
    ca_fingerprint: [u8; 32],
}

/// Why a text is not an enrolment token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentTokenError {
    /// It does not start as tokens do.
    #[error("not an enrolment token: it should start with `muster1-`")]
    Prefix,
    /// It is cut off, or has a letter too many or one that does not occur.
    #[error("the enrolment token is damaged: copy the whole word that `muster token create` printed")]
    Damaged,
}

const PREFIX: &str = "muster1-";

/// Bytes of the checksum at the end: tells a mistyped token from a wrong one before anything is sent.
const CHECK_LENGTH: usize = 3;

impl EnrolmentToken {
    /// A token of this secret, for the controller whose CA certificate has this SHA-256.
    pub const fn new(secret: [u8; 20], ca_fingerprint: [u8; 32]) -> Self {
        Self { secret, ca_fingerprint }
    }

    /// What the controller keeps a hash of.
    pub const fn secret(&self) -> &[u8; 20] {
        &self.secret
    }

    /// SHA-256 of the CA certificate in DER.
    pub const fn ca_fingerprint(&self) -> &[u8; 32] {
        &self.ca_fingerprint
    }

    /// A checksum against typing errors, no protection: FNV-1a over the payload.
    fn check(payload: &[u8]) -> [u8; CHECK_LENGTH] {
        let hash = payload.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let [.., a, b, c] = hash.to_be_bytes();
        [a, b, c]
    }
}

impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut payload = [self.secret.as_slice(), &self.ca_fingerprint].concat();
        payload.extend(Self::check(&payload));
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&payload).to_ascii_lowercase())
    }
}

impl fmt::Debug for EnrolmentToken {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentToken(…)")
    }
}

impl FromStr for EnrolmentToken {
    type Err = EnrolmentTokenError;
    fn from_str(text: &str) -> Result<Self, EnrolmentTokenError> {
        let text = text.trim().to_ascii_lowercase();
        let body = text.strip_prefix(PREFIX).ok_or(EnrolmentTokenError::Prefix)?;
        let mut specification = Specification::new();
        specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        let encoding = specification.encoding().expect("32 distinct symbols");
        let bytes = encoding.decode(body.as_bytes()).map_err(|_| EnrolmentTokenError::Damaged)?;
        let (payload, check) = bytes.split_at_checked(52).ok_or(EnrolmentTokenError::Damaged)?;
        if check != Self::check(payload) {
            return Err(EnrolmentTokenError::Damaged);
        }
        let (secret, fingerprint) = payload.split_at(20);
        Ok(Self {
            secret: secret.try_into().map_err(|_| EnrolmentTokenError::Damaged)?,
            ca_fingerprint: fingerprint.try_into().map_err(|_| EnrolmentTokenError::Damaged)?,
        })
    }
}

/// What the controller tells of a token: all but the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Names it in lists and for revoking.
    pub id: TokenId,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is worth nothing.
    pub expires_at: Timestamp,
    /// How often it may be used.
    pub uses_allowed: u32,
    /// How often it was used.
    pub uses: u32,
    /// Whether machines wait for an operator's word.
    pub needs_acceptance: bool,
    /// Whether an operator took it back.
    pub revoked: bool,
    /// The groups that machines join which enrol with it.
    #[serde(default)]
    pub groups: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_print_and_parse_and_its_typing_errors_are_noticed() {
        let token = EnrolmentToken::new([7; 20], [9; 32]);
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!("  {}\n", text.to_uppercase()).parse(), Ok(token));
        assert_eq!("hello".parse::<EnrolmentToken>(), Err(EnrolmentTokenError::Prefix));
        for position in PREFIX.len()..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[position] = if typo[position] == b'a' { b'b' } else { b'a' };
            let typo = String::from_utf8(typo).expect("ASCII");
            assert_eq!(typo.parse::<EnrolmentToken>(), Err(EnrolmentTokenError::Damaged), "{typo}");
        }
        assert_eq!(text[..text.len() - 2].parse::<EnrolmentToken>(), Err(EnrolmentTokenError::Damaged));
    }
}
