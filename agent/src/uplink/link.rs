//! One stream from Hello to its end.

use std::sync::Arc;
use std::time::Duration;

use muster_proto::wire::agent_link_client::AgentLinkClient;
use muster_proto::wire::{from_agent, to_agent};
use muster_proto::{DesiredState, PROTOCOL_VERSION, ProtocolError, Timestamp, check_peer_protocol, wire};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::Uplink;
use super::orders::Told;
use crate::backoff::Backoff;
use crate::clock::{self, ClockError};
use crate::connect::ConnectError;
use crate::identity::{IdentityError, MachineCertificate};
use crate::ledger::{Accepted, Ledger, LedgerError};
use crate::renew::{self, RenewError};
use crate::survey::SurveyRequest;
use crate::tls::Protocol;

/// How long the controller may take for its Welcome: longer than it waits for a challenge's answer.
const WELCOME: Duration = Duration::from_secs(15);
/// At most one observed state in that time.
const OBSERVED_EVERY: Duration = Duration::from_millis(250);
/// News of ordered benchmarks at most so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// A message that cannot be sent for that long means a dead connection.
const SEND: Duration = Duration::from_secs(20);
/// The heartbeat may be set by the controller, but never be busier than this.
const HEARTBEAT_FLOOR: Duration = Duration::from_secs(1);
/// The heartbeat if the controller names none.
const HEARTBEAT: Duration = Duration::from_mins(1);
/// Messages on their way out.
const QUEUE: usize = 16;

/// Why the link is not up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The machine's certificate cannot be used.
    #[error("cannot use this machine's certificate")]
    Tls(#[from] rustls::Error),
    /// The expired certificate was not renewed.
    #[error(transparent)]
    Renew(#[from] RenewError),
    /// The controller ended the stream with a reason.
    #[error("the controller ended the connection: {}", status_text(.0))]
    Ended(Box<tonic::Status>),
    /// The stream ended without one.
    #[error("the connection to the controller was lost")]
    Lost,
    /// The controller went silent.
    #[error("the controller has been silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// The controller did not welcome.
    #[error("the controller did not begin with a welcome")]
    NoWelcome,
    /// Versions are too far apart.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

fn status_text(status: &tonic::Status) -> String {
    if status.message().is_empty() { status.code().description().to_owned() } else { status.message().to_owned() }
}

impl LinkError {
    /// Whether the controller said that this machine's certificate is not valid at this time.
    pub(super) fn says_certificate_expired(&self) -> bool {
        if matches!(self, Self::Ended(status) if status.code() == tonic::Code::Unauthenticated) {
            return true;
        }
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(current) = error {
            if current.downcast_ref::<rustls::Error>().is_some_and(clock::peer_says_expired) {
                return true;
            }
            // An I/O error gives its inner error's source as its own source, and hides the inner error.
            if let Some(inner) = current.downcast_ref::<std::io::Error>().and_then(crate::connect::tls_error)
                && clock::peer_says_expired(inner)
            {
                return true;
            }
            error = current.source();
        }
        false
    }
}

/// The stream's other half.
struct Sender(mpsc::Sender<wire::FromAgent>);

impl Sender {
    async fn send(&self, message: from_agent::Message) -> Result<(), LinkError> {
        match tokio::time::timeout(SEND, self.0.send(message.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(LinkError::Lost),
            Err(_) => Err(LinkError::Silent(SEND)),
        }
    }
}

impl Uplink {
    /// Connects, says hello, and stays until the stream ends.
    pub(super) async fn link(&mut self, backoff: &mut Backoff) -> LinkError {
        match self.try_link(backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_link(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, LinkError> {
        let config = self.identity.borrow().tls(Protocol::Http2)?;
        let channel = self.dialer.channel(config).await?;
        let (outbound, queue) = mpsc::channel(QUEUE);
        let sender = Sender(outbound);
        sender.send(from_agent::Message::Hello(self.hello())).await?;
        let mut client = AgentLinkClient::new(channel.clone());
        let ended = |status: tonic::Status| LinkError::Ended(Box::new(status));
        let opening = async {
            let mut inbound = client.link(ReceiverStream::new(queue)).await.map_err(ended)?.into_inner();
            let first = inbound.message().await.map_err(ended)?;
            Ok::<_, LinkError>((inbound, first))
        };
        let (mut inbound, first) = tokio::time::timeout(WELCOME, opening).await.map_err(|_| LinkError::NoWelcome)??;
        let Some(wire::ToAgent { message: Some(to_agent::Message::Welcome(welcome)) }) = first else {
            return Err(LinkError::NoWelcome);
        };
        let heartbeat = self.welcomed(&welcome)?;
        backoff.succeeded();
        self.went_up();

        let mut link = Open {
            heartbeat,
            beat_at: Instant::now() + heartbeat,
            heard_at: Instant::now(),
            observed_at: Instant::now(),
            observed_due: true,
            progress_at: Instant::now(),
            progress_due: true,
            told: Told::new(),
            renewals: JoinSet::new(),
            renew_at: Instant::now() + self.until_renewal(),
        };
        self.upward.inventory.mark_changed();
        self.upward.benchmark.mark_changed();
        loop {
            // Every arm is cancel-safe: streams, watches and timers lose nothing when another arm wins, and renewals
            // live in their own set.
            tokio::select! {
                biased;
                message = inbound.message() => match message {
                    Ok(Some(wire::ToAgent { message })) => {
                        link.heard_at = Instant::now();
                        self.handle(message, &sender, &mut link.told).await?;
                    }
                    Ok(None) => return Err(LinkError::Lost),
                    Err(status) => return Err(ended(status)),
                },
                () = tokio::time::sleep_until(link.beat_at) => {
                    let silent = link.heard_at.elapsed();
                    if silent > 3 * link.heartbeat {
                        return Err(LinkError::Silent(silent));
                    }
                    link.beat_at = Instant::now() + link.heartbeat;
                    sender.send(from_agent::Message::Heartbeat(wire::Heartbeat {})).await?;
                }
                Ok(()) = self.upward.inventory.changed() => {
                    let inventory = self.upward.inventory.borrow_and_update().clone();
                    if let Some(inventory) = inventory {
                        sender.send(from_agent::Message::Inventory((*inventory).clone().into())).await?;
                    }
                }
                Ok(()) = self.upward.benchmark.changed() => {
                    let benchmark = self.upward.benchmark.borrow_and_update().clone();
                    if let Some(benchmark) = benchmark {
                        sender.send(from_agent::Message::Benchmark((*benchmark).clone().into())).await?;
                    }
                }
                Ok(()) = self.upward.observed.changed(), if !link.observed_due => link.observed_due = true,
                () = tokio::time::sleep_until(link.observed_at), if link.observed_due => {
                    link.observed_due = false;
                    link.observed_at = Instant::now() + OBSERVED_EVERY;
                    let observed = self.upward.observed.borrow_and_update().clone();
                    sender.send(from_agent::Message::Observed(observed.into())).await?;
                }
                () = self.orders.changed(), if !link.progress_due => link.progress_due = true,
                // After the benchmark's own arm, so that a result is there before it is said to be.
                () = tokio::time::sleep_until(link.progress_at), if link.progress_due => {
                    link.progress_due = false;
                    link.progress_at = Instant::now() + PROGRESS_EVERY;
                    for progress in self.orders.untold(&mut link.told) {
                        sender.send(from_agent::Message::BenchmarkProgress(progress)).await?;
                    }
                }
                () = tokio::time::sleep_until(link.renew_at), if link.renewals.is_empty() => {
                    self.start_renewal(&mut link.renewals, channel.clone());
                }
                Some(renewed) = link.renewals.join_next() => {
                    link.renew_at = Instant::now() + self.renewed(renewed);
                }
            }
        }
    }

    fn hello(&self) -> wire::Hello {
        let held = self.ledger.held();
        wire::Hello {
            protocol: PROTOCOL_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            engine_build: muster_engine::BUILD.into(),
            held_generation: self.ledger.generation(),
            held_digest: held.map(|held| held.digest.to_vec()).unwrap_or_default().into(),
            hostname: crate::probe::hostname(),
            agent_time: clock::now().unix_millis(),
        }
    }

    fn welcomed(&self, welcome: &wire::Welcome) -> Result<Duration, LinkError> {
        let wire::Welcome { protocol, controller_version, controller_time, heartbeat_seconds } = welcome;
        check_peer_protocol(*protocol)?;
        tracing::debug!(controller_version, "welcomed");
        let skew = ClockError::between(clock::now(), Timestamp::from_unix_millis(*controller_time));
        self.status.send_modify(|status| status.last_error = skew.map(|skew| skew.to_string()));
        if let Some(skew) = skew {
            tracing::warn!("{skew}");
        }
        Ok(match heartbeat_seconds {
            0 => HEARTBEAT,
            seconds => Duration::from_secs(u64::from(*seconds)).max(HEARTBEAT_FLOOR),
        })
    }

    async fn handle(
        &mut self,
        message: Option<to_agent::Message>,
        sender: &Sender,
        told: &mut Told,
    ) -> Result<(), LinkError> {
        match message {
            Some(to_agent::Message::DesiredState(state)) => self.take_desired(state, sender).await,
            Some(to_agent::Message::Challenge(wire::Challenge { nonce })) => {
                let text = "another machine connected with this machine's identity: is its disk a copy of this one?";
                tracing::warn!("{text}");
                self.status.send_modify(|status| status.last_error = Some(text.to_owned()));
                sender.send(from_agent::Message::ChallengeAnswer(wire::ChallengeAnswer { nonce })).await
            }
            Some(to_agent::Message::InventoryRequest(wire::InventoryRequest {})) => {
                // A full queue means that one is on its way anyway.
                let _ = self.survey.try_send(SurveyRequest::Inventory);
                Ok(())
            }
            Some(to_agent::Message::BenchmarkRequest(request)) => {
                self.orders.take(request, told);
                Ok(())
            }
            // An acknowledgement only shows that the controller lives; a second welcome and what a newer controller
            // says are skipped.
            Some(to_agent::Message::HeartbeatAck(_) | to_agent::Message::Welcome(_)) | None => Ok(()),
        }
    }

    async fn take_desired(&mut self, offered: wire::DesiredState, sender: &Sender) -> Result<(), LinkError> {
        let generation = offered.generation;
        match tokio::task::block_in_place(|| self.ledger.accept(offered)) {
            Ok(Accepted::New(state)) => {
                let DesiredState { generation, assignments } = &*state;
                tracing::info!(generation, assignments = assignments.len(), "new desired state");
                self.desired.send_replace(Some(state));
                Ok(())
            }
            Ok(Accepted::Same) => Ok(()),
            Err(error) => {
                let reason = crate::error_chain(&error);
                tracing::warn!(generation, %reason, "refused a desired state");
                if matches!(error, LedgerError::Write { .. }) {
                    self.status.send_modify(|status| status.last_error = Some(reason.clone()));
                }
                let refused = wire::DesiredStateRefused {
                    offered_generation: generation,
                    held_generation: Ledger::generation(&self.ledger),
                    reason,
                };
                sender.send(from_agent::Message::DesiredStateRefused(refused)).await
            }
        }
    }

    fn until_renewal(&self) -> Duration {
        self.identity.borrow().certificate.renew_at().since(clock::now())
    }

    fn start_renewal(&self, renewals: &mut JoinSet<Result<MachineCertificate, RenewError>>, channel: Channel) {
        let (paths, identity) = (self.paths.clone(), Arc::clone(&self.identity.borrow()));
        renewals.spawn(async move { renew::renew(channel, &paths, &identity).await });
    }

    /// Takes a new certificate; says when to ask next.
    fn renewed(&self, result: Result<Result<MachineCertificate, RenewError>, tokio::task::JoinError>) -> Duration {
        let remaining = |certificate: Timestamp| certificate.since(clock::now());
        // After a failure a tenth of what is left, so that the last attempts come before the end.
        let retry = (remaining(self.identity.borrow().certificate.expires_at()) / 10)
            .clamp(Duration::from_secs(1), Duration::from_mins(10));
        match result {
            Ok(Ok(certificate)) => match renew::reload(&self.paths) {
                Ok(identity) => {
                    let until = certificate.expires_at();
                    tracing::info!(%until, "renewed the certificate");
                    self.identity.send_replace(identity);
                    self.status.send_modify(|status| status.certificate_expires_at = Some(until));
                    self.until_renewal().max(Duration::from_secs(1))
                }
                Err(error) => failed_renewal(&error, retry),
            },
            Ok(Err(error)) => failed_renewal(&error, retry),
            Err(error) => failed_renewal(&error, retry),
        }
    }
}

fn failed_renewal(error: &(dyn std::error::Error + 'static), retry: Duration) -> Duration {
    tracing::warn!(error = %crate::error_chain(error), "the certificate was not renewed");
    retry
}

/// The state of an open link.
struct Open {
    heartbeat: Duration,
    beat_at: Instant,
    heard_at: Instant,
    /// When the next observed state may go.
    observed_at: Instant,
    observed_due: bool,
    /// When the next news of an ordered benchmark may go.
    progress_at: Instant,
    progress_due: bool,
    /// What was said of ordered benchmarks.
    told: Told,
    renewals: JoinSet<Result<MachineCertificate, RenewError>>,
    renew_at: Instant,
}

impl From<IdentityError> for LinkError {
    fn from(error: IdentityError) -> Self {
        Self::Renew(error.into())
    }
}
