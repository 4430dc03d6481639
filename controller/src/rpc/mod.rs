//! The gRPC services: handlers that unwrap, convert, call, convert and answer.
//!
//! Owns: the router of everything that is served, and which error is which status. Who may call what is decided before, by
//! [`identity`](crate::identity).

mod admin;
mod enrolment;
mod link;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use muster_proto::wire::admin_server::AdminServer;
use muster_proto::wire::agent_link_server::AgentLinkServer;
use muster_proto::wire::enrolment_server::EnrolmentServer;
use muster_proto::{CaFingerprint, MachineId, Timestamp};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::service::Routes;
use tonic::{Code, Request, Status};

use crate::benches::Benches;
use crate::blobs::{self, BlobError, BlobRoute, Blobs};
use crate::catalog::{Catalog, ImportError};
use crate::clock::Clock;
use crate::enrol::{EnrolError, Enroller};
use crate::identity::{Caller, Gate, authorize};
use crate::links::Links;
use crate::metrics::{self, Metrics};
use crate::replan::ReplanHandle;
use crate::store::{Actor, Store, StoreError};

/// Longest message of somebody without an identity.
const ENROLMENT_MESSAGE_MAX: usize = 64 * 1024;
/// Longest message of a machine: an inventory of the largest workstation has some 20 KB.
const LINK_MESSAGE_MAX: usize = 1024 * 1024;
/// Longest message of an operator: a chunk of a file, or a policy.
const ADMIN_MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// In a status' metadata: the model file is bad, which the command line tells by its exit code.
pub const BAD_MODEL_METADATA: &str = "muster-bad-model";

/// What all services share; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub store: Store,
    pub blobs: Blobs,
    pub links: Links,
    pub clock: Clock,
    pub enroller: Enroller,
    pub catalog: Catalog,
    pub replan: ReplanHandle,
    pub benches: Benches,
    pub metrics: Arc<Metrics>,
    pub facts: Arc<ControllerFacts>,
    /// What runs for longer than its request.
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

/// What does not change while the controller runs.
#[derive(Clone, Debug)]
pub(crate) struct ControllerFacts {
    pub started_at: Timestamp,
    pub data_dir: String,
    pub listen: String,
    pub ca_fingerprint: CaFingerprint,
    /// How often agents are asked to say that they live.
    pub heartbeat: std::time::Duration,
}

impl Services {
    /// Everything that is served, behind the gate.
    pub fn router(&self) -> Router {
        let enrolment = EnrolmentServer::new(enrolment::EnrolmentService::new(self.clone()))
            .max_decoding_message_size(ENROLMENT_MESSAGE_MAX);
        let link =
            AgentLinkServer::new(link::LinkService::new(self.clone())).max_decoding_message_size(LINK_MESSAGE_MAX);
        let admin =
            AdminServer::new(admin::AdminService::new(self.clone())).max_decoding_message_size(ADMIN_MESSAGE_MAX);
        let grpc = Routes::new(enrolment).add_service(link).add_service(admin).into_axum_router();
        let files = BlobRoute { blobs: self.blobs.clone(), store: self.store.clone() };
        let gate = Gate { store: self.store.clone(), clock: self.clock.clone() };
        let route = format!("{}{{hex}}", blobs::ROUTE_PREFIX);
        grpc.merge(Router::new().route(&route, get(blobs::serve)).with_state(files))
            .layer(from_fn_with_state(gate, authorize))
            .layer(from_fn_with_state(Arc::clone(&self.metrics), metrics::count))
    }
}

/// The machine that calls; the gate let nobody else through.
fn machine<T>(request: &Request<T>) -> Result<MachineId, Status> {
    match request.extensions().get() {
        Some(Caller::Machine(machine)) => Ok(*machine),
        _ => Err(Status::permission_denied("this is for enrolled machines only")),
    }
}

/// The operator who calls; the gate let nobody else through.
fn operator<T>(request: &Request<T>) -> Result<Actor, Status> {
    match request.extensions().get() {
        Some(Caller::Operator(actor)) => Ok(actor.clone()),
        _ => Err(Status::permission_denied("this is for operators only")),
    }
}

/// A failure of this host: logged here, once, and told to operators and machines.
fn internal<E: std::error::Error>(error: &E) -> Status {
    let error = crate::error_chain(error);
    tracing::error!(%error, "a request failed");
    Status::internal(error)
}

fn store_status(error: &StoreError) -> Status {
    internal(error)
}

/// The same, for those without an identity: what went wrong inside is none of their business.
fn concealed(status: Status) -> Status {
    if status.code() == Code::Internal {
        return Status::internal("the controller failed: its log says why");
    }
    status
}

fn enrol_status(error: &EnrolError) -> Status {
    let code = match error {
        EnrolError::TooMany => Code::ResourceExhausted,
        EnrolError::Protocol(_) | EnrolError::Pending => Code::FailedPrecondition,
        EnrolError::Request(_) | EnrolError::Hostname => Code::InvalidArgument,
        EnrolError::UnknownToken
        | EnrolError::Expired { .. }
        | EnrolError::UsedUp
        | EnrolError::GoneTooLong
        | EnrolError::ForeignCertificate
        | EnrolError::Nonce
        | EnrolError::Signature
        | EnrolError::UnknownMachine => Code::Unauthenticated,
        EnrolError::TokenRevoked | EnrolError::MachineRefused { .. } | EnrolError::OtherKey => Code::PermissionDenied,
        EnrolError::Ca(error) => return internal(error),
        EnrolError::Store(error) => return internal(error),
    };
    Status::new(code, crate::error_chain(error))
}

fn import_status(error: &ImportError) -> Status {
    let code = match error {
        ImportError::Name(_)
        | ImportError::Nameless
        | ImportError::Quantization(_)
        | ImportError::NeedsImatrix(_)
        | ImportError::Imatrix(_) => Code::InvalidArgument,
        ImportError::NoModel(_) => Code::NotFound,
        ImportError::BadModel(_) => {
            let mut status = Status::invalid_argument(crate::error_chain(error));
            status.metadata_mut().insert(BAD_MODEL_METADATA, MetadataValue::from_static("1"));
            return status;
        }
        ImportError::Conflict { .. } | ImportError::OtherName { .. } => Code::AlreadyExists,
        ImportError::Quantize { .. } | ImportError::NoSource(_) => Code::FailedPrecondition,
        ImportError::Blob(BlobError::NoRoom { .. }) => Code::ResourceExhausted,
        ImportError::Blob(BlobError::TooLong { .. } | BlobError::TooShort { .. }) | ImportError::Transfer(_) => {
            Code::Aborted
        }
        ImportError::Worker(_) | ImportError::Blob(BlobError::Io { .. }) | ImportError::Store(_) => {
            return internal(error);
        }
    };
    Status::new(code, crate::error_chain(error))
}
