//! Tokens, certificates, and coming back after an absence.

use std::time::Duration;

use muster_controller::enrol::renewal_proof;
use muster_proto::wire::agent_link_client::AgentLinkClient;
use muster_proto::wire::enrolment_client::EnrolmentClient;
use muster_proto::{EnrolmentToken, wire};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use tonic::{Code, Status};

use crate::harness::{Desk, Running, hello};

const DAY: Duration = Duration::from_hours(24);

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once_for_each_use_and_again_for_the_same_key() {
    let controller = Running::start().await;
    let token = controller.token(1, false).await;
    let mut desk = Desk::new();
    let first = desk.enrol(&controller, &token).await.expect("enrolled");
    assert_eq!(first.ca_certificate, controller.ca.certificate().as_ref());
    let again = desk.enrol(&controller, &token).await.expect("the same again");
    assert_eq!(first.machine_id, again.machine_id);
    let used = controller.store.tokens().await.expect("listed");
    assert_eq!(used[0].uses, 1, "a repeat counted as a use");
    assert_eq!(controller.store.machines().await.expect("listed").len(), 1);

    let refused = Desk::new().enrol(&controller, &token).await.expect_err("used up");
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("used as often"), "{refused:?}");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_expired_and_revoked_tokens_are_refused_with_their_reason() {
    let controller = Running::start().await;
    let wrong = EnrolmentToken::new([7; 20], *controller.ca.fingerprint().as_bytes());
    let refused = Desk::new().enrol(&controller, &wrong).await.expect_err("unknown");
    assert!(refused.message().contains("is wrong"), "{refused:?}");

    let revoked = controller.token(1, false).await;
    let id = controller.store.tokens().await.expect("listed")[0].id;
    let request = wire::RevokeTokenRequest { id: id.as_bytes().to_vec().into() };
    controller.local().await.revoke_token(request).await.expect("revoked");
    let refused = Desk::new().enrol(&controller, &revoked).await.expect_err("revoked");
    assert_eq!(refused.code(), Code::PermissionDenied);

    let late = controller.token(2, false).await;
    let mut early = Desk::new();
    early.enrol(&controller, &late).await.expect("in time");
    controller.clock.jump(Duration::from_secs(3601));
    let refused = Desk::new().enrol(&controller, &late).await.expect_err("expired");
    assert!(refused.message().contains("expired at"), "{refused:?}");
    early.enrol(&controller, &late).await.expect("who enrolled in time may repeat");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_signed_by_its_key_gets_nothing() {
    let controller = Running::start().await;
    let token = controller.token(1, false).await;
    let mut request = Desk::new().request();
    let last = request.len() - 1;
    request[last] ^= 1;
    let request = wire::EnrolRequest {
        protocol: 1,
        agent_version: String::new(),
        token_secret: token.secret().to_vec().into(),
        certificate_request: request.into(),
        hostname: "desk".to_owned(),
    };
    let channel = Desk::new().channel(&controller).await.expect("TLS");
    let refused = EnrolmentClient::new(channel).enrol(request).await.expect_err("not signed");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(controller.store.tokens().await.expect("listed")[0].uses, 0);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_machine_waits_for_an_operator() {
    let controller = Running::start().await;
    let token = controller.token(2, true).await;
    let mut desk = Desk::new();
    let waiting = desk.enrol(&controller, &token).await.expect("pending");
    assert_eq!(waiting.state(), wire::EnrolmentState::Pending);
    assert!(waiting.certificate.is_empty());
    let accept = wire::AcceptMachineRequest { machine: desk.id().to_string(), accept: true };
    controller.local().await.accept_machine(accept).await.expect("accepted");
    let accepted = desk.enrol(&controller, &token).await.expect("accepted");
    assert_eq!(accepted.machine_id, waiting.machine_id);
    assert!(!accepted.certificate.is_empty());
    desk.link(&controller, hello(0)).await.expect("let in");

    let mut other = Desk::new();
    other.enrol(&controller, &token).await.expect("pending");
    let reject = wire::AcceptMachineRequest { machine: other.id().to_string(), accept: false };
    controller.local().await.accept_machine(reject).await.expect("rejected");
    let refused = other.enrol(&controller, &token).await.expect_err("rejected");
    assert_eq!(refused.code(), Code::PermissionDenied);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_renews_without_a_new_stream_and_only_for_the_same_key() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let mut linked = desk.link(&controller, hello(0)).await.expect("let in");
    linked.next().await.expect("welcome");
    let mut client = AgentLinkClient::new(desk.channel(&controller).await.expect("TLS"));
    controller.clock.jump(DAY / 2);
    let request = wire::RenewRequest { certificate_request: desk.request().into() };
    let renewed = client.renew(request).await.expect("renewed").into_inner();
    assert!(!renewed.certificate.is_empty());
    let other = wire::RenewRequest { certificate_request: Desk::new().request().into() };
    assert_eq!(client.renew(other).await.expect_err("another key").code(), Code::PermissionDenied);

    // Past the end of the first certificate the stream lives on the second one; past that it ends.
    controller.clock.jump(DAY / 2 + DAY / 4);
    linked.send(wire::from_agent::Message::Heartbeat(wire::Heartbeat {})).await;
    assert!(matches!(linked.next().await, Ok(wire::to_agent::Message::HeartbeatAck(_))));
    controller.clock.jump(DAY);
    linked.send(wire::from_agent::Message::Heartbeat(wire::Heartbeat {})).await;
    let ended = linked.end().await;
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert!(ended.message().contains("expired"), "{ended:?}");
    controller.stop().await;
}

/// Renews an expired certificate; `tamper` spoils the request.
async fn renew_late(
    controller: &Running,
    desk: &Desk,
    signer: &Desk,
    tamper: impl FnOnce(&mut wire::RenewExpiredRequest),
) -> Result<wire::EnrolResponse, Status> {
    let channel = desk.without_certificate().channel(controller).await?;
    let mut client = EnrolmentClient::new(channel);
    let nonce = client.renew_challenge(wire::RenewChallengeRequest {}).await?.into_inner().nonce;
    let certificate_request = desk.request();
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &signer.key.serialize_der(), &random);
    let proof = renewal_proof(&nonce, &certificate_request);
    let signature = key.expect("its key").sign(&random, &proof).expect("signed");
    let mut request = wire::RenewExpiredRequest {
        protocol: 1,
        certificate: desk.certificate.clone().expect("enrolled").into(),
        certificate_request: certificate_request.into(),
        nonce,
        signature: signature.as_ref().to_vec().into(),
    };
    tamper(&mut request);
    let renewed = client.renew_expired(request.clone()).await?.into_inner();
    // The same proof again is worth nothing.
    let replayed = client.renew_expired(request).await.expect_err("replayed");
    assert_eq!(replayed.code(), Code::Unauthenticated);
    assert!(replayed.message().contains("nonce"), "{replayed:?}");
    Ok(renewed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desk_that_was_away_comes_back_by_proof_of_its_key() {
    let controller = Running::start().await;
    let mut desk = controller.desk().await;
    controller.clock.jump(3 * DAY);
    let expired = match desk.link(&controller, hello(0)).await {
        Ok(mut linked) => linked.end().await,
        Err(status) => status,
    };
    assert_ne!(expired.code(), Code::Ok, "an expired certificate was let in");

    let wrong_key = renew_late(&controller, &desk, &Desk::new(), |_| {}).await.expect_err("another's signature");
    assert!(wrong_key.message().contains("signature"), "{wrong_key:?}");
    let wrong_nonce = renew_late(&controller, &desk, &desk, |request| request.nonce = vec![1; 32].into()).await;
    assert!(wrong_nonce.expect_err("not given out").message().contains("nonce"));
    let other_request = Desk::new().request();
    let swapped = renew_late(&controller, &desk, &desk, |request| request.certificate_request = other_request.into());
    assert_eq!(swapped.await.expect_err("another's request").code(), Code::PermissionDenied);
    let foreign = Running::start().await;
    let foreigner = foreign.desk().await.certificate.expect("enrolled");
    let strange = renew_late(&controller, &desk, &desk, |request| request.certificate = foreigner.into()).await;
    assert!(strange.expect_err("another CA").message().contains("none of this controller's"));
    foreign.stop().await;

    let renewed = renew_late(&controller, &desk, &desk, |_| {}).await.expect("renewed");
    assert_eq!(renewed.machine_id, desk.id().as_bytes().as_slice());
    desk.certificate = Some(renewed.certificate.to_vec());
    let mut linked = desk.link(&controller, hello(0)).await.expect("let in again");
    linked.next().await.expect("welcome");
    assert!(controller.actions().await.contains(&"certificate.renewed_late".to_owned()));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desk_that_was_away_too_long_or_was_revoked_does_not_come_back() {
    let controller = Running::start().await;
    let token = controller.token(2, false).await;
    let (mut gone, mut revoked) = (Desk::new(), Desk::new());
    gone.enrol(&controller, &token).await.expect("enrolled");
    revoked.enrol(&controller, &token).await.expect("enrolled");
    let request = wire::RevokeMachineRequest { machine: revoked.id().to_string() };
    controller.local().await.revoke_machine(request).await.expect("revoked");
    controller.clock.jump(3 * DAY);
    let refused = renew_late(&controller, &revoked, &revoked, |_| {}).await.expect_err("revoked");
    assert_eq!(refused.code(), Code::PermissionDenied);
    controller.clock.jump(89 * DAY);
    let refused = renew_late(&controller, &gone, &gone, |_| {}).await.expect_err("92 days");
    assert!(refused.message().contains("90 days"), "{refused:?}");
    let refused = gone.without_certificate().enrol(&controller, &token).await.expect_err("not by its old token either");
    assert!(refused.message().contains("90 days"), "{refused:?}");
    controller.stop().await;
}
