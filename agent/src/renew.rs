//! Renewing the machine's certificate: on the open link at half of its life, or after an absence by proof of the key.

use std::sync::Arc;
use std::time::Duration;

use muster_proto::wire::agent_link_client::AgentLinkClient;
use muster_proto::wire::enrolment_client::EnrolmentClient;
use muster_proto::{EnrolmentState, MachineId, PROTOCOL_VERSION, Timestamp, wire};
use tonic::transport::Channel;

use crate::clock::{self, ClockError};
use crate::connect::{ConnectError, Dialer};
use crate::enrol::{Answer, EnrolError};
use crate::identity::{self, Identity, IdentityError, MachineCertificate, MachineKey};
use crate::state::Paths;
use crate::tls::{self, Protocol};

/// How long the controller may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The key or the certificate cannot be stored or used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The controller cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The controller says no, or does not answer.
    #[error("the controller does not renew this machine's certificate: {}", .0.message())]
    Call(Box<tonic::Status>),
    /// The answer makes no sense.
    #[error(transparent)]
    Answer(#[from] EnrolError),
    /// The clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The certificate ended, and the machine may not have a new one.
    #[error("the controller gives no new certificate: this machine is {state}")]
    NotWanted {
        /// What it is.
        state: EnrolmentState,
    },
    /// The TLS library does not take the configuration.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Asks for a new certificate on the open link and stores it.
///
/// # Errors
/// See [`RenewError`]; the old certificate stays.
pub async fn renew(channel: Channel, paths: &Paths, identity: &Identity) -> Result<MachineCertificate, RenewError> {
    let request = wire::RenewRequest { certificate_request: identity.key.request()?.into() };
    let mut client = AgentLinkClient::new(channel);
    let response = within(client.renew(request)).await?;
    take(response, paths, identity.machine, &identity.key)
}

/// Gets a new certificate with the expired one and a proof of its key. Also tells a wrong clock, because the controller
/// says its own time first.
///
/// # Errors
/// See [`RenewError`].
pub async fn renew_expired(
    dialer: &Dialer,
    paths: &Paths,
    identity: &Identity,
) -> Result<MachineCertificate, RenewError> {
    let channel = dialer.channel(tls::anonymous(&identity.ca, Protocol::Http2)?).await?;
    let mut client = EnrolmentClient::new(channel);
    let wire::RenewChallengeResponse { nonce, controller_time } =
        within(client.renew_challenge(wire::RenewChallengeRequest {})).await?;
    check_clock(controller_time)?;
    let request = identity.key.request()?;
    let signature = identity.key.proof(&nonce, &request)?;
    let response = within(client.renew_expired(wire::RenewExpiredRequest {
        protocol: PROTOCOL_VERSION,
        certificate: identity.certificate.der().to_vec().into(),
        certificate_request: request.into(),
        nonce,
        signature: signature.into(),
    }))
    .await?;
    take(response, paths, identity.machine, &identity.key)
}

/// Asks the controller for its time, for when it says that a certificate is not valid which is valid here.
///
/// # Errors
/// The clock is wrong, or the controller cannot be asked.
pub async fn compare_clocks(dialer: &Dialer, identity: &Identity) -> Result<(), RenewError> {
    let channel = dialer.channel(tls::anonymous(&identity.ca, Protocol::Http2)?).await?;
    let response = within(EnrolmentClient::new(channel).renew_challenge(wire::RenewChallengeRequest {})).await?;
    Ok(check_clock(response.controller_time)?)
}

/// The identity with another certificate.
///
/// # Errors
/// The stored identity cannot be read.
pub fn reload(paths: &Paths) -> Result<Arc<Identity>, IdentityError> {
    Identity::load(paths).map(Arc::new)
}

fn check_clock(controller_time: i64) -> Result<(), ClockError> {
    ClockError::between(clock::now(), Timestamp::from_unix_millis(controller_time)).map_or(Ok(()), Err)
}

fn take(
    response: wire::EnrolResponse,
    paths: &Paths,
    machine: MachineId,
    key: &MachineKey,
) -> Result<MachineCertificate, RenewError> {
    let answer = Answer::read(response, key)?;
    if answer.machine != machine {
        let reason = format!("the new certificate is for {}, this machine is {machine}", answer.machine);
        return Err(EnrolError::Nonsense { reason }.into());
    }
    let Some(certificate) = answer.certificate else { return Err(RenewError::NotWanted { state: answer.state }) };
    identity::store_certificate(paths, &certificate)?;
    Ok(certificate)
}

async fn within<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, RenewError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(RenewError::Call(Box::new(status))),
        Err(_) => Err(RenewError::Call(Box::new(tonic::Status::deadline_exceeded("no answer in time")))),
    }
}
