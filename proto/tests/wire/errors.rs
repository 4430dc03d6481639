//! Every refusal names the field.

use bytes::Bytes as RawBytes;
use muster_proto::{
    AdminRecord, Benchmark, ControllerStatus, DesiredState, Inventory, Machine, Model, Observed, Plan, PolicyRecord,
    TokenRecord, wire,
};

use crate::samples;

/// Breaks a good message and returns the path and the reason of the refusal.
fn refusal<D, W>(value: D, break_it: impl FnOnce(&mut W)) -> (String, String)
where
    D: std::fmt::Debug + TryFrom<W, Error = wire::ConversionError>,
    W: From<D>,
{
    let mut message = W::from(value);
    break_it(&mut message);
    let wire::ConversionError { path, reason } = D::try_from(message).expect_err("a broken message");
    (path, reason)
}

fn path<D, W>(value: D, break_it: impl FnOnce(&mut W)) -> String
where
    D: std::fmt::Debug + TryFrom<W, Error = wire::ConversionError>,
    W: From<D>,
{
    refusal(value, break_it).0
}

#[test]
fn missing_messages_are_named() {
    let inventory = |f: fn(&mut wire::Inventory)| refusal::<Inventory, _>(samples::inventory(), f);
    assert_eq!(inventory(|message| message.os = None), ("os".into(), "missing".into()));
    assert_eq!(inventory(|message| message.cpu = None).0, "cpu");
    assert_eq!(inventory(|message| message.memory = None).0, "memory");

    let benchmark = |f: fn(&mut wire::BenchPoint)| {
        path::<Benchmark, wire::Benchmark>(samples::benchmark(), |message| f(&mut message.points[0]))
    };
    assert_eq!(benchmark(|point| point.model = None), "points[0].model");
    assert_eq!(benchmark(|point| point.prefill = None), "points[0].prefill");
    assert_eq!(benchmark(|point| point.decode = None), "points[0].decode");

    let desired = |f: fn(&mut wire::DesiredAssignment)| {
        path::<DesiredState, wire::DesiredState>(samples::desired(), |message| f(&mut message.assignments[0]))
    };
    assert_eq!(desired(|assignment| assignment.settings = None), "assignments[0].settings");
    assert_eq!(desired(|assignment| assignment.prediction = None), "assignments[0].prediction");
    let prediction = desired(|assignment| {
        if let Some(prediction) = &mut assignment.prediction {
            prediction.memory = None;
        }
    });
    assert_eq!(prediction, "assignments[0].prediction.memory");

    let measured = path::<Observed, wire::Observed>(samples::observed(), |message| {
        let need = message.deployments[0].measured.as_mut().and_then(|measured| measured.memory.as_mut());
        need.expect("the sample has one").host = None;
    });
    assert_eq!(measured, "deployments[0].measured.memory.host");
}

#[test]
fn ids_and_digests_of_a_wrong_length_are_named() {
    let short = RawBytes::from_static(&[1; 5]);
    let (id, reason) = refusal::<Machine, wire::Machine>(samples::machine(), |message| message.id = short.clone());
    assert_eq!((id.as_str(), reason.as_str()), ("id", "5 bytes, expected 16"));
    let (digest, reason) = refusal::<Model, wire::Model>(samples::model(), |message| {
        message.artifacts[1].quantized_from = Some(RawBytes::from_static(&[1; 33]));
    });
    assert_eq!((digest.as_str(), reason.as_str()), ("artifacts[1].quantized_from", "33 bytes, expected 32"));
    assert_eq!(path::<TokenRecord, wire::TokenRecord>(samples::token(), |message| message.id = short.clone()), "id");
    let fingerprint = |message: &mut wire::Status| message.ca_fingerprint = short.clone();
    assert_eq!(path::<ControllerStatus, _>(samples::status(), fingerprint), "ca_fingerprint");
    let planned = |message: &mut wire::Plan| message.machines[1].machine = short.clone();
    assert_eq!(path::<Plan, _>(samples::plan(), planned), "machines[1].machine");
    let twice = |message: &mut wire::Plan| message.machines[1].machine = message.machines[0].machine.clone();
    assert_eq!(path::<Plan, _>(samples::plan(), twice), "machines[1].machine");
}

#[test]
fn rates_that_are_no_rates_are_named() {
    for wrong in [f64::NAN, f64::INFINITY, -1.0] {
        let sample = path::<Benchmark, wire::Benchmark>(samples::benchmark(), |message| {
            message.points[0].prefill.as_mut().expect("the sample has one").samples[2] = wrong;
        });
        assert_eq!(sample, "points[0].prefill.samples[2]");
        let ratio = path::<Benchmark, wire::Benchmark>(samples::benchmark_of_a_laptop(), |message| {
            message.on_battery[0].decode = wrong;
        });
        assert_eq!(ratio, "on_battery[0].decode");
        let transfer = path::<Observed, wire::Observed>(samples::observed(), |message| {
            let transfer = message.deployments[0].transfer.as_mut();
            transfer.expect("the sample has one").bytes_per_second = Some(wrong);
        });
        assert_eq!(transfer, "deployments[0].transfer.bytes_per_second");
        let weight = |message: &mut wire::Model| message.artifacts[0].bits_per_weight = wrong;
        assert_eq!(path::<Model, _>(samples::model(), weight), "artifacts[0].bits_per_weight");
        let slow = path::<Plan, wire::Plan>(samples::plan(), |message| {
            let reason = wire::rejection::Reason::TooSlow(wire::TooSlow { predicted: 1.0, wanted: wrong });
            message.machines[0].candidates[0].rejected =
                Some(wire::Rejection { text: String::new(), reason: Some(reason) });
        });
        assert_eq!(slow, "machines[0].candidates[0].rejected.too_slow.wanted");
    }
    let none = path::<Benchmark, wire::Benchmark>(samples::benchmark(), |message| {
        message.points[0].decode = Some(wire::Spread { samples: vec![] });
    });
    assert_eq!(none, "points[0].decode.samples");
}

#[test]
fn figures_of_a_quality_that_are_none_are_named() {
    let quality = |break_it: fn(&mut wire::Quality, &mut wire::Divergence)| {
        path::<Model, wire::Model>(samples::model_with_quality(), |message| {
            let quality = message.artifacts[1].quality.as_mut().expect("the sample has one");
            let mut divergence = quality.divergence.take().expect("the sample has one");
            break_it(quality, &mut divergence);
            quality.divergence.get_or_insert(divergence);
        })
    };
    assert_eq!(quality(|_, found| found.mean = None), "artifacts[1].quality.divergence.mean");
    assert_eq!(quality(|_, found| found.p999 = f64::INFINITY), "artifacts[1].quality.divergence.p999");
    let error = quality(|_, found| found.mean = Some(wire::Statistic { value: 0.1, error: -1.0 }));
    assert_eq!(error, "artifacts[1].quality.divergence.mean.error");
    let long = quality(|quality, _| quality.text = "x".repeat(wire::TEXT_MAX + 1));
    assert_eq!(long, "artifacts[1].quality.text");
    assert_eq!(quality(|quality, _| quality.source = RawBytes::from_static(&[1; 5])), "artifacts[1].quality.source");
}

#[test]
fn floods_are_refused() {
    let long = || "x".repeat(wire::TEXT_MAX + 1);
    let hostname = |message: &mut wire::Inventory| message.hostname = long();
    assert_eq!(path::<Inventory, _>(samples::inventory(), hostname), "hostname");
    let feature = path::<Inventory, wire::Inventory>(samples::inventory(), |message| {
        message.cpu.as_mut().expect("the sample has one").features.push(long());
    });
    assert_eq!(feature, "cpu.features[2]");
    let devices = |message: &mut wire::Inventory| {
        message.devices = vec![message.devices[0].clone(); wire::LIST_MAX + 1];
    };
    assert_eq!(path::<Inventory, _>(samples::inventory(), devices), "devices");
    let flood = path::<Benchmark, wire::Benchmark>(samples::benchmark(), |message| {
        message.points[0].decode = Some(wire::Spread { samples: vec![1.0; wire::SAMPLES_MAX + 1] });
    });
    assert_eq!(flood, "points[0].decode.samples");
    let toml = |message: &mut wire::PolicyRecord| message.toml = "#".repeat(wire::POLICY_MAX + 1);
    assert_eq!(path::<PolicyRecord, _>(samples::policy(), toml), "toml");
}

#[test]
fn what_would_not_print_and_read_back_is_refused() {
    let seen = |message: &mut wire::Machine| message.last_seen = Some(i64::MAX);
    assert_eq!(path::<Machine, _>(samples::machine(), seen), "last_seen");
    let name = |message: &mut wire::AdminRecord| message.name = "no spaces".into();
    assert_eq!(path::<AdminRecord, _>(samples::admin(), name), "name");
}

#[test]
fn an_error_reads_as_one_line_and_takes_the_name_of_what_holds_it() {
    let mut message = wire::Machine::from(samples::machine());
    message.inventory.as_mut().expect("the sample has one").devices[1].name = "x".repeat(5000);
    let error = Machine::try_from(message).expect_err("too long");
    assert_eq!(error.to_string(), "inventory.devices[1].name: 5000 bytes, at most 4096 are taken");
    assert_eq!(error.within("machine").path, "machine.inventory.devices[1].name");
}
