//! Who is at the other end of a connection, and what that lets them do. Denies by default.
//!
//! Owns: reading an identity from a certificate, and the one table of which routes are for whom. It does not know what
//! the routes do. Entry points: [`PeerCertificate::read`] at the handshake, [`authorize`] for each request.

use std::str::FromStr as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;
use muster_proto::{AdminName, EnrolmentState, MachineId, Timestamp};
use tonic::{Code, Status};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::Clock;
use crate::store::{Actor, Store};

/// The name in the server's certificate, whatever host a client dialled.
pub const SERVER_NAME: &str = "controller.muster";

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A machine.
    Machine(MachineId),
    /// An operator.
    Admin(AdminName),
}

/// What a client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it is for.
    pub subject: Subject,
    /// Its serial number.
    pub serial: Vec<u8>,
    /// The point of its key.
    pub public_key: Vec<u8>,
    /// When it ends.
    pub expires: Timestamp,
}

impl PeerCertificate {
    /// Reads a certificate that was verified before; `None` unless it names exactly one machine or admin.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let [GeneralName::URI(uri)] = names.value.general_names[..] else { return None };
        let subject = match uri.strip_prefix("muster://")?.split_once('/')? {
            ("machine", id) => Subject::Machine(MachineId::from_str(id).ok()?),
            ("admin", name) => Subject::Admin(AdminName::from_str(name).ok()?),
            _ => return None,
        };
        Some(Self {
            subject,
            serial: certificate.raw_serial().to_vec(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            expires: Timestamp::from_unix_millis(certificate.validity().not_after.timestamp().saturating_mul(1000)),
        })
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Somebody over TLS without a certificate.
    Unknown,
    /// The owner of the controller's socket.
    Local,
    /// Somebody with a certificate of this controller's CA.
    Certified(Arc<PeerCertificate>),
}

/// Who makes a request that was let through; handlers find it in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Anybody: only for what needs no identity.
    Anybody,
    /// An accepted machine.
    Machine(MachineId),
    /// An operator.
    Operator(Actor),
}

/// Whom a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever comes.
    Anybody,
    /// Accepted machines.
    Machines,
    /// The socket's owner and admins.
    Operators,
}

/// Every route by its prefix. What is not here is for nobody.
pub const AUDIENCES: &[(&str, Audience)] = &[
    ("/muster.v1.Enrolment/", Audience::Anybody),
    ("/muster.v1.AgentLink/", Audience::Machines),
    ("/muster.v1.Admin/", Audience::Operators),
    (crate::blobs::ROUTE_PREFIX, Audience::Machines),
];

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The gRPC code.
    pub code: Code,
    /// What the peer is told.
    pub message: &'static str,
}

impl Denial {
    const fn new(code: Code, message: &'static str) -> Self {
        Self { code, message }
    }

    fn response(self, path: &str) -> Response {
        if path.starts_with("/muster.") {
            return Status::new(self.code, self.message).into_http();
        }
        let status = match self.code {
            Code::Unimplemented => StatusCode::NOT_FOUND,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::FORBIDDEN,
        };
        let mut response = Response::new(Body::from(self.message));
        *response.status_mut() = status;
        response
    }
}

/// What the layer needs to decide.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Where standings are.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
}

impl Gate {
    /// Decides on one request.
    ///
    /// # Errors
    /// What the peer is told.
    pub async fn decide(&self, identity: &Identity, path: &str) -> Result<Caller, Denial> {
        let audience = AUDIENCES.iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, audience)| *audience);
        match (audience, identity) {
            (Some(Audience::Anybody), _) => Ok(Caller::Anybody),
            (_, Identity::Unknown) => {
                Err(Denial::new(Code::Unauthenticated, "a client certificate of this controller is needed"))
            }
            (None, _) => Err(Denial::new(Code::Unimplemented, "there is nothing here")),
            (Some(Audience::Operators), Identity::Local) => Ok(Caller::Operator(Actor::Local)),
            (Some(Audience::Machines), Identity::Local) => {
                Err(Denial::new(Code::PermissionDenied, "this is for enrolled machines only"))
            }
            (Some(audience), Identity::Certified(certificate)) => match (&certificate.subject, audience) {
                (Subject::Machine(machine), Audience::Machines) => self.machine(*machine, certificate.expires).await,
                (Subject::Admin(name), Audience::Operators) => self.admin(name, &certificate.serial).await,
                (_, Audience::Machines) => {
                    Err(Denial::new(Code::PermissionDenied, "this is for enrolled machines only"))
                }
                _ => Err(Denial::new(Code::PermissionDenied, "this is for operators only")),
            },
        }
    }

    async fn machine(&self, machine: MachineId, expires: Timestamp) -> Result<Caller, Denial> {
        let standing = self.store.standing(machine).await.map_err(|error| internal(&error))?;
        let Some(standing) = standing else {
            return Err(Denial::new(
                Code::Unauthenticated,
                "this controller does not know the machine: enrol it again",
            ));
        };
        match standing.state {
            EnrolmentState::Accepted => {}
            EnrolmentState::Pending => {
                return Err(Denial::new(Code::FailedPrecondition, "an operator has not accepted this machine yet"));
            }
            _ => return Err(Denial::new(Code::PermissionDenied, "an operator revoked or rejected this machine")),
        }
        // A connection outlives its certificate as long as the machine renews it. A store from a backup knows only of older
        // certificates than the one that the handshake verified.
        if standing.certificate_expires.map_or(expires, |newest| newest.max(expires)) <= self.clock.now() {
            return Err(Denial::new(Code::Unauthenticated, "the machine's certificate has expired"));
        }
        Ok(Caller::Machine(machine))
    }

    async fn admin(&self, name: &AdminName, serial: &[u8]) -> Result<Caller, Denial> {
        let standing = self.store.admin_standing(name.clone()).await.map_err(|error| internal(&error))?;
        match standing {
            None => Err(Denial::new(Code::Unauthenticated, "this controller does not know the admin")),
            Some(standing) if standing.revoked || standing.serial != serial => {
                Err(Denial::new(Code::PermissionDenied, "this admin certificate was revoked or replaced"))
            }
            Some(standing) if standing.expires_at <= self.clock.now() => {
                Err(Denial::new(Code::Unauthenticated, "this admin certificate has expired"))
            }
            Some(_) => Ok(Caller::Operator(Actor::Admin(name.clone()))),
        }
    }
}

fn internal(error: &crate::store::StoreError) -> Denial {
    tracing::error!(error = %crate::error_chain(error), "cannot check an identity");
    Denial::new(Code::Internal, "the controller cannot check identities at the moment")
}

/// The layer around every route.
pub async fn authorize(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Identity>().cloned().unwrap_or(Identity::Unknown);
    let path = request.uri().path();
    match gate.decide(&identity, path).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(denial) => denial.response(path),
    }
}
