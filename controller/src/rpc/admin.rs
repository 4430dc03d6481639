//! `Admin`: for operators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes as RawBytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use muster_engine::readiness::{self, Change};
use muster_proto::wire::admin_server::Admin;
use muster_proto::wire::{self, import_model_progress, import_model_request, quantize_model_request};
use muster_proto::{
    AdminName, AdminRecord, BenchOrder, BenchmarkKind, Bytes, ControllerStatus, DeploymentState, EnrolmentState,
    IdError, Machine, MachineId, Model, PROTOCOL_VERSION, Policy, TokenId, WhatIf,
};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Services, groups, import_status, internal, operator, store_status};
use crate::benches::{Benches, machines_of_group};
use crate::blobs::Staged;
use crate::ca::CertificateRequest;
use crate::catalog::{ImportError, ImportProgress, ImportRequest, Progress};
use crate::enrol::TokenRequest;
use crate::identity::Subject;
use crate::store::{Event, Found, GROUPS_MAX};

/// Most quantizations in one import.
const QUANTIZE_MAX: usize = 64;

/// How often a reader hears of ordered benchmarks at most.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// How something long of the catalog goes.
type ImportStream = ReceiverStream<Result<wire::ImportModelProgress, Status>>;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct AdminService {
    services: Services,
}

impl AdminService {
    pub const fn new(services: Services) -> Self {
        Self { services }
    }

    /// Every machine, with whether it is online.
    async fn machines(&self) -> Result<Vec<Machine>, Status> {
        let mut machines = self.services.store.machines().await.map_err(|error| store_status(&error))?;
        let online = self.services.links.online();
        for machine in &mut machines {
            if let Some(seen) = online.get(&machine.id) {
                machine.online = true;
                machine.last_seen = machine.last_seen.max(Some(*seen));
            }
        }
        Ok(machines)
    }

    /// The importance matrix of so many bytes that the next messages carry; `part` is what one of them has of it.
    async fn imatrix<M: Send>(
        &self,
        size: u64,
        incoming: &mut Streaming<M>,
        part: impl Fn(M) -> Option<RawBytes> + Send + Sync,
    ) -> Result<Option<Staged>, Status> {
        if size == 0 {
            return Ok(None);
        }
        let failure = |error| import_status(&ImportError::Imatrix(error));
        let mut file = self.services.catalog.imatrix_file().await.map_err(|error| import_status(&error))?;
        let mut missing = size;
        while missing > 0 {
            let Some(part) = incoming.message().await?.and_then(&part) else {
                return Err(Status::invalid_argument(format!("{missing} bytes of the importance matrix did not come")));
            };
            missing = missing.saturating_sub(part.len() as u64);
            file.push(part).await.map_err(failure)?;
        }
        file.finish().await.map(Some).map_err(failure)
    }

    /// Runs something long of the catalog and tells how it goes, until it is done or nobody listens any more.
    fn follow<F>(&self, work: impl FnOnce(Progress) -> F + Send + 'static) -> Response<ImportStream>
    where
        F: Future<Output = Result<Model, ImportError>> + Send,
    {
        let (outgoing, messages) = mpsc::channel(16);
        let shutdown = self.services.shutdown.clone();
        self.services.tasks.spawn(async move {
            let (progress, mut steps) = mpsc::channel(16);
            let relay = async {
                while let Some(step) = steps.recv().await {
                    let _ = outgoing.send(Ok(progress_message(step))).await;
                }
            };
            // Dropping the work stops its worker and removes what is unfinished.
            let done = tokio::select! {
                (done, ()) = async { tokio::join!(work(progress), relay) } => done.map_err(|error| import_status(&error)),
                () = shutdown.cancelled() => Err(Status::unavailable("the controller is shutting down")),
                () = outgoing.closed() => return,
            };
            let message = done.map(|model| wire::ImportModelProgress {
                message: Some(import_model_progress::Message::Done(model.into())),
            });
            let _ = outgoing.send(message).await;
        });
        Response::new(ReceiverStream::new(messages))
    }

    async fn find(&self, word: String) -> Result<MachineId, Status> {
        match self.services.store.find_machine(word.clone()).await.map_err(|error| store_status(&error))? {
            Found::One(machine) => Ok(machine),
            Found::None => Err(Status::not_found(format!("no machine {word:?}: see muster machines list"))),
            Found::Many(machines) => {
                let ids: Vec<_> = machines.iter().map(ToString::to_string).collect();
                Err(Status::failed_precondition(format!("{word:?} may mean {}: write more of the id", ids.join(", "))))
            }
        }
    }

    /// The accepted machines that an order is for, with their names.
    async fn bench_targets(&self, request: &wire::BenchMachinesRequest) -> Result<Vec<(MachineId, String)>, Status> {
        let wire::BenchMachinesRequest { machines: words, group, all, .. } = request;
        if words.len() > wire::LIST_MAX {
            return Err(Status::invalid_argument(format!("at most {} machines by name", wire::LIST_MAX)));
        }
        let store = &self.services.store;
        let known = store.machines().await.map_err(|error| store_status(&error))?;
        let known: BTreeMap<MachineId, (String, EnrolmentState)> =
            known.into_iter().map(|machine| (machine.id, (machine.hostname, machine.enrolment))).collect();
        let mut wanted = BTreeSet::new();
        for word in words {
            let machine = self.find(word.clone()).await?;
            let state = known.get(&machine).map(|(_, state)| *state);
            if state != Some(EnrolmentState::Accepted) {
                let state = state.map_or_else(|| "gone".to_owned(), |state| state.to_string());
                return Err(Status::failed_precondition(format!(
                    "machine {word:?} is {state}: only accepted machines are measured"
                )));
            }
            wanted.insert(machine);
        }
        if !group.is_empty() {
            let members = machines_of_group(store, group).await.map_err(|error| store_status(&error))?;
            if members.is_empty() {
                return Err(Status::not_found(format!("no machine is in group {group:?}")));
            }
            wanted.extend(members);
        }
        if *all {
            wanted.extend(known.keys());
        } else if wanted.is_empty() {
            return Err(Status::invalid_argument("say which machines to measure"));
        }
        let accepted =
            known.into_iter().filter(|(id, (_, state))| wanted.contains(id) && *state == EnrolmentState::Accepted);
        Ok(accepted.map(|(id, (hostname, _))| (id, hostname)).collect())
    }

    async fn machine(&self, machine: MachineId) -> Result<Response<wire::Machine>, Status> {
        let found = self.services.store.machine(machine).await.map_err(|error| store_status(&error))?;
        let mut found = found.ok_or_else(|| Status::not_found(format!("no machine {machine}")))?;
        if let Some(seen) = self.services.links.online().get(&machine) {
            found.online = true;
            found.last_seen = found.last_seen.max(Some(*seen));
        }
        found.bench_order = self.services.benches.of(machine);
        Ok(Response::new(found.into()))
    }
}

fn check_count(quantize: &[String]) -> Result<(), Status> {
    if quantize.len() > QUANTIZE_MAX {
        return Err(Status::invalid_argument(format!("at most {QUANTIZE_MAX} quantizations at once")));
    }
    Ok(())
}

fn id_status(error: &IdError) -> Status {
    Status::invalid_argument(error.to_string())
}

#[async_trait]
impl Admin for AdminService {
    type ImportModelStream = ImportStream;
    type QuantizeModelStream = ImportStream;
    type BenchMachinesStream = ReceiverStream<Result<wire::BenchOrder, Status>>;

    async fn bench_machines(
        &self,
        request: Request<wire::BenchMachinesRequest>,
    ) -> Result<Response<Self::BenchMachinesStream>, Status> {
        let actor = operator(&request)?;
        let request = request.into_inner();
        let kind = match request.kind {
            0 => BenchmarkKind::Standard,
            kind => BenchmarkKind::from_number(kind),
        };
        if matches!(kind, BenchmarkKind::Unrecognized(_)) {
            return Err(Status::invalid_argument("this controller does not know that kind of benchmark"));
        }
        let targets = self.bench_targets(&request).await?;
        let benches = self.services.benches.clone();
        let orders = benches.order(targets, kind, &actor).await.map_err(|error| store_status(&error))?;
        let (outgoing, messages) = mpsc::channel(16);
        let shutdown = self.services.shutdown.clone();
        self.services.tasks.spawn(async move {
            let follow = async {
                for order in &orders {
                    if outgoing.send(Ok(order.into())).await.is_err() {
                        return;
                    }
                }
                if request.wait {
                    let told = orders.into_iter().map(|order| (order.machine, order)).collect();
                    follow_orders(benches, told, outgoing.clone()).await;
                }
            };
            tokio::select! {
                () = follow => {}
                () = shutdown.cancelled() => {
                    let _ = outgoing.send(Err(Status::unavailable("the controller is shutting down"))).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn get_status(&self, request: Request<wire::GetStatusRequest>) -> Result<Response<wire::Status>, Status> {
        operator(&request)?;
        let machines = self.machines().await?;
        let models = self.services.store.models().await.map_err(|error| store_status(&error))?;
        let blobs = self.services.blobs.clone();
        let used = spawn_blocking(move || blobs.used()).await.map_err(|error| internal(&error))?;
        let deployments = || {
            let accepted = machines.iter().filter(|machine| machine.enrolment == EnrolmentState::Accepted);
            accepted.filter_map(|machine| machine.observed.as_ref()).flat_map(|observed| &observed.deployments)
        };
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let facts = &self.services.facts;
        let status = ControllerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION,
            started_at: facts.started_at,
            data_dir: facts.data_dir.clone(),
            listen: facts.listen.clone(),
            ca_fingerprint: facts.ca_fingerprint,
            machines: count(machines.len()),
            machines_online: count(machines.iter().filter(|machine| machine.online).count()),
            machines_pending: count(machines.iter().filter(|m| m.enrolment == EnrolmentState::Pending).count()),
            models: count(models.len()),
            blob_bytes: used.map_err(|error| internal(&error))?,
            deployments_success: count(deployments().filter(|d| d.state == DeploymentState::Success).count()),
            deployments: count(deployments().count()),
        };
        Ok(Response::new(status.into()))
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenResponse>, Status> {
        let actor = operator(&request)?;
        let wire::CreateTokenRequest { uses, lifetime_seconds, needs_acceptance, groups } = request.into_inner();
        let groups = groups::read(groups)?;
        let wanted = TokenRequest { uses, lifetime: Duration::from_secs(lifetime_seconds), needs_acceptance, groups };
        let made = self.services.enroller.create_token(wanted, actor).await.map_err(|error| store_status(&error))?;
        let (token, record) = made.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(wire::CreateTokenResponse { token: token.to_string(), record: Some(record.into()) }))
    }

    async fn list_tokens(
        &self,
        request: Request<wire::ListTokensRequest>,
    ) -> Result<Response<wire::ListTokensResponse>, Status> {
        operator(&request)?;
        let tokens = self.services.store.tokens().await.map_err(|error| store_status(&error))?;
        Ok(Response::new(tokens.into()))
    }

    async fn revoke_token(
        &self,
        request: Request<wire::RevokeTokenRequest>,
    ) -> Result<Response<wire::TokenRecord>, Status> {
        let actor = operator(&request)?;
        let id = TokenId::try_from(request.into_inner().id.as_ref()).map_err(|error| id_status(&error))?;
        let now = self.services.clock.now();
        let revoked = self.services.store.revoke_token(id, now, actor).await.map_err(|error| store_status(&error))?;
        let revoked = revoked.ok_or_else(|| Status::not_found(format!("no token {id}: see muster token list")))?;
        Ok(Response::new(revoked.into()))
    }

    async fn list_machines(
        &self,
        request: Request<wire::ListMachinesRequest>,
    ) -> Result<Response<wire::ListMachinesResponse>, Status> {
        operator(&request)?;
        Ok(Response::new(self.machines().await?.into()))
    }

    async fn get_machine(&self, request: Request<wire::GetMachineRequest>) -> Result<Response<wire::Machine>, Status> {
        operator(&request)?;
        let machine = self.find(request.into_inner().machine).await?;
        self.machine(machine).await
    }

    async fn accept_machine(
        &self,
        request: Request<wire::AcceptMachineRequest>,
    ) -> Result<Response<wire::Machine>, Status> {
        let actor = operator(&request)?;
        let wire::AcceptMachineRequest { machine, accept } = request.into_inner();
        let machine = self.find(machine).await?;
        let (to, action): (_, &'static str) = if accept {
            (EnrolmentState::Accepted, "machine.accepted")
        } else {
            (EnrolmentState::Rejected, "machine.rejected")
        };
        // An operator may think again about a machine that was never let in.
        let from: &'static [EnrolmentState] =
            if accept { &[EnrolmentState::Pending, EnrolmentState::Rejected] } else { &[EnrolmentState::Pending] };
        let event = Event::new(self.services.clock.now(), actor, action, machine, "");
        let store = &self.services.store;
        let changed = store.set_enrolment(machine, from, to, event).await.map_err(|error| store_status(&error))?;
        if !changed {
            let standing = store.standing(machine).await.map_err(|error| store_status(&error))?;
            let state = standing.map_or(EnrolmentState::Unrecognized(0), |standing| standing.state);
            if state != to {
                let advice = match state {
                    EnrolmentState::Revoked => "empty its state directory and enrol it anew",
                    _ => "use muster machines revoke",
                };
                return Err(Status::failed_precondition(format!("machine {machine} is {state}: {advice}")));
            }
        }
        self.services.replan.request();
        self.machine(machine).await
    }

    async fn revoke_machine(
        &self,
        request: Request<wire::RevokeMachineRequest>,
    ) -> Result<Response<wire::Machine>, Status> {
        let actor = operator(&request)?;
        let machine = self.find(request.into_inner().machine).await?;
        let event = Event::new(self.services.clock.now(), actor, "machine.revoked", machine, "");
        let from = &[EnrolmentState::Accepted, EnrolmentState::Pending, EnrolmentState::Rejected];
        let store = &self.services.store;
        store
            .set_enrolment(machine, from, EnrolmentState::Revoked, event)
            .await
            .map_err(|error| store_status(&error))?;
        // After the store knows it, so that whoever comes back is refused.
        self.services.links.cut_off(&Subject::Machine(machine));
        self.services.replan.request();
        self.machine(machine).await
    }

    async fn set_machine_groups(
        &self,
        request: Request<wire::SetMachineGroupsRequest>,
    ) -> Result<Response<wire::Machine>, Status> {
        let actor = operator(&request)?;
        let wire::SetMachineGroupsRequest { machine, add, remove } = request.into_inner();
        let (add, remove) = (groups::read(add)?, groups::read(remove)?);
        let machine = self.find(machine).await?;
        let now = self.services.clock.now();
        let set = self.services.store.set_groups(machine, add, remove, now, actor).await;
        if set.map_err(|error| store_status(&error))? == Some(false) {
            return Err(Status::failed_precondition(format!("a machine is in at most {GROUPS_MAX} groups")));
        }
        self.machine(machine).await
    }

    async fn get_readiness(
        &self,
        request: Request<wire::GetReadinessRequest>,
    ) -> Result<Response<wire::ReadinessReport>, Status> {
        operator(&request)?;
        let wire::GetReadinessRequest { role, group, what_if } = request.into_inner();
        let what_if =
            what_if.map(WhatIf::try_from).transpose().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let change =
            what_if.map(Change::of).transpose().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let role = readiness::role(&role).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let group = Some(group).filter(|group| !group.is_empty());
        let machines = self.machines().await?;
        if let Some(group) = &group
            && !machines.iter().any(|machine| machine.groups.contains(group))
        {
            return Err(Status::not_found(format!("no machine is in the group {group:?}: see muster machines group")));
        }
        let (judge, now) = (Arc::clone(&self.services.judge), self.services.clock.now());
        let report =
            spawn_blocking(move || judge.report(&machines, &role, group.as_deref(), change.as_ref(), now)).await;
        Ok(Response::new(report.map_err(|error| internal(&error))?.into()))
    }

    async fn import_model(
        &self,
        request: Request<Streaming<wire::ImportModelRequest>>,
    ) -> Result<Response<Self::ImportModelStream>, Status> {
        let actor = operator(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?;
        let Some(wire::ImportModelRequest { message: Some(import_model_request::Message::Start(start)) }) = first
        else {
            return Err(Status::invalid_argument("the first message must say what comes"));
        };
        let wire::ImportModelStart { size, name, quantize, bundled, no_quality, imatrix_size } = start;
        check_count(&quantize)?;
        let name = Some(name).filter(|name| !name.is_empty());
        let size = Bytes::new(size);
        let wanted = ImportRequest { size, name, quantize, bundled, no_quality, requantize: false };
        let part = |message: wire::ImportModelRequest| match message.message {
            Some(import_model_request::Message::Imatrix(part)) => Some(part),
            _ => None,
        };
        let imatrix = self.imatrix(imatrix_size, &mut incoming, part).await?;
        let chunks = incoming.map_err(|status| status.message().to_owned()).filter_map(|message| async {
            match message {
                Ok(wire::ImportModelRequest { message: Some(import_model_request::Message::Chunk(chunk)) }) => {
                    Some(Ok(chunk))
                }
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            }
        });
        let catalog = self.services.catalog.clone();
        Ok(self.follow(move |progress| async move { catalog.import(wanted, imatrix, chunks, &progress, actor).await }))
    }

    async fn quantize_model(
        &self,
        request: Request<Streaming<wire::QuantizeModelRequest>>,
    ) -> Result<Response<Self::QuantizeModelStream>, Status> {
        let actor = operator(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?;
        let Some(wire::QuantizeModelRequest { message: Some(quantize_model_request::Message::Start(start)) }) = first
        else {
            return Err(Status::invalid_argument("the first message must say what is wanted"));
        };
        let wire::QuantizeModelStart { name, quantize, no_quality, requantize, imatrix_size } = start;
        check_count(&quantize)?;
        let wanted = ImportRequest { name: Some(name), quantize, no_quality, requantize, ..ImportRequest::default() };
        let part = |message: wire::QuantizeModelRequest| match message.message {
            Some(quantize_model_request::Message::Imatrix(part)) => Some(part),
            _ => None,
        };
        let imatrix = self.imatrix(imatrix_size, &mut incoming, part).await?;
        let catalog = self.services.catalog.clone();
        Ok(self.follow(move |progress| async move { catalog.quantize_model(wanted, imatrix, &progress, actor).await }))
    }

    async fn list_models(
        &self,
        request: Request<wire::ListModelsRequest>,
    ) -> Result<Response<wire::ListModelsResponse>, Status> {
        operator(&request)?;
        let models = self.services.store.models().await.map_err(|error| store_status(&error))?;
        Ok(Response::new(models.into()))
    }

    async fn get_model(&self, request: Request<wire::GetModelRequest>) -> Result<Response<wire::Model>, Status> {
        operator(&request)?;
        let name = request.into_inner().name;
        let model = self.services.store.model(&name).await.map_err(|error| store_status(&error))?;
        let model = model.ok_or_else(|| Status::not_found(format!("no model {name:?}: see muster models list")))?;
        Ok(Response::new(model.into()))
    }

    async fn apply_policy(
        &self,
        request: Request<wire::ApplyPolicyRequest>,
    ) -> Result<Response<wire::PolicyRecord>, Status> {
        let actor = operator(&request)?;
        let toml = request.into_inner().toml;
        if toml.len() > wire::POLICY_MAX {
            return Err(Status::invalid_argument(format!("a policy has at most {} bytes", wire::POLICY_MAX)));
        }
        let policy: Policy =
            toml::from_str(&toml).map_err(|error| Status::invalid_argument(format!("not a policy: {error}")))?;
        policy.check().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let now = self.services.clock.now();
        let applied = self.services.store.apply_policy(toml, now, actor).await.map_err(|error| store_status(&error))?;
        self.services.replan.request();
        Ok(Response::new(applied.into()))
    }

    async fn get_policy(
        &self,
        request: Request<wire::GetPolicyRequest>,
    ) -> Result<Response<wire::PolicyRecord>, Status> {
        operator(&request)?;
        let policy = self.services.store.policy().await.map_err(|error| store_status(&error))?;
        Ok(Response::new(policy.into()))
    }

    async fn get_plan(&self, request: Request<wire::GetPlanRequest>) -> Result<Response<wire::Plan>, Status> {
        operator(&request)?;
        let plan = self.services.replan.settled().await;
        let machines = self.services.store.machines().await.map_err(|error| store_status(&error))?;
        let names: BTreeMap<MachineId, String> =
            machines.into_iter().map(|machine| (machine.id, machine.hostname)).collect();
        Ok(Response::new(wire::Plan::with_names(plan.as_ref().clone(), &names)))
    }

    async fn add_admin(
        &self,
        request: Request<wire::AddAdminRequest>,
    ) -> Result<Response<wire::AddAdminResponse>, Status> {
        let actor = operator(&request)?;
        let wire::AddAdminRequest { name, certificate_request } = request.into_inner();
        let name: AdminName = name.parse().map_err(|error: IdError| id_status(&error))?;
        let request = CertificateRequest::parse(&certificate_request)
            .map_err(|error| Status::invalid_argument(crate::error_chain(&error)))?;
        let now = self.services.clock.now();
        let ca = self.services.enroller.ca();
        let issued = ca.issue_admin(&request, &name, now).map_err(|error| internal(&error))?;
        let record = AdminRecord { name, created_at: now, expires_at: issued.expires, revoked: false };
        let put = self.services.store.put_admin(record.clone(), issued.serial, actor).await;
        if !put.map_err(|error| store_status(&error))? {
            return Err(Status::already_exists(format!(
                "admin {} has a certificate: revoke it first (muster admin revoke {})",
                record.name, record.name
            )));
        }
        Ok(Response::new(wire::AddAdminResponse {
            certificate: issued.der.to_vec().into(),
            ca_certificate: ca.certificate().to_vec().into(),
            record: Some(record.into()),
        }))
    }

    async fn list_admins(
        &self,
        request: Request<wire::ListAdminsRequest>,
    ) -> Result<Response<wire::ListAdminsResponse>, Status> {
        operator(&request)?;
        let admins = self.services.store.admins().await.map_err(|error| store_status(&error))?;
        Ok(Response::new(admins.into()))
    }

    async fn revoke_admin(
        &self,
        request: Request<wire::RevokeAdminRequest>,
    ) -> Result<Response<wire::AdminRecord>, Status> {
        let actor = operator(&request)?;
        let name: AdminName = request.into_inner().name.parse().map_err(|error: IdError| id_status(&error))?;
        let now = self.services.clock.now();
        let revoked = self.services.store.revoke_admin(name.clone(), now, actor).await;
        let revoked = revoked.map_err(|error| store_status(&error))?;
        let revoked = revoked.ok_or_else(|| Status::not_found(format!("no admin {name}: see muster admin list")))?;
        // What the admin has open ends too, e.g. an import.
        self.services.links.cut_off(&Subject::Admin(name));
        Ok(Response::new(revoked.into()))
    }

    async fn list_audit_events(
        &self,
        request: Request<wire::ListAuditEventsRequest>,
    ) -> Result<Response<wire::ListAuditEventsResponse>, Status> {
        operator(&request)?;
        let wire::ListAuditEventsRequest { after, limit } = request.into_inner();
        let events = self.services.store.events(after, limit).await.map_err(|error| store_status(&error))?;
        Ok(Response::new(events.into()))
    }
}

/// Tells each change of these orders until all have ended or nobody listens.
async fn follow_orders(
    benches: Benches,
    mut told: BTreeMap<MachineId, BenchOrder>,
    outgoing: mpsc::Sender<Result<wire::BenchOrder, Status>>,
) {
    let mut watched = benches.watch();
    loop {
        let changed: Vec<BenchOrder> = {
            let orders = watched.borrow_and_update();
            let news = |told: &BenchOrder| {
                let now = orders.get(&told.machine).filter(|now| *now != told)?;
                // One that was replaced by another, which wants more, ends with that.
                Some(now.clone())
            };
            told.values().filter_map(news).collect()
        };
        for order in changed {
            told.insert(order.machine, order.clone());
            if outgoing.send(Ok(order.into())).await.is_err() {
                return;
            }
        }
        if told.values().all(|order| order.state.has_ended()) {
            return;
        }
        // Cancel-safe: `changed` loses no change, and the rest holds nothing.
        tokio::select! {
            changed = watched.changed() => if changed.is_err() { return },
            () = outgoing.closed() => return,
        }
        // A fleet changes all the time; a reader needs no more than this.
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

fn progress_message(progress: ImportProgress) -> wire::ImportModelProgress {
    let message = match progress {
        ImportProgress::Received(bytes) => import_model_progress::Message::Received(bytes.get()),
        ImportProgress::Step { what, subject, fraction } => {
            import_model_progress::Message::Step(wire::ImportStep { what: what.to_owned(), subject, fraction })
        }
    };
    wire::ImportModelProgress { message: Some(message) }
}
