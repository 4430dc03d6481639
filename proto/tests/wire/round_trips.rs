//! Domain to wire to bytes and back, for full values, for the emptiest ones, and for whatever damaged bytes still mean.

use std::fmt::Debug;

use muster_proto::{
    AdminRecord, AuditEvent, Benchmark, Bytes, Closeness, ControllerStatus, Deployment, DesiredState, Inventory,
    Machine, Measured, Model, Observed, Plan, PolicyRecord, Rejection, RejectionReason, TokenRecord, Transfer, wire,
};
use proptest::prelude::*;
use prost::Message;

use crate::samples;

/// Over the wire and back.
fn through<D, W>(value: &D) -> D
where
    D: Clone + TryFrom<W, Error = wire::ConversionError>,
    W: From<D> + Message + Default,
{
    let bytes = W::from(value.clone()).encode_to_vec();
    let message = W::decode(bytes.as_slice()).expect("its own bytes decode");
    D::try_from(message).expect("its own message converts")
}

fn comes_back<D, W>(value: &D)
where
    D: Clone + Debug + PartialEq + TryFrom<W, Error = wire::ConversionError>,
    W: From<D> + Message + Default,
{
    assert_eq!(&through::<D, W>(value), value);
}

#[test]
fn full_values_come_back() {
    comes_back::<_, wire::Inventory>(&samples::inventory());
    comes_back::<_, wire::Benchmark>(&samples::benchmark());
    comes_back::<_, wire::Benchmark>(&samples::benchmark_of_a_laptop());
    comes_back::<_, wire::DesiredState>(&samples::desired());
    comes_back::<_, wire::Observed>(&samples::observed());
    comes_back::<_, wire::Model>(&samples::model());
    comes_back::<_, wire::Machine>(&samples::machine());
    comes_back::<_, wire::BenchOrder>(&samples::bench_order());
    let ordered = Machine { bench_order: Some(samples::bench_order()), ..samples::machine() };
    comes_back::<_, wire::Machine>(&ordered);
    comes_back::<_, wire::Plan>(&samples::plan());
    comes_back::<_, wire::TokenRecord>(&samples::token());
    comes_back::<_, wire::Status>(&samples::status());
    comes_back::<_, wire::AdminRecord>(&samples::admin());
    comes_back::<_, wire::PolicyRecord>(&samples::policy());
    comes_back::<_, wire::AuditEvent>(&samples::event());
    comes_back::<_, wire::ReadinessReport>(&samples::readiness());
}

#[test]
fn groups_come_back() {
    let mut machine = samples::machine();
    machine.groups = vec!["berlin".into(), "design".into()];
    comes_back::<_, wire::Machine>(&machine);
    let mut token = samples::token();
    token.groups = vec!["lab".into()];
    comes_back::<_, wire::TokenRecord>(&token);
}

#[test]
fn a_measured_quality_comes_back() {
    let model = samples::model_with_quality();
    comes_back::<_, wire::Model>(&model);
    let closeness = Some(Closeness { winner: 0.002, this: 0.031 });
    let rejection = Rejection { reason: RejectionReason::Outranked { by: "Q8_0".into(), closeness } };
    comes_back::<_, wire::Rejection>(&rejection);
    assert_eq!(rejection.to_string(), "would run, but Q8_0 is closer to the source: KLD 0.0020 against 0.0310");
    let mut message = wire::Quality::from(samples::quality());
    message.divergence.as_mut().expect("there").median = f64::NAN;
    assert_eq!(muster_proto::Quality::try_from(message).expect_err("no figure").path, "divergence.median");
}

#[test]
fn lists_come_back_in_order() {
    let mut second = samples::machine();
    second.hostname = "a desk that sorts first".into();
    comes_back::<_, wire::ListMachinesResponse>(&vec![samples::machine(), second]);
    comes_back::<_, wire::ListModelsResponse>(&vec![samples::model()]);
    comes_back::<_, wire::ListTokensResponse>(&vec![samples::token()]);
    comes_back::<_, wire::ListAdminsResponse>(&vec![samples::admin()]);
    comes_back::<_, wire::ListAuditEventsResponse>(&vec![samples::event()]);
}

#[test]
fn what_is_not_known_stays_unknown() {
    let mut machine = samples::machine();
    machine.last_seen = None;
    machine.agent_version = None;
    machine.inventory = None;
    machine.benchmark = None;
    machine.observed = None;
    comes_back::<_, wire::Machine>(&machine);

    let mut inventory = samples::inventory();
    inventory.os.name = None;
    inventory.os.kernel = None;
    inventory.cpu.brand = None;
    inventory.cpu.physical_cores = None;
    inventory.store_disk = None;
    inventory.devices.clear();
    comes_back::<_, wire::Inventory>(&inventory);

    let mut desired = samples::desired();
    desired.assignments[0].prediction.prefill = None;
    desired.assignments[0].prediction.decode = None;
    desired.assignments[0].settings.gpu_layers = None;
    comes_back::<_, wire::DesiredState>(&desired);

    let mut model = samples::model();
    model.context_train = None;
    model.licence = None;
    comes_back::<_, wire::Model>(&model);
}

#[test]
fn zero_is_not_the_same_as_unknown() {
    let mut observed = samples::observed();
    let Deployment { transfer: Some(transfer), measured: Some(measured), .. } = &mut observed.deployments[0] else {
        panic!("the sample has both");
    };
    *transfer = Transfer { speed: muster_proto::BytesPerSecond::new(0.0), ..*transfer };
    *measured = Measured { resident: Some(Bytes::ZERO), prefill: None, ..measured.clone() };
    comes_back::<_, wire::Observed>(&observed);
}

#[test]
fn names_travel_with_the_plan() {
    let message = wire::Plan::with_names(samples::plan(), &samples::names());
    assert_eq!(message.into_plan_and_names(), Ok((samples::plan(), samples::names())));
}

#[test]
fn every_rejection_has_words_for_a_reader_that_does_not_know_it() {
    for candidate in samples::plan().machines.into_values().flat_map(|planned| planned.candidates) {
        let Some(rejection) = candidate.rejected else { continue };
        assert_eq!(wire::Rejection::from(&rejection).text, rejection.to_string());
    }
}

#[test]
fn a_long_reason_is_cut_by_the_sender_and_not_refused_by_the_peer() {
    let mut observed = samples::observed();
    observed.deployments[1].reason = Some("ä".repeat(5000));
    let reason = through::<_, wire::Observed>(&observed).deployments[1].reason.clone().expect("a reason");
    assert_eq!(reason, "ä".repeat(2048));

    let rejection = Rejection { reason: RejectionReason::NotSized { error: "x".repeat(9000) } };
    let back = through::<_, wire::Rejection>(&rejection);
    assert_eq!(back.reason, RejectionReason::NotSized { error: "x".repeat(wire::TEXT_MAX) });
}

/// Damaged bytes may decode to anything; what converts must be as good as any other value.
fn damaged_never_harms<D, W>(value: D, edits: &[(usize, u8)], cut: usize)
where
    D: Clone + Debug + PartialEq + TryFrom<W, Error = wire::ConversionError>,
    W: From<D> + Message + Default,
{
    let mut bytes = W::from(value).encode_to_vec();
    for (position, byte) in edits {
        let length = bytes.len();
        bytes[position % length] = *byte;
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    if let Ok(message) = W::decode(bytes.as_slice())
        && let Ok(domain) = D::try_from(message)
    {
        comes_back::<D, W>(&domain);
    }
}

proptest! {
    #[test]
    fn damaged_bytes_are_refused_or_come_back(
        edits in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        cut in prop_oneof![Just(0_usize), 0..64_usize],
    ) {
        damaged_never_harms::<Inventory, wire::Inventory>(samples::inventory(), &edits, cut);
        damaged_never_harms::<Benchmark, wire::Benchmark>(samples::benchmark(), &edits, cut);
        damaged_never_harms::<DesiredState, wire::DesiredState>(samples::desired(), &edits, cut);
        damaged_never_harms::<Observed, wire::Observed>(samples::observed(), &edits, cut);
        damaged_never_harms::<Model, wire::Model>(samples::model(), &edits, cut);
        damaged_never_harms::<Machine, wire::Machine>(samples::machine(), &edits, cut);
        damaged_never_harms::<Plan, wire::Plan>(samples::plan(), &edits, cut);
        damaged_never_harms::<TokenRecord, wire::TokenRecord>(samples::token(), &edits, cut);
        damaged_never_harms::<ControllerStatus, wire::Status>(samples::status(), &edits, cut);
        damaged_never_harms::<AdminRecord, wire::AdminRecord>(samples::admin(), &edits, cut);
        damaged_never_harms::<PolicyRecord, wire::PolicyRecord>(samples::policy(), &edits, cut);
        damaged_never_harms::<AuditEvent, wire::AuditEvent>(samples::event(), &edits, cut);
    }
}
