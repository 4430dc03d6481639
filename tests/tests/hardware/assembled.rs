//! What the agent makes of the probes' answers.

use std::collections::{BTreeMap, BTreeSet};

use muster_agent::probe::assemble::{Assembled, assemble};
use muster_agent::probe::raw::{ProbeResult, RawMachine};
use serde::Serialize;
use serde_json::Value;

use super::corpus::{Captured, machines};

/// What every expected GPU must state.
const STATED: [&str; 8] =
    ["name", "vendor", "kind", "memory_total", "memory_shared", "unified_memory", "engine_device", "obstacle"];
/// Beginnings of quirks, each of which some file must stand for.
const QUIRKS: [&str; 38] = [
    "VRAM capped at 4 GiB",
    "iGPU taken for the GPU",
    "one iGPU counted six times",
    "one iGPU by two drivers",
    "one card by two backends",
    "CPU counted as a GPU: llvmpipe",
    "CPU counted as a GPU: SwiftShader",
    "CPU counted as a GPU: Microsoft Basic Render Driver",
    "GTT ignored",
    "unified memory: Strix Halo",
    "unified memory: GB10",
    "unified memory: Apple",
    "Intel Mac with two GPUs",
    "halved size",
    "doubled size",
    "mixed vendors",
    "two equal cards",
    "laptop with two GPUs, on battery",
    "laptop with two GPUs, on mains",
    "driver missing: nouveau",
    "driver missing: none bound",
    "driver missing: no Vulkan ICD",
    "no permission on the render node",
    "driver/library version mismatch",
    "NVML symbols missing",
    "one NVML field failing",
    "card fell off the bus",
    "NVML timing out",
    "MIG with slices",
    "ECC datacenter card without display",
    "server's BMC as the only adapter",
    "VM without GPU",
    "VM with passthrough",
    "RDP session on Windows",
    "Windows on ARM",
    "WSL2",
    "container without /dev/dri",
    "eGPU",
];
/// The rest of them.
const MORE_QUIRKS: [&str; 7] = [
    "Intel Arc discrete",
    "Intel iGPU only",
    "old Kepler card unsupported",
    "xe driver",
    "ROCm only build",
    "CUDA only build",
    "virtual displays counted as GPUs",
];

#[test]
fn every_machine_comes_to_what_it_is() {
    let mut wrong = Vec::new();
    let machines = machines();
    for (name, machine) in &machines {
        let came = assemble(&machine.raw);
        compare(machine, &came, &mut |field, text| wrong.push(format!("{name}.json: {field}: {text}")));
    }
    assert!(wrong.is_empty(), "{} of {} machines' facts:\n{}", wrong.len(), machines.len(), wrong.join("\n"));
}

#[test]
fn the_corpus_holds_every_quirk_and_says_where_it_is_from() {
    let machines = machines();
    assert!(machines.len() >= 32, "{} machines", machines.len());
    let stated: BTreeSet<&str> = machines.values().flat_map(|machine| &machine.quirks).map(String::as_str).collect();
    for quirk in QUIRKS.iter().chain(&MORE_QUIRKS) {
        assert!(stated.contains(quirk), "no machine stands for {quirk:?}");
    }
    for (name, machine) in &machines {
        let provenance = &machine.raw.provenance;
        let from = ["captured on ", "made from "].iter().any(|start| provenance.starts_with(start));
        assert!(from, "{name}.json: where is it from? {provenance:?}");
        assert!(!machine.quirks.is_empty(), "{name}.json stands for nothing");
        for gpu in &machine.expected.gpus {
            let missing: Vec<_> = STATED.iter().filter(|field| !gpu.contains_key(**field)).collect();
            assert!(missing.is_empty(), "{name}.json: a GPU does not state {missing:?}");
        }
    }
}

/// Whatever answers in whatever order, and whichever probe fails: no GPU twice, and no other GPUs.
#[test]
fn no_gpu_is_there_twice_whatever_fails() {
    for (name, machine) in &machines() {
        let whole = buses(&assemble(&machine.raw));
        for (what, raw) in &variants(&machine.raw) {
            let came = assemble(raw);
            let found = buses(&came);
            let mut once = found.clone();
            once.dedup();
            assert_eq!(found, once, "{name}.json {what}: a GPU twice");
            for bus in &found {
                assert!(whole.contains(bus), "{name}.json {what}: {bus} is new");
            }
            assert!(
                came.gpus.iter().all(|gpu| gpu.engine_device.is_none() || gpu.obstacle.is_none()),
                "{name}.json {what}: an obstacle to what works"
            );
        }
        let mut turned = machine.raw.clone();
        if let ProbeResult::Ok(answers) = &mut turned.vulkan {
            answers.adapters.reverse();
        }
        assert_eq!(buses(&assemble(&turned)), whole, "{name}.json: Vulkan's order matters");
    }
}

/// The machine with one probe failing at a time.
fn variants(raw: &RawMachine) -> Vec<(&'static str, RawMachine)> {
    let mut variants = Vec::new();
    let mut without = |what, change: fn(&mut RawMachine)| {
        let mut raw = raw.clone();
        change(&mut raw);
        variants.push((what, raw));
    };
    without("without drm", |raw| raw.drm = ProbeResult::failed("test"));
    without("without nvml", |raw| raw.nvml = ProbeResult::TimedOut { after_ms: 8000 });
    without("without vulkan", |raw| raw.vulkan = ProbeResult::failed("test"));
    without("without ggml", |raw| raw.ggml = ProbeResult::failed("test"));
    without("without dxgi", |raw| raw.dxgi = ProbeResult::failed("test"));
    without("without registry", |raw| raw.registry = ProbeResult::failed("test"));
    without("without metal", |raw| raw.metal = ProbeResult::failed("test"));
    variants
}

/// PCI addresses of the whole GPUs, sorted.
fn buses(machine: &Assembled) -> Vec<String> {
    let whole = machine.gpus.iter().filter(|gpu| gpu.slice_of.is_none());
    let mut buses: Vec<String> = whole.filter_map(|gpu| gpu.pci_bus_id.clone()).collect();
    buses.sort();
    buses
}

fn compare(machine: &Captured, came: &Assembled, tell: &mut impl FnMut(String, String)) {
    let expected = &machine.expected;
    let names: Vec<&str> = came.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
    if came.gpus.len() != expected.gpus.len() {
        tell("gpus".into(), format!("expected {}, found {names:?}", expected.gpus.len()));
    }
    for (index, (gpu, expected)) in came.gpus.iter().zip(&expected.gpus).enumerate() {
        let remedy = gpu.obstacle.as_ref().and_then(|obstacle| obstacle.remedy.as_deref()).unwrap_or_default();
        let mut expected = expected.clone();
        if let Some(Value::String(part)) = expected.remove("remedy")
            && !remedy.contains(&part)
        {
            tell(format!("gpus[{index}].remedy"), format!("{remedy:?} does not say {part:?}"));
        }
        expected.remove("remedy");
        let mut found = fields(gpu);
        found.insert("obstacle".into(), kind_of(found.get("obstacle")));
        differ(&format!("gpus[{index}]"), &expected, &found, tell);
    }
    let devices: Vec<&str> = came.devices.iter().map(|device| device.name.as_str()).collect();
    if devices != expected.devices {
        tell("devices".into(), format!("expected {:?}, found {devices:?}", expected.devices));
    }
    differ("chassis", &expected.chassis, &fields(&came.chassis), tell);
    if came.remote_session != Some(expected.remote_session) {
        tell("remote_session".into(), format!("{:?}", came.remote_session));
    }
    let fits = |expected: &super::corpus::ExpectedFailure| {
        came.failures.iter().any(|failure| failure.probe == expected.probe && failure.reason.contains(&expected.says))
    };
    if came.failures.len() != expected.failures.len() || !expected.failures.iter().all(fits) {
        tell("failures".into(), format!("expected {:?}, found {:?}", expected.failures, came.failures));
    }
}

fn kind_of(obstacle: Option<&Value>) -> Value {
    obstacle.and_then(|obstacle| obstacle.get("kind")).cloned().unwrap_or(Value::Null)
}

fn fields(value: &impl Serialize) -> BTreeMap<String, Value> {
    match serde_json::to_value(value).expect("serializes") {
        Value::Object(map) => map.into_iter().collect(),
        other => panic!("{other} has no fields"),
    }
}

fn differ(
    whose: &str,
    expected: &BTreeMap<String, Value>,
    found: &BTreeMap<String, Value>,
    tell: &mut impl FnMut(String, String),
) {
    for (field, value) in expected {
        let is = found.get(field).unwrap_or(&Value::Null);
        if is != value {
            tell(format!("{whose}.{field}"), format!("expected {value}, found {is}"));
        }
    }
}
