//! What could not be read, as far as anybody misses it.

use muster_proto::{Gpu, GpuVendor, ObstacleKind, ProbeFailure};

use super::super::raw::{ProbeResult, RawMachine};
use super::join::Part;
use super::sight::{Source, is_software};

/// NVML's words for what a kind of card does not have: no failure.
const NOT_SUPPORTED: &str = "not available on the target device";

/// All of them. What is not installed is missed only where there is a GPU for it.
pub fn failures(raw: &RawMachine, parts: &[Part<'_>], gpus: &[Gpu]) -> Vec<ProbeFailure> {
    let mut failures = Vec::new();
    // Its library comes with NVIDIA's own driver, and is missed only beside that.
    let nvidia = gpus.iter().any(|gpu| {
        let without = gpu.obstacle.as_ref().is_some_and(|obstacle| obstacle.kind == ObstacleKind::DriverMissing);
        gpu.vendor == GpuVendor::Nvidia
            && !without
            && gpu.driver.as_deref().is_none_or(|name| !name.starts_with("nouveau"))
    });
    let apple = raw.system.platform.starts_with("macos");
    // An engine of CUDA or ROCm alone does not ask for Vulkan.
    let backends = &raw.engine.backends;
    let by_vulkan = backends.is_empty() || backends.iter().any(|name| name == "Vulkan");
    let other = gpus.iter().any(|gpu| !matches!(gpu.vendor, GpuVendor::Apple | GpuVendor::Other));
    let mut tell = |probe: &str, reason: String| failures.push(ProbeFailure { probe: probe.into(), reason });
    for (what, error) in &raw.system.errors {
        tell(what, error.clone());
    }
    report(&raw.drm, false, |reason| tell("drm", reason));
    report(&raw.nvml, nvidia, |reason| tell("nvml", reason));
    report(&raw.vulkan, other && by_vulkan && !apple, |reason| tell("vulkan", reason));
    report(&raw.ggml, true, |reason| tell("devices", reason));
    report(&raw.dxgi, true, |reason| tell("dxgi", reason));
    report(&raw.registry, true, |reason| tell("registry", reason));
    report(&raw.metal, true, |reason| tell("metal", reason));
    report(&raw.store_disk, true, |reason| tell("store_disk", reason));
    report(&raw.dmi, false, |reason| tell("dmi", reason));
    report(&raw.power, false, |reason| tell("power", reason));
    nvml_fields(raw, &mut tell);
    let told =
        |gpu: &Gpu| gpu.obstacle.as_ref().is_some_and(|obstacle| obstacle.kind == ObstacleKind::SoftwareRenderer);
    if !gpus.iter().any(told) {
        software(raw, parts, &mut tell);
    }
    failures
}

fn report<T>(answer: &ProbeResult<T>, missed: bool, tell: impl FnOnce(String)) {
    match answer {
        ProbeResult::Failed { reason, absent } if missed || !absent => tell(reason.clone()),
        ProbeResult::TimedOut { after_ms } => {
            tell(format!("no answer within {} s; it was killed", after_ms.div_ceil(1000)));
        }
        _ => {}
    }
}

/// Fields of NVML that failed, one line a card.
fn nvml_fields(raw: &RawMachine, tell: &mut impl FnMut(&str, String)) {
    let Some(answers) = raw.nvml.ok() else { return };
    let list = |errors: &std::collections::BTreeMap<String, String>| -> Vec<String> {
        let errors = errors.iter().filter(|(_, error)| !error.contains(NOT_SUPPORTED));
        errors.map(|(field, error)| format!("{field}: {error}")).collect()
    };
    let own = list(&answers.errors);
    if !own.is_empty() {
        tell("nvml", own.join("; "));
    }
    for card in &answers.devices {
        let all = std::iter::once(card).chain(&card.slices).flat_map(|card| list(&card.errors));
        let errors: Vec<String> = all.collect();
        if !errors.is_empty() {
            tell("nvml", format!("card {}: {}", card.index, errors.join("; ")));
        }
    }
}

/// A software renderer where Vulkan has nothing else: people take it for a GPU.
fn software(raw: &RawMachine, parts: &[Part<'_>], tell: &mut impl FnMut(&str, String)) {
    let Some(answers) = raw.vulkan.ok() else { return };
    if parts.iter().any(|part| part.seen_by(Source::Vulkan)) {
        return;
    }
    if let Some(adapter) = answers.adapters.iter().find(|adapter| is_software(adapter)) {
        tell("vulkan", format!("only a software renderer answers ({}): it is the processor, not a GPU", adapter.name));
    }
}
