//! Enrolling: a token and a certificate request go out, a certificate comes back.
//!
//! The key pair is stored before anything is sent, and the same token with the same key gets the same machine again:
//! killed anywhere, it just repeats. Entry point: [`enrol`].

use std::time::{Duration, Instant};

use muster_proto::wire::enrolment_client::EnrolmentClient;
use muster_proto::{EnrolmentState, EnrolmentToken, IdError, MachineId, PROTOCOL_VERSION, Timestamp, wire};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use tonic::Code;

use crate::backoff::Backoff;
use crate::clock::{self, ClockError};
use crate::connect::{ConnectError, Dialer};
use crate::identity::{self, IdentityError, MachineCertificate, MachineKey};
use crate::state::Paths;
use crate::tls;

/// How long the controller may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How an enrolment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// The machine has its certificate.
    Accepted {
        /// The machine's id.
        machine: MachineId,
        /// When the certificate ends.
        expires_at: Timestamp,
    },
    /// An operator has to accept the machine first.
    Pending {
        /// The machine's id.
        machine: MachineId,
    },
}

/// Why a machine did not enrol.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The key or the certificate cannot be stored or used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The controller cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Whoever answers is not the token's controller.
    #[error(
        "{target} is not the controller that made this token: the token is of another controller, or somebody sits in between"
    )]
    NotTheTokens {
        /// Who answered.
        target: String,
    },
    /// The controller says no.
    #[error("the controller refuses: {message}")]
    Refused {
        /// Its words.
        message: String,
    },
    /// The call failed.
    #[error("the controller did not answer the enrolment: {}", .0.message())]
    Call(Box<tonic::Status>),
    /// An operator said no.
    #[error("an operator {what} this machine ({machine})")]
    NotWanted {
        /// `rejected` or `revoked`.
        what: &'static str,
        /// The machine's id.
        machine: MachineId,
    },
    /// The answer makes no sense.
    #[error("the controller's answer makes no sense: {reason}")]
    Nonsense {
        /// Why.
        reason: String,
    },
    /// The clocks differ so much that the certificate is of no use.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The TLS library does not take the configuration.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Enrols this machine. With `wait`, asks again until an operator has decided; `pending` hears of it once.
///
/// # Errors
/// See [`EnrolError`]; repeating is always safe.
pub async fn enrol(
    paths: &Paths,
    dialer: &Dialer,
    token: &EnrolmentToken,
    wait: bool,
    mut pending: impl FnMut(MachineId),
) -> Result<Enrolled, EnrolError> {
    let key = MachineKey::load_or_create(paths)?;
    let mut backoff = Backoff::default();
    loop {
        let enrolled = attempt(paths, dialer, token, &key).await;
        match enrolled {
            Ok(Enrolled::Pending { machine }) if wait => {
                if backoff.failures() == 0 {
                    pending(machine);
                }
            }
            // While it waits, a controller that restarts is no reason to give up.
            Err(EnrolError::Connect(_) | EnrolError::Call(_)) if wait && backoff.failures() > 0 => {}
            enrolled => return enrolled,
        }
        tokio::time::sleep(backoff.failed(Instant::now(), rand::random())).await;
    }
}

async fn attempt(
    paths: &Paths,
    dialer: &Dialer,
    token: &EnrolmentToken,
    key: &MachineKey,
) -> Result<Enrolled, EnrolError> {
    let config = tls::first_contact(*token.ca_fingerprint())?;
    let channel = dialer.channel(config).await.map_err(|error| match error {
        ConnectError::NotTheController { target } => EnrolError::NotTheTokens { target: target.to_string() },
        error => error.into(),
    })?;
    let request = wire::EnrolRequest {
        protocol: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        token_secret: token.secret().to_vec().into(),
        certificate_request: key.request()?.into(),
        hostname: crate::probe::hostname(),
    };
    let mut client = EnrolmentClient::new(channel);
    let call = tokio::time::timeout(PATIENCE, client.enrol(request)).await;
    let response = call
        .map_err(|_| EnrolError::Call(Box::new(tonic::Status::deadline_exceeded("no answer in time"))))?
        .map_err(refusal)?
        .into_inner();
    let answer = Answer::read(response, key)?;
    if digest(&SHA256, &answer.ca).as_ref() != token.ca_fingerprint() {
        return Err(EnrolError::Nonsense { reason: "it names another certificate authority than the token".into() });
    }
    let target = dialer.target();
    match answer.state {
        EnrolmentState::Accepted => {
            let Some(certificate) = answer.certificate else {
                return Err(EnrolError::Nonsense { reason: "accepted, but without a certificate".into() });
            };
            let here = clock::now();
            let skew = answer.controller_time.and_then(|controller| ClockError::between(here, controller));
            if let Some(error) = skew.filter(|_| certificate.expires_at() <= here) {
                return Err(error.into());
            }
            identity::store_accepted(paths, answer.machine, target, &certificate, &answer.ca)?;
            Ok(Enrolled::Accepted { machine: answer.machine, expires_at: certificate.expires_at() })
        }
        EnrolmentState::Pending => {
            identity::store_pending(paths, answer.machine, target)?;
            Ok(Enrolled::Pending { machine: answer.machine })
        }
        EnrolmentState::Rejected => Err(EnrolError::NotWanted { what: "rejected", machine: answer.machine }),
        EnrolmentState::Revoked => Err(EnrolError::NotWanted { what: "revoked", machine: answer.machine }),
        other => Err(EnrolError::Nonsense { reason: format!("the enrolment is in the unknown state {other}") }),
    }
}

fn refusal(status: tonic::Status) -> EnrolError {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown | Code::Cancelled => {
            EnrolError::Call(Box::new(status))
        }
        _ => EnrolError::Refused { message: status.message().to_owned() },
    }
}

/// What an [`wire::EnrolResponse`] says, checked. Renewals get the same.
#[derive(Debug)]
pub struct Answer {
    /// The machine's id.
    pub machine: MachineId,
    /// Whether it may take part.
    pub state: EnrolmentState,
    /// Its certificate, for its key.
    pub certificate: Option<MachineCertificate>,
    /// The controller's CA.
    pub ca: CertificateDer<'static>,
    /// The controller's clock.
    pub controller_time: Option<Timestamp>,
}

impl Answer {
    /// Reads and checks a response: a certificate must be for `key`.
    ///
    /// # Errors
    /// [`EnrolError::Nonsense`].
    pub fn read(response: wire::EnrolResponse, key: &MachineKey) -> Result<Self, EnrolError> {
        let nonsense = |reason: String| EnrolError::Nonsense { reason };
        let wire::EnrolResponse { machine_id, certificate, ca_certificate, state, expires_at: _, controller_time } =
            response;
        let machine = MachineId::try_from(&*machine_id).map_err(|error: IdError| nonsense(error.to_string()))?;
        let certificate = if certificate.is_empty() {
            None
        } else {
            let certificate = MachineCertificate::parse(&certificate).map_err(nonsense)?;
            if !certificate.is_for(key) {
                return Err(nonsense("the certificate is for another key".into()));
            }
            Some(certificate)
        };
        Ok(Self {
            machine,
            state: EnrolmentState::from_number(state),
            certificate,
            ca: CertificateDer::from(ca_certificate.to_vec()),
            controller_time: (controller_time > 0).then(|| Timestamp::from_unix_millis(controller_time)),
        })
    }
}
