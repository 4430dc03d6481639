//! The first version, frozen under `tests/frozen`: its descriptors and one sample of every message that is sent by itself.
//! `MUSTER_FREEZE=1 cargo test -p muster-proto --all-features` writes the files; nobody does so once a version is out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use muster_proto::{AdminRecord, AuditEvent, ControllerStatus, Machine, Model, PolicyRecord, TokenRecord, wire};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

use crate::samples;

const CURRENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/muster.binpb"));

fn frozen(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/frozen").join(name)
}

/// The frozen bytes; written first if this run is to freeze them.
fn frozen_bytes(name: &str, now: &[u8]) -> Vec<u8> {
    let path = frozen(name);
    if std::env::var_os("MUSTER_FREEZE").is_some() {
        std::fs::write(&path, now).expect("the folder of frozen files is writable");
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The frozen bytes still mean this message.
fn still_means<W: Message + Default + PartialEq + std::fmt::Debug>(name: &str, message: &W) {
    let bytes = frozen_bytes(&format!("{name}.bin"), &message.encode_to_vec());
    assert_eq!(&W::decode(bytes.as_slice()).expect(name), message, "{name}");
}

/// The frozen bytes still mean this value.
fn still_is<D, W>(name: &str, value: &D)
where
    D: Clone + std::fmt::Debug + PartialEq + TryFrom<W, Error = wire::ConversionError>,
    W: From<D> + Message + Default,
{
    let bytes = frozen_bytes(&format!("{name}.bin"), &W::from(value.clone()).encode_to_vec());
    let message = W::decode(bytes.as_slice()).expect(name);
    assert_eq!(&D::try_from(message).expect(name), value, "{name}");
}

#[test]
fn samples_of_the_first_version_still_decode() {
    for (index, message) in samples::from_agent().iter().enumerate() {
        still_means(&format!("from_agent-{}", index + 1), message);
    }
    for (index, message) in samples::to_agent().iter().enumerate() {
        still_means(&format!("to_agent-{}", index + 1), message);
    }
    for (index, message) in samples::import_request().iter().enumerate() {
        still_means(&format!("import_model_request-{}", index + 1), message);
    }
    for (index, message) in samples::import_progress().iter().enumerate() {
        still_means(&format!("import_model_progress-{}", index + 1), message);
    }
    still_means("enrol_request", &samples::enrol_request());
    still_means("enrol_response", &samples::enrol_response());
    still_means("renew_expired_request", &samples::renew_expired());
    still_means("plan", &wire::Plan::with_names(samples::plan(), &samples::names()));
    still_is::<Vec<Machine>, wire::ListMachinesResponse>("list_machines_response", &vec![samples::machine()]);
    still_is::<Vec<Model>, wire::ListModelsResponse>("list_models_response", &vec![samples::model()]);
    still_is::<Vec<TokenRecord>, wire::ListTokensResponse>("list_tokens_response", &vec![samples::token()]);
    still_is::<Vec<AdminRecord>, wire::ListAdminsResponse>("list_admins_response", &vec![samples::admin()]);
    still_is::<Vec<AuditEvent>, wire::ListAuditEventsResponse>("list_audit_events_response", &vec![samples::event()]);
    still_is::<ControllerStatus, wire::Status>("status", &samples::status());
    still_is::<PolicyRecord, wire::PolicyRecord>("policy_record", &samples::policy());
}

/// The arms of FromAgent and ToAgent that carry domain values, from the frozen bytes to the values.
#[test]
fn what_agents_of_the_first_version_say_still_converts() {
    let message = |name: &str| std::fs::read(frozen(&format!("{name}.bin"))).expect(name);
    let said = |name: &str| wire::FromAgent::decode(message(name).as_slice()).expect(name).message;
    let Some(wire::from_agent::Message::Inventory(inventory)) = said("from_agent-2") else { panic!("no inventory") };
    assert_eq!(inventory.try_into(), Ok(samples::inventory()));
    let Some(wire::from_agent::Message::Benchmark(benchmark)) = said("from_agent-3") else { panic!("no benchmark") };
    assert_eq!(benchmark.try_into(), Ok(samples::benchmark()));
    let Some(wire::from_agent::Message::Observed(observed)) = said("from_agent-4") else { panic!("no observed") };
    assert_eq!(observed.try_into(), Ok(samples::observed()));
    let told = wire::ToAgent::decode(message("to_agent-2").as_slice()).expect("to_agent-2").message;
    let Some(wire::to_agent::Message::DesiredState(desired)) = told else { panic!("no desired state") };
    assert_eq!(desired.try_into(), Ok(samples::desired()));
    let plan = wire::Plan::decode(message("plan").as_slice()).expect("plan");
    assert_eq!(plan.into_plan_and_names(), Ok((samples::plan(), samples::names())));
}

/// Everything that a descriptor set promises, as path → promise.
fn promises(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut promises = BTreeMap::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            message_promises(&format!("{package}.{}", message.name()), message, &mut promises);
        }
        for enumeration in &file.enum_type {
            enum_promises(&format!("{package}.{}", enumeration.name()), enumeration, &mut promises);
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |streaming: bool| if streaming { "stream " } else { "" };
                promises.insert(
                    format!("rpc {package}.{}/{}", service.name(), method.name()),
                    format!(
                        "({}{}) returns ({}{})",
                        stream(method.client_streaming()),
                        method.input_type(),
                        stream(method.server_streaming()),
                        method.output_type()
                    ),
                );
            }
        }
    }
    promises
}

fn message_promises(path: &str, message: &DescriptorProto, promises: &mut BTreeMap<String, String>) {
    promises.insert(format!("message {path}"), String::new());
    for field in &message.field {
        let oneof = match field.oneof_index {
            Some(index) if !field.proto3_optional() => {
                message.oneof_decl[usize::try_from(index).expect("an index")].name().to_owned()
            }
            _ => String::new(),
        };
        let label = Label::try_from(field.label() as i32).expect("a label");
        let kind = Type::try_from(field.r#type() as i32).expect("a type");
        promises.insert(
            format!("field {path} = {}", field.number()),
            format!(
                "{} {} {} {} optional={} oneof={oneof}",
                field.name(),
                label.as_str_name(),
                kind.as_str_name(),
                field.type_name(),
                field.proto3_optional()
            ),
        );
    }
    for nested in &message.nested_type {
        message_promises(&format!("{path}.{}", nested.name()), nested, promises);
    }
    for nested in &message.enum_type {
        enum_promises(&format!("{path}.{}", nested.name()), nested, promises);
    }
}

fn enum_promises(path: &str, enumeration: &EnumDescriptorProto, promises: &mut BTreeMap<String, String>) {
    promises.insert(format!("enum {path}"), String::new());
    for value in &enumeration.value {
        promises.insert(format!("value {path} = {}", value.number()), value.name().to_owned());
    }
}

/// Every promise of `old` that `new` does not keep.
fn broken(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let new = promises(new);
    promises(old)
        .into_iter()
        .filter(|(path, promise)| new.get(path) != Some(promise))
        .map(|(path, promise)| format!("{path}: was {promise:?}, is {:?}", new.get(&path)))
        .collect()
}

fn first_version() -> FileDescriptorSet {
    FileDescriptorSet::decode(frozen_bytes("v1.binpb", CURRENT).as_slice()).expect("frozen descriptors")
}

#[test]
fn the_first_version_is_still_spoken() {
    let current = FileDescriptorSet::decode(CURRENT).expect("descriptors of this build");
    assert_eq!(broken(&first_version(), &current), Vec::<String>::new());
}

#[test]
fn every_kind_of_break_is_noticed() {
    let old = first_version();
    assert!(promises(&old).len() > 250, "only {} promises were read", promises(&old).len());
    let breaks: [fn(&mut FileDescriptorSet); 9] = [
        |set| drop(set.file[0].message_type.remove(3)),
        |set| drop(set.file[0].message_type[0].field.remove(0)),
        |set| set.file[0].message_type[0].field[0].number = Some(77),
        |set| set.file[0].message_type[0].field[0].name = Some("other".into()),
        |set| set.file[0].message_type[0].field[0].set_type(Type::String),
        |set| set.file[0].message_type[0].field[0].set_label(Label::Repeated),
        |set| drop(set.file[0].enum_type[0].value.pop()),
        |set| drop(set.file[0].service[0].method.pop()),
        |set| set.file[0].service[0].method[0].server_streaming = Some(true),
    ];
    for (index, break_it) in breaks.iter().enumerate() {
        let mut new = old.clone();
        break_it(&mut new);
        assert!(!broken(&old, &new).is_empty(), "break {index} was not noticed");
    }
    let mut grown = old.clone();
    let mut added = grown.file[0].message_type[0].field[0].clone();
    added.name = Some("added_later".into());
    added.number = Some(100);
    grown.file[0].message_type[0].field.push(added);
    assert_eq!(broken(&old, &grown), Vec::<String>::new());
}
