//! Peers one version newer or older: what they know more is kept or skipped, what they know less is absent.

use muster_proto::{
    DeploymentState, DesiredState, DeviceKind, EnrolmentState, Inventory, KvType, Machine, Observed, Rejection,
    RejectionReason, wire,
};
use prost::Message;

use crate::samples;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// One field as a newer peer would write it.
fn length_delimited(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

/// Fields of every wire type with numbers that version 1 does not have.
fn unknown_fields() -> Vec<u8> {
    let mut out = length_delimited(900, b"a newer field");
    varint(901 << 3, &mut out);
    varint(u64::MAX, &mut out);
    varint(902 << 3 | 1, &mut out);
    out.extend_from_slice(&1.5_f64.to_le_bytes());
    varint(903 << 3 | 5, &mut out);
    out.extend_from_slice(&7_u32.to_le_bytes());
    out
}

#[test]
fn unknown_fields_are_skipped_on_every_level() {
    let mut bytes = wire::Machine::from(samples::machine()).encode_to_vec();
    bytes.extend(unknown_fields());
    // A second occurrence of a message field is merged into the first: this puts unknown fields into the inventory, its
    // processor, and the measured deployments' parent.
    bytes.extend(length_delimited(8, &unknown_fields()));
    bytes.extend(length_delimited(8, &length_delimited(5, &unknown_fields())));
    bytes.extend(length_delimited(11, &unknown_fields()));
    let message = wire::Machine::decode(bytes.as_slice()).expect("unknown fields are no error");
    assert_eq!(Machine::try_from(message), Ok(samples::machine()));
}

#[test]
fn unknown_enum_values_are_kept_as_their_numbers() {
    for number in [99, -1, i32::MAX] {
        let mut inventory = wire::Inventory::from(samples::inventory());
        inventory.devices[0].kind = number;
        let domain = Inventory::try_from(decoded(&inventory)).expect("an unknown kind is no error");
        assert_eq!(domain.devices[0].kind, DeviceKind::Unrecognized(number));
        assert_eq!(wire::Inventory::from(domain), inventory);

        let mut observed = wire::Observed::from(samples::observed());
        observed.deployments[0].state = number;
        let domain = Observed::try_from(decoded(&observed)).expect("an unknown state is no error");
        assert_eq!(domain.deployments[0].state, DeploymentState::Unrecognized(number));
        assert_eq!(wire::Observed::from(domain), observed);

        let mut desired = wire::DesiredState::from(samples::desired());
        desired.assignments[0].settings.as_mut().expect("the sample has them").kv_type = number;
        let domain = DesiredState::try_from(decoded(&desired)).expect("an unknown type is no error");
        assert_eq!(domain.assignments[0].settings.kv_type, KvType::Unrecognized(number));
        assert_eq!(wire::DesiredState::from(domain), desired);

        let mut machine = wire::Machine::from(samples::machine());
        machine.enrolment = number;
        let domain = Machine::try_from(decoded(&machine)).expect("an unknown state is no error");
        assert_eq!(domain.enrolment, EnrolmentState::Unrecognized(number));
        assert_eq!(wire::Machine::from(domain), machine);
    }
}

fn decoded<W: Message + Default>(message: &W) -> W {
    W::decode(message.encode_to_vec().as_slice()).expect("its own bytes decode")
}

#[test]
fn the_numbers_of_both_sides_agree() {
    use wire::{
        DeploymentState as WireState, DeviceKind as WireKind, EnrolmentState as WireEnrolment, KvType as WireKv,
    };
    for number in 1..20 {
        let known = |unrecognized: bool, on_wire: bool| assert_eq!(!unrecognized, on_wire, "number {number}");
        known(
            matches!(DeploymentState::from_number(number), DeploymentState::Unrecognized(_)),
            WireState::try_from(number).is_ok(),
        );
        known(
            matches!(DeviceKind::from_number(number), DeviceKind::Unrecognized(_)),
            WireKind::try_from(number).is_ok(),
        );
        known(
            matches!(EnrolmentState::from_number(number), EnrolmentState::Unrecognized(_)),
            WireEnrolment::try_from(number).is_ok(),
        );
        known(matches!(KvType::from_number(number), KvType::Unrecognized(_)), WireKv::try_from(number).is_ok());
        if let Ok(state) = WireState::try_from(number) {
            let word = DeploymentState::from_number(number).word().to_uppercase();
            assert_eq!(state.as_str_name(), format!("DEPLOYMENT_STATE_{word}"));
        }
        if let Ok(kind) = WireKind::try_from(number) {
            let word = DeviceKind::from_number(number).word().to_uppercase();
            assert_eq!(kind.as_str_name(), format!("DEVICE_KIND_{word}"));
        }
        if let Ok(state) = WireEnrolment::try_from(number) {
            let word = EnrolmentState::from_number(number).word().to_uppercase();
            assert_eq!(state.as_str_name(), format!("ENROLMENT_STATE_{word}"));
        }
        if let Ok(kv_type) = WireKv::try_from(number) {
            let word = KvType::from_number(number).word().to_uppercase();
            assert_eq!(kv_type.as_str_name(), format!("KV_TYPE_{word}"));
        }
    }
}

#[test]
fn unknown_oneof_arms_decode_to_no_message() {
    let bytes = length_delimited(90, &wire::Heartbeat {}.encode_to_vec());
    assert_eq!(wire::FromAgent::decode(bytes.as_slice()), Ok(wire::FromAgent { message: None }));
    assert_eq!(wire::ToAgent::decode(bytes.as_slice()), Ok(wire::ToAgent { message: None }));
    let progress = wire::ImportModelProgress::decode(bytes.as_slice());
    assert_eq!(progress, Ok(wire::ImportModelProgress { message: None }));
}

#[test]
fn an_unknown_reason_is_kept_in_its_words() {
    let mut bytes = wire::Rejection { text: "the fan is too loud".into(), reason: None }.encode_to_vec();
    bytes.extend(length_delimited(40, b"\x08\x2a"));
    let message = wire::Rejection::decode(bytes.as_slice()).expect("an unknown arm is no error");
    let rejection = Rejection::try_from(message).expect("an unknown reason is no error");
    assert_eq!(rejection.reason, RejectionReason::Other { text: "the fan is too loud".into() });
    assert_eq!(wire::Rejection::from(rejection).text, "the fan is too loud");
}

#[test]
fn an_older_peer_that_measures_less_is_taken() {
    // Only what every version has to say: the rest was added later for all that this side knows.
    let message = wire::Inventory {
        hostname: "desk-1".into(),
        os: Some(wire::Os::default()),
        cpu: Some(wire::Cpu::default()),
        memory: Some(wire::Memory::default()),
        devices: vec![wire::Device { name: "CPU".into(), ..Default::default() }],
        ..Default::default()
    };
    let inventory = Inventory::try_from(message).expect("a small inventory");
    assert_eq!(inventory.devices[0].kind, DeviceKind::Unrecognized(0));
    assert_eq!(inventory.devices[0].memory_free, None);
    assert_eq!(inventory.store_disk, None);
}
