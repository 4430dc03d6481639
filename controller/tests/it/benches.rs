//! Orders of benchmarks: sent once, joined, told of, and given up.

use std::time::Duration;

use muster_proto::wire::from_agent::Message as From;
use muster_proto::wire::to_agent::Message;
use muster_proto::{BenchOrder, BenchOrderState, BenchmarkKind, Machine, wire};
use tonic::{Code, Streaming};

use crate::harness::{Desk, Linked, Running, hello};

async fn linked(controller: &Running, desk: &Desk) -> Linked {
    let mut linked = desk.link(controller, hello(0)).await.expect("let in");
    assert!(matches!(linked.next().await, Ok(Message::Welcome(_))));
    linked
}

async fn requested(linked: &mut Linked) -> wire::BenchmarkRequest {
    match linked.next().await {
        Ok(Message::BenchmarkRequest(request)) => request,
        other => panic!("expected a benchmark's order, got {other:?}"),
    }
}

async fn order(controller: &Running, kind: BenchmarkKind, wait: bool) -> Streaming<wire::BenchOrder> {
    let machines = vec!["desk-1".to_owned()];
    let request =
        wire::BenchMachinesRequest { machines, kind: kind.number(), wait, ..wire::BenchMachinesRequest::default() };
    controller.local().await.bench_machines(request).await.expect("ordered").into_inner()
}

async fn next(orders: &mut Streaming<wire::BenchOrder>) -> Option<BenchOrder> {
    let order = orders.message().await.expect("no failure")?;
    Some(order.try_into().expect("readable"))
}

async fn shown(controller: &Running) -> BenchOrder {
    let request = wire::GetMachineRequest { machine: "desk-1".to_owned() };
    let machine = controller.local().await.get_machine(request).await.expect("there").into_inner();
    Machine::try_from(machine).expect("readable").bench_order.expect("an order")
}

fn progress(request: &wire::BenchmarkRequest, state: BenchOrderState, reason: Option<&str>) -> From {
    From::BenchmarkProgress(wire::BenchmarkProgress {
        order: request.order.clone(),
        state: state.number(),
        step: "decode".to_owned(),
        fraction: 0.5,
        reason: reason.map(str::to_owned),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_sent_once_followed_and_refused_with_its_reason() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let mut stream = linked(&controller, &desk).await;
    let mut orders = order(&controller, BenchmarkKind::Full, true).await;
    let first = next(&mut orders).await.expect("the order");
    assert_eq!((first.state, first.ordered_by.as_str()), (BenchOrderState::Waiting, "local"));
    let request = requested(&mut stream).await;
    assert_eq!((request.kind, request.order.as_ref()), (BenchmarkKind::Full.number(), &first.id.as_bytes()[..]));
    // One that wants less joins it, and is not sent.
    let mut joined = order(&controller, BenchmarkKind::Quick, false).await;
    assert_eq!(next(&mut joined).await.map(|order| order.id), Some(first.id));
    assert_eq!(next(&mut joined).await, None);
    stream.send(progress(&request, BenchOrderState::Running, None)).await;
    let running = next(&mut orders).await.expect("progress");
    assert_eq!((running.state, running.step.as_deref()), (BenchOrderState::Running, Some("decode")));
    // What it says of an order that nobody gave is nothing.
    let stranger = wire::BenchmarkRequest { order: vec![9; 16].into(), ..request.clone() };
    stream.send(progress(&stranger, BenchOrderState::Done, None)).await;
    stream.send(progress(&request, BenchOrderState::Refused, Some("not idle"))).await;
    let refused = next(&mut orders).await.expect("the end");
    assert_eq!((refused.state, refused.reason.as_deref()), (BenchOrderState::Refused, Some("not idle")));
    assert_eq!(next(&mut orders).await, None, "there is nothing more to wait for");
    assert_eq!(shown(&controller).await, refused);
    // It is over: saying otherwise afterwards changes nothing, and a new stream is not sent it again.
    stream.send(progress(&request, BenchOrderState::Done, None)).await;
    drop(stream);
    let mut again = linked(&controller, &desk).await;
    again.send(From::Heartbeat(wire::Heartbeat {})).await;
    assert!(matches!(again.next().await, Ok(Message::HeartbeatAck(_))));
    assert_eq!(shown(&controller).await.state, BenchOrderState::Refused);
    let actions = controller.actions().await;
    assert_eq!(actions.iter().filter(|action| *action == "bench.ordered").count(), 2, "{actions:?}");
    assert!(actions.contains(&"bench.refused".to_owned()) && !actions.contains(&"bench.done".to_owned()));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_order_is_sent_on_every_stream_until_it_ends_and_more_replaces_it() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let mut orders = order(&controller, BenchmarkKind::Standard, true).await;
    let first = next(&mut orders).await.expect("the order");
    let mut stream = linked(&controller, &desk).await;
    assert_eq!(requested(&mut stream).await.order.as_ref(), first.id.as_bytes());
    drop(stream);
    // It survives the controller.
    let data = controller.stop().await;
    let controller = Running::on(data).await;
    let mut stream = linked(&controller, &desk).await;
    let request = requested(&mut stream).await;
    assert_eq!(request.order.as_ref(), first.id.as_bytes());
    let mut more = order(&controller, BenchmarkKind::Full, true).await;
    let second = next(&mut more).await.expect("the order");
    assert_ne!(second.id, first.id);
    let request = requested(&mut stream).await;
    assert_eq!(request.order.as_ref(), second.id.as_bytes());
    stream.send(progress(&request, BenchOrderState::Done, None)).await;
    assert_eq!(next(&mut more).await.map(|order| order.state), Some(BenchOrderState::Done));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_ordered_machine_by_machine() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let _stream = linked(&controller, &desk).await;
    let request =
        wire::SetMachineGroupsRequest { machine: "desk-1".to_owned(), add: vec!["berlin".to_owned()], remove: vec![] };
    controller.local().await.set_machine_groups(request).await.expect("grouped");
    let ask = |group: &str| wire::BenchMachinesRequest { group: group.to_owned(), ..Default::default() };
    let mut orders = controller.local().await.bench_machines(ask("berlin")).await.expect("ordered").into_inner();
    assert_eq!(next(&mut orders).await.expect("the order").hostname, "desk-1");
    let refused = controller.local().await.bench_machines(ask("paris")).await.expect_err("nobody is there");
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_measures_a_day_late_or_without_being_let_in() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let first = next(&mut order(&controller, BenchmarkKind::Quick, false).await).await.expect("the order");
    controller.clock.jump(Duration::from_hours(25));
    assert_eq!(shown(&controller).await.state, BenchOrderState::Expired);
    let second = next(&mut order(&controller, BenchmarkKind::Quick, false).await).await.expect("the order");
    assert!(second.id != first.id && second.state == BenchOrderState::Waiting);
    let request = wire::RevokeMachineRequest { machine: desk.id().to_string() };
    controller.local().await.revoke_machine(request).await.expect("revoked");
    let mut local = controller.local().await;
    for (request, code) in [
        (
            wire::BenchMachinesRequest { machines: vec!["desk-1".to_owned()], ..Default::default() },
            Code::FailedPrecondition,
        ),
        (wire::BenchMachinesRequest { machines: vec!["desk-2".to_owned()], ..Default::default() }, Code::NotFound),
        (wire::BenchMachinesRequest { group: "nobody".to_owned(), ..Default::default() }, Code::NotFound),
        (wire::BenchMachinesRequest::default(), Code::InvalidArgument),
        (wire::BenchMachinesRequest { all: true, kind: 77, ..Default::default() }, Code::InvalidArgument),
    ] {
        let status = local.bench_machines(request.clone()).await.expect_err("refused");
        assert_eq!(status.code(), code, "{request:?}: {status:?}");
    }
    controller.stop().await;
}
