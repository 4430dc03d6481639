//! Enrolling machines and renewing their certificates, and the tokens that operators hand out for it.
//!
//! Owns: the order of the checks, the nonces of late renewals, and the limits on attempts. It does not know of the wire.
//!
//! Entry point: [`Enroller`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_proto::{EnrolmentState, EnrolmentToken, MachineId, Timestamp, TokenId, TokenRecord, check_peer_protocol};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use crate::ca::{Ca, CaError, CertificateRequest, Issued, RequestError};
use crate::clock::Clock;
use crate::identity::Subject;
use crate::links::Links;
use crate::pace::Pace;
use crate::store::{Actor, EnrolFacts, EnrolOutcome, Event, Store, StoreError};

/// How long after its certificate ended a machine may still renew it by proof of its key.
pub const LATE_RENEWAL: Duration = Duration::from_hours(90 * 24);

/// How long a nonce is good for.
const NONCE_LIFETIME: Duration = Duration::from_mins(1);

/// Nonces that wait to be used; with the limit on attempts more cannot be needed.
const NONCES: usize = 8192;

/// Attempts in a second, over everybody without an identity, and how many may come at once.
const ATTEMPTS_PER_SECOND: f64 = 50.0;
const ATTEMPTS_AT_ONCE: f64 = 200.0;

/// Longest time that a token may be good for.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_hours(365 * 24);

/// Most uses of a token.
pub const TOKEN_USES_MAX: u32 = 1_000_000;

/// Why a machine is not enrolled, or its certificate not renewed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Too many attempts, by whomever.
    #[error("too many enrolment attempts at the moment: try again in a few seconds")]
    TooMany,
    /// The peer's version.
    #[error(transparent)]
    Protocol(#[from] muster_proto::ProtocolError),
    /// The certificate request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The hostname.
    #[error("the hostname is empty, longer than 255 bytes, or has control characters")]
    Hostname,
    /// The token.
    #[error("the enrolment token is wrong: ask for a new one (muster token create)")]
    UnknownToken,
    /// Too late.
    #[error("the enrolment token expired at {at}: ask for a new one (muster token create)")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// Too often.
    #[error("the enrolment token was used as often as it may: ask for a new one (muster token create)")]
    UsedUp,
    /// Taken back.
    #[error("the enrolment token was revoked: ask for a new one (muster token create)")]
    TokenRevoked,
    /// The machine's key is not welcome.
    #[error("this machine was {state}: to bring it back, empty its state directory and enrol it anew")]
    MachineRefused {
        /// Rejected or revoked.
        state: EnrolmentState,
    },
    /// Away for more than [`LATE_RENEWAL`].
    #[error("this machine was away for more than 90 days: enrol it with a new token")]
    GoneTooLong,
    /// Not yet accepted.
    #[error("an operator has not accepted this machine yet")]
    Pending,
    /// Not a machine's certificate of this controller.
    #[error("the certificate is none of this controller's: enrol this machine with a new token")]
    ForeignCertificate,
    /// The key in the request is not the machine's.
    #[error("the certificate request is for another key than the machine enrolled with")]
    OtherKey,
    /// Not given out, used before, or too old.
    #[error("the nonce is not valid any more: ask for a new one")]
    Nonce,
    /// The proof is wrong.
    #[error("the signature does not prove the machine's key")]
    Signature,
    /// No such machine.
    #[error("this controller does not know the machine: enrol it with a new token")]
    UnknownMachine,
    /// Signing failed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an operator asks of a new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// How often it may be used.
    pub uses: u32,
    /// How long.
    pub lifetime: Duration,
    /// Whether machines wait for an operator's word.
    pub needs_acceptance: bool,
    /// The groups that machines join.
    pub groups: Vec<String>,
}

/// Why a token is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRequestError {
    /// No use, or too many.
    #[error("a token is for 1 to {TOKEN_USES_MAX} uses")]
    Uses,
    /// Too short or too long.
    #[error("a token lasts between 1 second and 365 days")]
    Lifetime,
}

/// A machine that was enrolled or renewed.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Which.
    pub machine: MachineId,
    /// Accepted, or pending without a certificate.
    pub state: EnrolmentState,
    /// Its certificate.
    pub certificate: Option<Issued>,
}

/// An attempt to enrol, as it came.
#[derive(Clone, Debug)]
pub struct EnrolAttempt {
    /// The peer's protocol.
    pub protocol: u32,
    /// The token's secret.
    pub secret: Vec<u8>,
    /// PKCS #10, DER.
    pub request: Vec<u8>,
    /// What the machine calls itself.
    pub hostname: String,
}

/// A late renewal, as it came.
#[derive(Clone, Debug)]
pub struct LateRenewal {
    /// The peer's protocol.
    pub protocol: u32,
    /// The certificate that ended, DER.
    pub certificate: Vec<u8>,
    /// PKCS #10, DER, by the same key.
    pub request: Vec<u8>,
    /// From [`Enroller::challenge`].
    pub nonce: Vec<u8>,
    /// By the machine's key.
    pub signature: Vec<u8>,
}

/// Enrols and renews; clones share it.
#[derive(Clone, Debug)]
pub struct Enroller {
    ca: Arc<Ca>,
    store: Store,
    links: Links,
    clock: Clock,
    lifetime: Duration,
    attempts: Arc<Pace>,
    /// Given out and not used yet, and when.
    nonces: Arc<Mutex<HashMap<[u8; 32], Timestamp>>>,
}

/// A name that may be shown and logged.
pub(crate) fn is_hostname(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// What a late renewal signs.
pub fn renewal_proof(nonce: &[u8], request: &[u8]) -> Vec<u8> {
    [b"muster renew v1\0", nonce, digest(&SHA256, request).as_ref()].concat()
}

impl Enroller {
    /// An enroller that gives certificates of this lifetime.
    pub fn new(ca: Arc<Ca>, store: Store, links: Links, clock: Clock, lifetime: Duration) -> Self {
        let attempts = Arc::new(Pace::new(ATTEMPTS_PER_SECOND, ATTEMPTS_AT_ONCE));
        Self { ca, store, links, clock, lifetime, attempts, nonces: Arc::default() }
    }

    /// The CA.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    fn with_nonces<T>(&self, look: impl FnOnce(&mut HashMap<[u8; 32], Timestamp>) -> T) -> T {
        look(&mut self.nonces.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One more attempt by somebody without an identity.
    fn attempt(&self) -> Result<(), EnrolError> {
        if self.attempts.take(1.0) { Ok(()) } else { Err(EnrolError::TooMany) }
    }

    /// Makes a token. It is only ever told here.
    ///
    /// # Errors
    /// The request is out of range, or the store failed.
    pub async fn create_token(
        &self,
        request: TokenRequest,
        actor: Actor,
    ) -> Result<Result<(EnrolmentToken, TokenRecord), TokenRequestError>, StoreError> {
        if !(1..=TOKEN_USES_MAX).contains(&request.uses) {
            return Ok(Err(TokenRequestError::Uses));
        }
        if request.lifetime < Duration::from_secs(1) || request.lifetime > TOKEN_LIFETIME_MAX {
            return Ok(Err(TokenRequestError::Lifetime));
        }
        let token = EnrolmentToken::new(rand::random(), *self.ca.fingerprint().as_bytes());
        let now = self.clock.now();
        let record = TokenRecord {
            id: TokenId::random(),
            created_at: now,
            expires_at: now.plus(request.lifetime),
            uses_allowed: request.uses,
            uses: 0,
            needs_acceptance: request.needs_acceptance,
            revoked: false,
            groups: request.groups,
        };
        self.store.put_token(hash(token.secret()), record.clone(), actor).await?;
        Ok(Ok((token, record)))
    }

    /// Exchanges a token and a certificate request for a certificate. The same token with the same key gets the same
    /// machine again.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn enrol(&self, attempt: EnrolAttempt) -> Result<Enrolled, EnrolError> {
        self.attempt()?;
        check_peer_protocol(attempt.protocol)?;
        let request = CertificateRequest::parse(&attempt.request)?;
        if !is_hostname(&attempt.hostname) {
            return Err(EnrolError::Hostname);
        }
        let now = self.clock.now();
        let facts = EnrolFacts {
            hash: hash(&attempt.secret),
            public_key: request.public_key().to_vec(),
            hostname: attempt.hostname,
            at: now,
            new_id: MachineId::random(),
            expires: now.plus(self.lifetime),
            gone_before: Timestamp::from_unix_millis(
                now.unix_millis() - i64::try_from(LATE_RENEWAL.as_millis()).unwrap_or(i64::MAX),
            ),
        };
        match self.store.enrol(facts).await? {
            EnrolOutcome::Machine { id, state } => {
                let certificate = if state == EnrolmentState::Accepted {
                    Some(self.ca.issue_machine(&request, id, self.lifetime, now)?)
                } else {
                    None
                };
                Ok(Enrolled { machine: id, state, certificate })
            }
            EnrolOutcome::UnknownToken => Err(EnrolError::UnknownToken),
            EnrolOutcome::Expired { at } => Err(EnrolError::Expired { at }),
            EnrolOutcome::UsedUp => Err(EnrolError::UsedUp),
            EnrolOutcome::TokenRevoked => Err(EnrolError::TokenRevoked),
            EnrolOutcome::MachineRefused { state } => Err(EnrolError::MachineRefused { state }),
            EnrolOutcome::GoneTooLong => Err(EnrolError::GoneTooLong),
        }
    }

    /// A new certificate for a connected machine, by the key that it enrolled with.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn renew(&self, machine: MachineId, request: &[u8]) -> Result<Enrolled, EnrolError> {
        let request = CertificateRequest::parse(request)?;
        self.renew_for(machine, &request, "certificate.renewed").await
    }

    async fn renew_for(
        &self,
        machine: MachineId,
        request: &CertificateRequest,
        action: &'static str,
    ) -> Result<Enrolled, EnrolError> {
        let known = self.store.machine_key(machine).await?.ok_or(EnrolError::UnknownMachine)?;
        match known.standing.state {
            EnrolmentState::Accepted => {}
            EnrolmentState::Pending => return Err(EnrolError::Pending),
            state => return Err(EnrolError::MachineRefused { state }),
        }
        if known.public_key != request.public_key() {
            return Err(EnrolError::OtherKey);
        }
        let now = self.clock.now();
        let issued = self.ca.issue_machine(request, machine, self.lifetime, now)?;
        let event = Event::new(now, Actor::Machine(machine), action, machine, format!("until {}", issued.expires));
        self.store.note_renewal(machine, issued.expires, event).await?;
        self.links.renewed(machine, issued.expires);
        Ok(Enrolled { machine, state: EnrolmentState::Accepted, certificate: Some(issued) })
    }

    /// A nonce for a late renewal.
    ///
    /// # Errors
    /// Too many attempts.
    pub fn challenge(&self) -> Result<[u8; 32], EnrolError> {
        self.attempt()?;
        let nonce: [u8; 32] = rand::random();
        let now = self.clock.now();
        self.with_nonces(|nonces| {
            nonces.retain(|_, given| now.since(*given) < NONCE_LIFETIME);
            if nonces.len() >= NONCES {
                return Err(EnrolError::TooMany);
            }
            nonces.insert(nonce, now);
            Ok(nonce)
        })
    }

    /// Renews a certificate that ended, for whoever proves to have its key.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn renew_late(&self, renewal: LateRenewal) -> Result<Enrolled, EnrolError> {
        self.attempt()?;
        check_peer_protocol(renewal.protocol)?;
        let now = self.clock.now();
        let given = <[u8; 32]>::try_from(&renewal.nonce[..])
            .ok()
            .and_then(|nonce| self.with_nonces(|nonces| nonces.remove(&nonce)));
        if given.is_none_or(|given| now.since(given) >= NONCE_LIFETIME) {
            return Err(EnrolError::Nonce);
        }
        let certificate = self.ca.own(&renewal.certificate).ok_or(EnrolError::ForeignCertificate)?;
        let Subject::Machine(machine) = certificate.subject else { return Err(EnrolError::ForeignCertificate) };
        let request = CertificateRequest::parse(&renewal.request)?;
        if request.public_key() != certificate.public_key {
            return Err(EnrolError::OtherKey);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &certificate.public_key)
            .verify(&renewal_proof(&renewal.nonce, &renewal.request), &renewal.signature)
            .map_err(|_| EnrolError::Signature)?;
        if now.since(certificate.expires) > LATE_RENEWAL {
            return Err(EnrolError::GoneTooLong);
        }
        self.renew_for(machine, &request, "certificate.renewed_late").await
    }
}

fn hash(secret: &[u8]) -> [u8; 32] {
    digest(&SHA256, secret).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
