//! The long-lived stream: versions, desired states, two of one identity, being cut off.

use std::time::{Duration, Instant};

use muster_proto::wire::to_agent::Message;
use muster_proto::{ModelDigest, wire};
use prost::Message as _;
use tonic::Code;

use crate::harness::{Desk, Linked, Running, assignment, hello};

async fn linked(controller: &Running, desk: &Desk, held: u64) -> Linked {
    let mut linked = desk.link(controller, hello(held)).await.expect("let in");
    match linked.next().await.expect("welcome") {
        Message::Welcome(welcome) => assert_eq!((welcome.protocol, welcome.heartbeat_seconds), (1, 60)),
        other => panic!("expected a welcome, got {other:?}"),
    }
    linked
}

async fn beat(linked: &mut Linked) {
    linked.send(wire::from_agent::Message::Heartbeat(wire::Heartbeat {})).await;
    let answer = linked.next().await;
    assert!(matches!(answer, Ok(Message::HeartbeatAck(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_one_version_apart_works_and_two_apart_is_told() {
    let controller = Running::start().await;
    for protocol in [0, 1, 2] {
        let desk = controller.desk().await;
        let mut linked = desk.link(&controller, wire::Hello { protocol, ..hello(0) }).await.expect("let in");
        assert!(matches!(linked.next().await, Ok(Message::Welcome(_))), "protocol {protocol}");
        // An arm of a newer version: field 99, which this one does not know, is skipped.
        linked.outgoing.send(wire::FromAgent { message: None }).await.expect("open");
        beat(&mut linked).await;
    }
    let desk = controller.desk().await;
    let mut linked = desk.link(&controller, wire::Hello { protocol: 3, ..hello(0) }).await.expect("a stream");
    let refused = linked.end().await;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("protocol 3"), "{refused:?}");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_begin_with_hello_or_says_too_much_is_ended() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let long = wire::Hello { hostname: "x".repeat(256), ..hello(0) };
    assert_eq!(desk.link(&controller, long).await.expect("a stream").end().await.code(), Code::InvalidArgument);
    let mut ready = linked(&controller, &desk, 0).await;
    let devices = vec![wire::Device { name: "x".repeat(5000), ..wire::Device::default() }; 10];
    let inventory = wire::Inventory { devices, ..wire::Inventory::default() };
    ready.send(wire::from_agent::Message::Inventory(inventory)).await;
    assert_eq!(ready.end().await.code(), Code::InvalidArgument);
    let mut again = linked(&controller, &desk, 0).await;
    let huge = wire::Observed { endpoint: Some("x".repeat(2 << 20)), ..wire::Observed::default() };
    again.send(wire::from_agent::Message::Observed(huge)).await;
    assert_eq!(again.end().await.code(), Code::OutOfRange, "longer than any message may be");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_no_new_generation_and_who_holds_it_is_not_sent_it_again() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let assignments = vec![assignment(ModelDigest::new([1; 32]))];
    let now = controller.clock.now();
    let changed = controller.store.decide(vec![(desk.id(), assignments.clone())], now).await.expect("decided");
    assert_eq!(changed, [desk.id()]);
    let unchanged = controller.store.decide(vec![(desk.id(), assignments.clone())], now).await.expect("decided");
    assert!(unchanged.is_empty(), "the same content made a new generation");
    let mut first = linked(&controller, &desk, 0).await;
    let desired = first.desired().await;
    assert_eq!((desired.generation, desired.assignments.len()), (1, 1));
    drop(first);

    // Who holds it is not sent it again.
    let digest = ring::digest::digest(&ring::digest::SHA256, &desired.encode_to_vec());
    let held = wire::Hello { held_digest: digest.as_ref().to_vec().into(), ..hello(1) };
    let mut second = desk.link(&controller, held).await.expect("let in");
    second.next().await.expect("welcome");
    beat(&mut second).await;
    assert!(!controller.actions().await.contains(&"generation.went_on".to_owned()));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_keeps_its_identity_and_a_clone_is_told() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let mut first = linked(&controller, &desk, 0).await;
    let mut second = desk.link(&controller, hello(0)).await.expect("a stream");
    let Ok(Message::Challenge(wire::Challenge { nonce })) = first.next().await else { panic!("no challenge came") };
    first.send(wire::from_agent::Message::ChallengeAnswer(wire::ChallengeAnswer { nonce })).await;
    let refused = second.end().await;
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains("cloned"), "{refused:?}");
    beat(&mut first).await;
    assert!(controller.actions().await.contains(&"identity.cloned".to_owned()));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_hands_over() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let mut first = linked(&controller, &desk, 0).await;
    let begun = Instant::now();
    let mut second = linked(&controller, &desk, 0).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "the old stream had less than two seconds");
    beat(&mut second).await;
    assert_eq!(first.end().await.code(), Code::Aborted);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_machine_is_cut_off_and_does_not_come_back() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let mut stream = linked(&controller, &desk, 0).await;
    let begun = Instant::now();
    let request = wire::RevokeMachineRequest { machine: "desk-1".to_owned() };
    controller.local().await.revoke_machine(request).await.expect("revoked");
    let ended = stream.end().await;
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let refused = desk.link(&controller, hello(0)).await.err().expect("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_says_is_there_for_operators() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let one = assignment(ModelDigest::new([1; 32]));
    controller.store.decide(vec![(desk.id(), vec![one.clone()])], controller.clock.now()).await.expect("decided");
    let mut stream = linked(&controller, &desk, 0).await;
    assert_eq!(stream.desired().await.generation, 1);
    let measured =
        wire::Measured { memory: Some(one.prediction.memory.clone().into()), load_ms: 7, ..wire::Measured::default() };
    let deployment = wire::Deployment {
        assignment: one.id.as_bytes().to_vec().into(),
        digest: one.digest.as_bytes().to_vec().into(),
        model: one.model.clone(),
        state: wire::DeploymentState::Success.into(),
        measured: Some(measured),
        ..wire::Deployment::default()
    };
    let observed = wire::Observed { generation: 1, deployments: vec![deployment], ..wire::Observed::default() };
    stream.send(wire::from_agent::Message::Observed(observed)).await;
    beat(&mut stream).await;
    let request = wire::GetMachineRequest { machine: desk.id().to_string()[..8].to_owned() };
    let machine = controller.local().await.get_machine(request).await.expect("there").into_inner();
    assert!(machine.online && machine.observed.is_some());
    assert_eq!((machine.hostname.as_str(), machine.desired_generation), ("desk-1", 1));
    let ledger = controller.store.ledger(desk.id()).await.expect("read");
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].measured.as_ref().map(|measured| measured.load_ms), Some(7));
    assert!(controller.actions().await.contains(&"deployment.changed".to_owned()));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_calls_itself_by_the_id_of_another_is_not_taken_for_it() {
    let controller = Running::start().await;
    let (one, other) = (controller.desk().await, controller.desk().await);
    let hello = wire::Hello { hostname: one.id().to_string(), ..hello(0) };
    let mut stream = other.link(&controller, hello).await.expect("let in");
    stream.next().await.expect("welcome");
    let request = wire::RevokeMachineRequest { machine: one.id().to_string() };
    let revoked = controller.local().await.revoke_machine(request).await.expect("revoked").into_inner();
    assert_eq!(revoked.id, one.id().as_bytes().to_vec());
    beat(&mut stream).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_says_too_much_is_slowed_down_and_one_that_comes_too_often_is_told() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let mut told = None;
    for _ in 0..200 {
        match desk.link(&controller, hello(0)).await {
            Ok(stream) => drop(stream),
            Err(status) => {
                told = Some(status);
                break;
            }
        }
    }
    assert_eq!(told.expect("an end to it").code(), Code::ResourceExhausted);
    // Others are as free as before.
    let other = controller.desk().await;
    beat(&mut linked(&controller, &other, 0).await).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_could_not_take_is_sent_again() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let decision = vec![(desk.id(), vec![assignment(ModelDigest::new([1; 32]))])];
    controller.store.decide(decision, controller.clock.now()).await.expect("decided");
    let mut stream = linked(&controller, &desk, 0).await;
    let offered = stream.desired().await;
    let refusal = |held_generation| {
        wire::from_agent::Message::DesiredStateRefused(wire::DesiredStateRefused {
            offered_generation: offered.generation,
            held_generation,
            reason: "the disk is full".to_owned(),
        })
    };
    stream.send(refusal(0)).await;
    stream.send(wire::from_agent::Message::Heartbeat(wire::Heartbeat {})).await;
    assert_eq!(stream.desired().await, offered);
    assert!(matches!(stream.next().await, Ok(Message::HeartbeatAck(_))));
    // Ahead of the controller: it goes on after what the machine holds.
    stream.send(refusal(41)).await;
    assert_eq!(stream.desired().await.generation, 42);
    controller.stop().await;
}
