//! Every RPC and route, walked by everybody who might come.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use muster_controller::Clock;
use muster_controller::ca::CertificateRequest;
use muster_proto::{MachineId, wire};
use tonic::Code;

use crate::harness::{Desk, Running};

const PROTO: &str = include_str!("../../../proto/proto/muster.proto");

/// Every RPC of the contract, as (service, path): a new one is walked without anybody thinking of it.
fn rpcs() -> Vec<(String, String)> {
    let mut service = String::new();
    let mut rpcs = Vec::new();
    for line in PROTO.lines().map(str::trim) {
        let word = |prefix: &str| {
            let rest = line.strip_prefix(prefix)?;
            rest.split(|c: char| !c.is_ascii_alphanumeric()).next().map(str::to_owned)
        };
        if let Some(name) = word("service ") {
            service = name;
        } else if let Some(name) = word("rpc ") {
            rpcs.push((service.clone(), format!("/muster.v1.{service}/{name}")));
        }
    }
    assert!(rpcs.len() >= 23, "the contract has at least 23 RPCs, found {}", rpcs.len());
    rpcs
}

/// What the gate says; a handler's own refusals have other words.
const GATE: [&str; 8] = [
    "a client certificate of this controller is needed",
    "this is for enrolled machines only",
    "this is for operators only",
    "this controller does not know the machine",
    "an operator has not accepted this machine yet",
    "an operator revoked or rejected this machine",
    "this admin certificate was revoked or replaced",
    "the machine's certificate has expired",
];

struct Visitor {
    name: &'static str,
    desk: Desk,
    /// For AgentLink and Admin: `None` lets in.
    link: Option<Code>,
    admin: Option<Code>,
    blob: StatusCode,
}

async fn visitors(controller: &Running) -> Vec<Visitor> {
    let denied = Some(Code::PermissionDenied);
    let unknown = Some(Code::Unauthenticated);
    let visitor = |name, desk, link, admin, blob| Visitor { name, desk, link, admin, blob };
    let mut local = controller.local().await;

    let revoked = controller.desk().await;
    let request = wire::RevokeMachineRequest { machine: revoked.id().to_string() };
    local.revoke_machine(request).await.expect("revoked");

    // A pending machine has no certificate; this one got hold of one all the same.
    let token = controller.token(1, true).await;
    let mut pending = Desk::new();
    let answer = pending.enrol(controller, &token).await.expect("pending");
    assert_eq!(answer.state(), wire::EnrolmentState::Pending);
    assert!(pending.certificate.is_none(), "a pending machine was given a certificate");
    pending.certificate = Some(issue(controller, &pending, pending.id()));

    let mut stranger = Desk::new();
    stranger.certificate = Some(issue(controller, &stranger, MachineId::random()));

    let revoked_admin = controller.admin("gone").await;
    local.revoke_admin(wire::RevokeAdminRequest { name: "gone".to_owned() }).await.expect("revoked");
    let replaced_admin = controller.admin("again").await;
    local.revoke_admin(wire::RevokeAdminRequest { name: "again".to_owned() }).await.expect("revoked");
    let admin = controller.admin("again").await;

    vec![
        visitor("nobody", Desk::new(), unknown, unknown, StatusCode::FORBIDDEN),
        visitor("an agent", controller.desk().await, None, denied, StatusCode::NOT_FOUND),
        visitor("an admin", admin, denied, None, StatusCode::FORBIDDEN),
        visitor("a revoked agent", revoked, denied, denied, StatusCode::FORBIDDEN),
        visitor("a pending agent", pending, Some(Code::FailedPrecondition), denied, StatusCode::FORBIDDEN),
        visitor("an agent that never enrolled", stranger, unknown, denied, StatusCode::FORBIDDEN),
        visitor("a revoked admin", revoked_admin, denied, denied, StatusCode::FORBIDDEN),
        visitor("an admin whose certificate was replaced", replaced_admin, denied, denied, StatusCode::FORBIDDEN),
    ]
}

fn issue(controller: &Running, desk: &Desk, machine: MachineId) -> Vec<u8> {
    let request = CertificateRequest::parse(&desk.request()).expect("well signed");
    let now = Clock::system().now();
    controller.ca.issue_machine(&request, machine, Duration::from_hours(1), now).expect("issued").der.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_lets_in_whom_it_is_for_and_nobody_else() {
    let controller = Running::start().await;
    for visitor in visitors(&controller).await {
        for (service, path) in rpcs() {
            let expected = match service.as_str() {
                "Enrolment" => None,
                "AgentLink" => visitor.link,
                "Admin" => visitor.admin,
                other => panic!("service {other} is new: say here who may call it"),
            };
            let answer = visitor.desk.call(&controller, &path).await;
            let by_gate = GATE.iter().any(|words| answer.message.starts_with(words));
            if let Some(code) = expected {
                assert_eq!(answer.code, Some(code), "{path} for {}: {answer:?}", visitor.name);
                assert!(by_gate, "{path} for {}: {answer:?}", visitor.name);
            } else {
                assert!(!by_gate, "{path} for {}: {answer:?}", visitor.name);
                assert_ne!(answer.code, Some(Code::Unimplemented), "{path}: {answer:?}");
                assert_ne!(answer.code, Some(Code::Internal), "{path}: {answer:?}");
            }
        }
        let blob = format!("/v1/blobs/sha256/{}", "ab".repeat(32));
        for method in ["GET", "HEAD"] {
            let request = Request::builder().method(method).uri(&blob).header("host", "muster").body(Full::default());
            let (status, _, _) = visitor.desk.http(&controller, request.expect("a request")).await;
            assert_eq!(status, visitor.blob, "{method} {blob} for {}", visitor.name);
        }
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_is_for_nobody() {
    let controller = Running::start().await;
    let (nobody, agent) = (Desk::new(), controller.desk().await);
    for path in [
        "/",
        "/metrics",
        "/v1/blobs/",
        "/v1/blobs/sha256",
        "/muster.v1.Other/Anything",
        "/muster.v1.Enrolment/../muster.v1.Admin/GetStatus",
        "/muster.v1.Enrolment/Other",
        "//muster.v1.Admin/GetStatus",
        "/muster.v1.Admin%2FGetStatus",
        "/v1/blobs/sha256/..%2f..%2fca.pem",
        "/v1/blobs/sha256/../../../ca.pem",
    ] {
        for visitor in [&nobody, &agent] {
            let answer = visitor.call(&controller, path).await;
            let refused = answer.code.is_some_and(|code| code != Code::Ok) || answer.http.is_client_error();
            assert!(refused, "{path}: {answer:?}");
        }
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_is_refused_in_the_handshake() {
    let (one, other) = (Running::start().await, Running::start().await);
    let mut desk = one.desk().await;
    let refused = desk.link(&other, crate::harness::hello(0)).await;
    // TLS 1.3: the client learns it with its first read.
    let refused = match refused {
        Ok(mut linked) => linked.end().await,
        Err(status) => status,
    };
    assert_ne!(refused.code(), Code::Ok, "{refused:?}");
    assert!(other.store.machines().await.expect("listed").is_empty());
    desk.certificate = None;
    assert!(desk.connect(&other, b"h2").await.is_ok(), "without a certificate the handshake is fine");
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_controller_on_the_same_data_is_refused() {
    let controller = Running::start().await;
    let worker = muster_engine::worker::WorkerCommand::new(env!("CARGO_BIN_EXE_muster"));
    let config = muster_controller::ServeConfig::new(controller.data.path().to_owned(), worker);
    let refused = muster_controller::App::build(config).await.err().expect("refused");
    assert!(refused.to_string().contains("is in use by process"), "{refused}");
    controller.stop().await;
}
