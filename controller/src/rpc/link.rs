//! `AgentLink`: the one long-lived stream of each machine.

use std::time::Duration;

use muster_proto::wire::agent_link_server::AgentLink;
use muster_proto::wire::{self, from_agent, to_agent};
use muster_proto::{
    BenchOrderId, BenchOrderState, Benchmark, BenchmarkKind, Inventory, MachineId, Observed, PROTOCOL_VERSION,
    Timestamp, check_peer_protocol,
};
use prost::Message as _;
use ring::digest::{SHA256, digest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::enrolment::enrol_response;
use super::{Services, enrol_status, machine, store_status};
use crate::benches::Progress;
use crate::enrol::is_hostname;
use crate::identity::Identity;
use crate::links::{Claim, Session};
use crate::store::{Actor, Event, Held, HeldOutcome, HelloFacts};

/// How long the first message may take.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may leave a message unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A machine is gone after so many heartbeats that did not come.
const MISSED_HEARTBEATS: u32 = 3;

/// Messages to a machine that wait; each is small.
const QUEUED: usize = 8;

/// Longest text of a step or a reason, in characters.
const PROGRESS_TEXT: usize = 500;

/// What opening a stream takes of a machine's allowance: two events in the audit log, and perhaps a challenge.
const OPENING: f64 = 5.0;

/// What a renewal takes.
const RENEWAL: f64 = 4.0;

/// What a message takes: most are one write; after some, machines are sized and planned for, and the audit log grows.
const fn cost(message: &from_agent::Message) -> f64 {
    match message {
        from_agent::Message::Inventory(_)
        | from_agent::Message::Benchmark(_)
        | from_agent::Message::DesiredStateRefused(_) => 10.0,
        _ => 1.0,
    }
}

type Outgoing = mpsc::Sender<Result<wire::ToAgent, Status>>;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct LinkService {
    services: Services,
}

impl LinkService {
    pub const fn new(services: Services) -> Self {
        Self { services }
    }
}

#[async_trait]
impl AgentLink for LinkService {
    type LinkStream = ReceiverStream<Result<wire::ToAgent, Status>>;

    async fn link(&self, request: Request<Streaming<wire::FromAgent>>) -> Result<Response<Self::LinkStream>, Status> {
        let caller = Peer {
            machine: machine(&request)?,
            session: request.extensions().get::<Session>().cloned().unwrap_or_default(),
            certificate_expires: match request.extensions().get::<Identity>() {
                Some(Identity::Certified(certificate)) => Some(certificate.expires),
                _ => None,
            },
        };
        if !caller.session.limits.pace.take(OPENING) {
            return Err(too_often());
        }
        let machine = caller.machine;
        let (outgoing, messages) = mpsc::channel(QUEUED);
        let services = self.services.clone();
        let incoming = request.into_inner();
        self.services.tasks.spawn(async move {
            if let Err(status) = converse(&services, caller, incoming, &outgoing).await {
                tracing::info!(%machine, code = ?status.code(), reason = status.message(), "ending a stream");
                let _ = timeout(SEND_TIMEOUT, outgoing.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::EnrolResponse>, Status> {
        let machine = machine(&request)?;
        if request.extensions().get::<Session>().is_some_and(|session| !session.limits.pace.take(RENEWAL)) {
            return Err(too_often());
        }
        let request = request.into_inner().certificate_request;
        let renewed = self.services.enroller.renew(machine, &request).await.map_err(|error| enrol_status(&error))?;
        Ok(Response::new(enrol_response(&self.services, &renewed)))
    }
}

/// Who opened a stream.
struct Peer {
    machine: MachineId,
    session: Session,
    /// When the certificate of its connection ends.
    certificate_expires: Option<Timestamp>,
}

fn too_often() -> Status {
    Status::resource_exhausted("this machine asks too often: try again in a few seconds")
}

async fn send(outgoing: &Outgoing, message: to_agent::Message) -> Result<(), Status> {
    match timeout(SEND_TIMEOUT, outgoing.send(Ok(message.into()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the machine hung up")),
        Err(_) => Err(Status::deadline_exceeded("the machine reads nothing")),
    }
}

/// Checks the first message.
async fn hello(incoming: &mut Streaming<wire::FromAgent>) -> Result<wire::Hello, Status> {
    let first = timeout(HELLO_TIMEOUT, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the first message did not come"))??;
    let Some(wire::FromAgent { message: Some(from_agent::Message::Hello(hello)) }) = first else {
        return Err(Status::invalid_argument("the first message must be Hello"));
    };
    check_peer_protocol(hello.protocol).map_err(|error| Status::failed_precondition(error.to_string()))?;
    let short = |text: &str| text.len() <= 255 && !text.chars().any(char::is_control);
    if !is_hostname(&hello.hostname) || !short(&hello.agent_version) || !short(&hello.engine_build) {
        return Err(Status::invalid_argument("a name in Hello is too long or has control characters"));
    }
    Ok(hello)
}

/// The whole of one stream. An error is what the machine is told at its end.
async fn converse(
    services: &Services,
    peer: Peer,
    mut incoming: Streaming<wire::FromAgent>,
    outgoing: &Outgoing,
) -> Result<(), Status> {
    let Peer { machine, session, certificate_expires } = peer;
    let hello = hello(&mut incoming).await?;
    let now = services.clock.now();
    let Ok(claim) = services.links.claim(machine, certificate_expires, now).await else {
        let detail = format!("a second machine that calls itself {} holds the same key", hello.hostname);
        let event = Event::new(services.clock.now(), Actor::Machine(machine), "identity.cloned", machine, detail);
        services.store.record(event).await.map_err(|error| store_status(&error))?;
        return Err(Status::already_exists(
            "another machine with this identity is connected: was this disk cloned? Empty this agent's state directory and enrol it anew",
        ));
    };
    if claim.took_over {
        let detail = "its earlier stream gave no answer";
        let event = Event::new(now, Actor::Machine(machine), "identity.handed_over", machine, detail);
        services.store.record(event).await.map_err(|error| store_status(&error))?;
    }
    // Read after the claim, so that no renewal falls in between: a later one tells the claim itself.
    let standing = services.store.standing(machine).await.map_err(|error| store_status(&error))?;
    if let Some(newest) = standing.and_then(|standing| standing.certificate_expires) {
        services.links.renewed(machine, newest);
    }
    let facts =
        HelloFacts { machine, hostname: hello.hostname.clone(), agent_version: hello.agent_version.clone(), at: now };
    services.store.note_hello(facts).await.map_err(|error| store_status(&error))?;
    tracing::info!(%machine, hostname = %hello.hostname, "a machine is online");
    let mut stream = Link {
        services,
        machine,
        outgoing,
        claim,
        sent: None,
        bench_sent: None,
        refused: false,
        challenges: Vec::new(),
    };
    let ended = stream.run(&hello, &mut incoming, &session).await;
    let why = match &ended {
        Ok(()) => "it hung up".to_owned(),
        Err(status) => status.message().chars().take(200).collect(),
    };
    let goodbye = services.store.note_goodbye(machine, services.clock.now(), why).await;
    tracing::info!(%machine, "a machine is offline");
    goodbye.map_err(|error| store_status(&error))?;
    ended
}

/// One stream that was let in.
struct Link<'a> {
    services: &'a Services,
    machine: MachineId,
    outgoing: &'a Outgoing,
    claim: Claim,
    /// The newest generation that the machine holds or was sent.
    sent: Option<u64>,
    /// The order of a benchmark that it was sent on this stream.
    bench_sent: Option<BenchOrderId>,
    /// Whether the machine could not take what it was sent, e.g. for a full disk: it is sent again at the next heartbeat.
    refused: bool,
    /// Challenges that wait for their answers: one for each stream that wants the identity at the moment.
    challenges: Vec<([u8; 32], oneshot::Sender<()>)>,
}

impl Link<'_> {
    fn now(&self) -> Timestamp {
        self.services.clock.now()
    }

    async fn run(
        &mut self,
        hello: &wire::Hello,
        incoming: &mut Streaming<wire::FromAgent>,
        session: &Session,
    ) -> Result<(), Status> {
        let heartbeat = self.services.facts.heartbeat;
        let welcome = wire::Welcome {
            protocol: PROTOCOL_VERSION,
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
            controller_time: self.now().unix_millis(),
            heartbeat_seconds: u32::try_from(heartbeat.as_secs()).unwrap_or(u32::MAX).max(1),
        };
        send(self.outgoing, to_agent::Message::Welcome(welcome)).await?;
        self.compare(hello.held_generation, &hello.held_digest).await?;
        self.send_bench().await?;
        let mut silent_at = Instant::now() + heartbeat * MISSED_HEARTBEATS;
        // A machine that says too much waits: what it sends ahead stays in its own buffers.
        let mut ready_at = Instant::now();
        loop {
            let expires_at = self.expires_at();
            let message = async {
                sleep_until(ready_at).await;
                incoming.message().await
            };
            // Every arm is cancel-safe: `message`, `recv` and `changed` lose nothing when dropped, the rest holds nothing.
            tokio::select! {
                message = message => {
                    let Some(message) = message? else { return Ok(()) };
                    silent_at = Instant::now() + heartbeat * MISSED_HEARTBEATS;
                    self.claim.seen(self.now());
                    let cost = message.message.as_ref().map_or(1.0, cost);
                    ready_at = Instant::now() + session.limits.pace.charge(cost);
                    if let Some(message) = message.message {
                        self.take(message).await?;
                    }
                }
                Some(order) = self.claim.challenges.recv() => {
                    let challenge = wire::Challenge { nonce: order.nonce.to_vec().into() };
                    // Those who asked longer ago than the timeout are not waiting any more.
                    self.challenges.retain(|(_, answered)| !answered.is_closed());
                    self.challenges.push((order.nonce, order.answered));
                    send(self.outgoing, to_agent::Message::Challenge(challenge)).await?;
                }
                changed = self.claim.wake.changed() => {
                    if changed.is_ok() {
                        self.send_desired().await?;
                        self.send_bench().await?;
                    }
                }
                // Only to compute the deadline anew.
                _ = self.claim.expires.changed() => {}
                () = sleep_until(silent_at) => {
                    return Err(Status::deadline_exceeded("no heartbeat came"));
                }
                () = sleep_until(expires_at) => {
                    if self.is_expired() {
                        return Err(Status::unauthenticated("the machine's certificate has expired"));
                    }
                }
                () = self.claim.replaced.cancelled() => {
                    return Err(Status::aborted("another stream of this machine took over"));
                }
                () = session.ended.cancelled() => {
                    return Err(Status::permission_denied("an operator revoked this machine"));
                }
                () = self.services.shutdown.cancelled() => {
                    return Err(Status::unavailable("the controller is shutting down"));
                }
            }
        }
    }

    fn is_expired(&self) -> bool {
        self.claim.expires.borrow().is_some_and(|expires| expires <= self.now())
    }

    /// When to look whether the newest certificate has ended: then, and each minute in case a clock was set.
    fn expires_at(&self) -> Instant {
        let minute = Duration::from_mins(1);
        let left = self.claim.expires.borrow().map_or(minute, |expires| expires.since(self.now()));
        Instant::now() + left.clamp(Duration::from_millis(50), minute)
    }

    /// Compares with what the machine holds, goes on after it where it is ahead, and sends what it lacks.
    async fn compare(&mut self, held: u64, held_digest: &[u8]) -> Result<(), Status> {
        let services = self.services;
        let desired = services.store.desired(self.machine).await.map_err(|error| store_status(&error))?;
        let own_digest = desired
            .state()
            .map(|state| digest(&SHA256, &wire::DesiredState::from(state).encode_to_vec()).as_ref().to_vec());
        let other_content = !held_digest.is_empty()
            && held == desired.generation
            && own_digest.as_deref().is_some_and(|own| own != held_digest);
        let held = Held { generation: held, other_content };
        let outcome = services.store.go_on(self.machine, held, self.now()).await;
        if let HeldOutcome::WentOn { from, to } = outcome.map_err(|error| store_status(&error))? {
            tracing::warn!(machine = %self.machine, from, to, held = held.generation, "the machine is ahead: going on after it");
            services.replan.request();
        }
        self.sent = Some(held.generation);
        self.send_desired().await
    }

    /// Sends the desired state if it is newer than what the machine has.
    async fn send_desired(&mut self) -> Result<(), Status> {
        let desired = self.services.store.desired(self.machine).await.map_err(|error| store_status(&error))?;
        let Some(state) = desired.state() else { return Ok(()) };
        if self.sent.is_some_and(|sent| sent >= state.generation) {
            return Ok(());
        }
        self.sent = Some(state.generation);
        send(self.outgoing, to_agent::Message::DesiredState(state.into())).await
    }

    /// Sends the order of a benchmark that is open, once on this stream.
    async fn send_bench(&mut self) -> Result<(), Status> {
        let Some(order) = self.services.benches.due(self.machine).filter(|order| self.bench_sent != Some(order.id))
        else {
            return Ok(());
        };
        self.bench_sent = Some(order.id);
        let request = wire::BenchmarkRequest {
            quick: order.kind == BenchmarkKind::Quick,
            kind: order.kind.number(),
            order: order.id.as_bytes().to_vec().into(),
        };
        send(self.outgoing, to_agent::Message::BenchmarkRequest(request)).await
    }

    async fn take(&mut self, message: from_agent::Message) -> Result<(), Status> {
        let services = self.services;
        let (machine, now) = (self.machine, self.now());
        let kept = match message {
            from_agent::Message::Heartbeat(wire::Heartbeat {}) => {
                if std::mem::take(&mut self.refused) {
                    self.send_desired().await?;
                }
                return send(self.outgoing, to_agent::Message::HeartbeatAck(wire::HeartbeatAck {})).await;
            }
            from_agent::Message::Inventory(inventory) => match Inventory::try_from(inventory) {
                Ok(inventory) => {
                    let kept = services.store.put_inventory(machine, &inventory).await;
                    services.replan.request();
                    kept
                }
                Err(error) => return Err(refused("inventory", &error)),
            },
            from_agent::Message::Benchmark(benchmark) => match Benchmark::try_from(benchmark) {
                Ok(benchmark) => {
                    let kept = services.store.put_benchmark(machine, &benchmark, now).await;
                    services.replan.request();
                    kept
                }
                Err(error) => return Err(refused("benchmark", &error)),
            },
            from_agent::Message::Observed(observed) => match Observed::try_from(observed) {
                Ok(observed) => services.store.put_observed(machine, observed, now).await,
                Err(error) => return Err(refused("observed state", &error)),
            },
            from_agent::Message::ChallengeAnswer(wire::ChallengeAnswer { nonce }) => {
                if let Some(position) = self.challenges.iter().position(|(asked, _)| asked[..] == nonce[..]) {
                    let (_, answered) = self.challenges.swap_remove(position);
                    // Nobody waits any more if it came too late.
                    let _ = answered.send(());
                }
                Ok(())
            }
            from_agent::Message::DesiredStateRefused(refusal) => {
                let wire::DesiredStateRefused { offered_generation, held_generation, reason } = refusal;
                tracing::warn!(%machine, offered_generation, held_generation, reason, "a desired state was refused");
                let other_content = offered_generation == held_generation;
                let held = Held { generation: held_generation, other_content };
                let outcome = services.store.go_on(machine, held, now).await.map_err(|error| store_status(&error))?;
                self.sent = Some(held_generation);
                if matches!(outcome, HeldOutcome::WentOn { .. }) {
                    return self.send_desired().await;
                }
                self.refused = true;
                return Ok(());
            }
            from_agent::Message::BenchmarkProgress(progress) => match progress_of(progress) {
                Some(progress) => services.benches.note(machine, progress).await,
                None => return Err(Status::invalid_argument("the progress of a benchmark cannot be read")),
            },
            // One Hello is enough; a second one changes nothing.
            from_agent::Message::Hello(_) => Ok(()),
        };
        kept.map_err(|error| store_status(&error))
    }
}

fn refused(what: &str, error: &wire::ConversionError) -> Status {
    Status::invalid_argument(format!("the {what} cannot be read: {error}"))
}

/// What a machine says of an ordered benchmark; `None` if it cannot be meant.
fn progress_of(message: wire::BenchmarkProgress) -> Option<Progress> {
    let wire::BenchmarkProgress { order, state, step, fraction, reason } = message;
    let short = |text: String| text.chars().filter(|c| !c.is_control()).take(PROGRESS_TEXT).collect();
    Some(Progress {
        id: BenchOrderId::try_from(order.as_ref()).ok()?,
        state: BenchOrderState::from_number(state),
        step: short(step),
        fraction: Some(fraction).filter(|fraction| fraction.is_finite())?,
        reason: reason.map(short),
    })
}
