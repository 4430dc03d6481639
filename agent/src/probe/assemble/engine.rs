//! Which of the GPUs are llama.cpp's devices, and the list of devices without one GPU twice.

use muster_proto::{Device, DeviceKind, GpuVendor};

use super::super::pci;
use super::super::raw::RawMachine;
use super::join::Part;
use super::sight::{AMD, INTEL, NVIDIA, Sighting, Source};

/// ggml's backends, the fastest first: the one that counts where two drive the same GPU.
const BACKENDS: [&str; 7] = ["CUDA", "ROCm", "HIP", "MTL", "Metal", "SYCL", "Vulkan"];

/// Gives each part its device and returns what is left: each device once, in llama.cpp's order.
pub fn devices(raw: &RawMachine, parts: &mut Vec<Part<'_>>) -> Vec<Device> {
    let all = raw.ggml.ok().cloned().unwrap_or_default();
    // Which part each device is on.
    let mut places: Vec<Option<usize>> = Vec::new();
    for device in &all {
        let taken: Vec<usize> = places
            .iter()
            .zip(&all)
            .filter(|(_, other)| other.backend == device.backend)
            .filter_map(|(place, _)| *place)
            .collect();
        places.push(is_gpu(device).then(|| place(parts, device, &taken)));
    }
    let mut kept = Vec::new();
    for (index, device) in all.iter().enumerate() {
        let Some(part) = places[index] else {
            kept.push(device.clone());
            continue;
        };
        let beside = || (0..all.len()).filter(|other| places[*other] == Some(part));
        let best = beside().min_by_key(|other| rank(&all[*other]));
        let same_backend = best.is_some_and(|best| all[best].backend == device.backend);
        // CUDA shows each slice of a card; anything else that comes twice is the same once more.
        let places_left = parts[part].says(Source::Nvml, |s| s.nvml.map(|card| card.slices.len())).unwrap_or(0).max(1);
        if !same_backend || parts[part].engine.len() >= places_left {
            continue;
        }
        let device = known(device.clone(), &parts[part]);
        parts[part].engine.push(device.clone());
        kept.push(device);
    }
    kept
}

/// A software renderer that somebody made visible computes on the processor.
fn is_gpu(device: &Device) -> bool {
    let software = ["llvmpipe", "lavapipe", "swiftshader"];
    let description = device.description.to_ascii_lowercase();
    matches!(device.kind, DeviceKind::DiscreteGpu | DeviceKind::IntegratedGpu)
        && !software.iter().any(|name| description.contains(name))
}

fn rank(device: &Device) -> usize {
    BACKENDS.iter().position(|name| device.backend.starts_with(name)).unwrap_or(BACKENDS.len())
}

/// The part that a device is on; a new one if nothing else saw it.
fn place(parts: &mut Vec<Part<'_>>, device: &Device, taken: &[usize]) -> usize {
    let bus = device.pci_bus_id.as_deref().and_then(pci::normalize);
    let by_bus = bus.as_ref().and_then(|bus| parts.iter().position(|part| part.bus() == Some(bus)));
    if let Some(index) = by_bus {
        return index;
    }
    let vendor = vendor_of(device);
    let may = |index: usize, part: &Part<'_>| {
        !taken.contains(&index) && (bus.is_none() || part.bus().is_none()) && vendor.is_none_or(|v| v == part.vendor())
    };
    let named = |part: &Part<'_>| {
        part.sightings
            .iter()
            .filter_map(|sighting| sighting.name.as_deref())
            .any(|name| same_name(name, &device.description))
    };
    let free: Vec<usize> = (0..parts.len()).filter(|index| may(*index, &parts[*index])).collect();
    if let Some(index) = free.iter().find(|index| named(&parts[**index])) {
        return *index;
    }
    // Drivers name integrated ones differently; with one of the vendor there is no doubt.
    if let ([only], Some(_)) = (free.as_slice(), vendor) {
        return *only;
    }
    let id = vendor.and_then(number_of).map(|vendor| (vendor, 0));
    parts.push(Part {
        sightings: vec![Sighting { source: Source::Ggml, bus, id, ..Sighting::default() }],
        engine: vec![],
    });
    parts.len() - 1
}

fn vendor_of(device: &Device) -> Option<GpuVendor> {
    let backend = device.backend.as_str();
    let text = device.description.to_ascii_lowercase();
    if backend.starts_with("CUDA") || text.contains("nvidia") || text.contains("geforce") {
        Some(GpuVendor::Nvidia)
    } else if backend.starts_with("ROCm")
        || backend.starts_with("HIP")
        || text.contains("amd")
        || text.contains("radeon")
    {
        Some(GpuVendor::Amd)
    } else if backend.starts_with("SYCL") || text.contains("intel") {
        Some(GpuVendor::Intel)
    } else if text.contains("apple") {
        Some(GpuVendor::Apple)
    } else {
        None
    }
}

const fn number_of(vendor: GpuVendor) -> Option<u32> {
    match vendor {
        GpuVendor::Nvidia => Some(NVIDIA),
        GpuVendor::Amd => Some(AMD),
        GpuVendor::Intel => Some(INTEL),
        GpuVendor::Apple => Some(0x106b),
        _ => None,
    }
}

/// The same words, whatever marks and brackets stand between them, or one a part of the other.
fn same_name(ours: &str, theirs: &str) -> bool {
    let plain = |name: &str| -> String {
        let name = name.to_ascii_lowercase().replace("(r)", "").replace("(tm)", "");
        name.split(" (").next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect()
    };
    let (ours, theirs) = (plain(ours), plain(theirs));
    ours == theirs && !ours.is_empty()
}

/// Adds what other sources know of the very card.
fn known(mut device: Device, part: &Part<'_>) -> Device {
    let version = |text: String| text.strip_prefix("nvidia ").map(ToOwned::to_owned).unwrap_or(text);
    let nvml = |of: fn(&Sighting<'_>) -> Option<String>| part.says(Source::Nvml, of);
    device.uuid = device.uuid.take().or_else(|| nvml(|sighting| sighting.uuid.clone()));
    device.driver = device
        .driver
        .take()
        .or_else(|| nvml(|sighting| sighting.driver.clone()).map(version))
        .or_else(|| part.says(Source::Vulkan, |sighting| sighting.driver.clone()));
    device.pci_bus_id =
        device.pci_bus_id.as_deref().and_then(pci::normalize).or_else(|| part.bus().map(ToOwned::to_owned));
    device
}
