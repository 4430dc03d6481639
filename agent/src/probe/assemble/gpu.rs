//! One joined GPU → [`Gpu`]: what each source says, by rank.

use muster_proto::{Bytes, DeviceKind, Gpu, GpuVendor, MemoryUser, Obstacle, ObstacleKind, PcieLink};

use super::super::pci;
use super::super::raw::{NvmlDevice, NvmlProcess, RawMachine};
use super::join::Part;
use super::obstacle;
use super::sight::{AMD_INTEGRATED, Sighting, Source};

/// The GPU, and after it its MIG slices.
pub fn gpus(raw: &RawMachine, part: &Part<'_>) -> Vec<Gpu> {
    let card = part.says(Source::Nvml, |sighting| sighting.nvml);
    let mut gpu = whole(raw, part, card);
    let Some(card) = card.filter(|card| card.mig == Some(true)) else { return vec![gpu] };
    gpu.engine_device = None;
    gpu.obstacle = Some(partitioned(card));
    let slices = card.slices.iter().enumerate().map(|(index, slice)| {
        let engine_device = part.engine.get(index).map(|device| device.name.clone());
        Gpu {
            name: slice.name.clone().unwrap_or_else(|| format!("{} slice {index}", gpu.name)),
            uuid: slice.uuid.clone(),
            memory_total: slice.memory.map(|memory| memory.total),
            memory_free: slice.memory.map(|memory| memory.free),
            mig: None,
            slice_of: gpu.uuid.clone(),
            used_by: users(&slice.processes),
            obstacle: match &engine_device {
                Some(_) => None,
                None if part.engine.is_empty() => obstacle::of(raw, part),
                None => Some(one_slice()),
            },
            engine_device,
            ..gpu.clone()
        }
    });
    let slices: Vec<Gpu> = slices.collect();
    std::iter::once(gpu).chain(slices).collect()
}

fn partitioned(card: &NvmlDevice) -> Obstacle {
    let (text, remedy) = if card.slices.is_empty() {
        (
            "it is set to MIG and has no slices",
            Some("make slices with `nvidia-smi mig -cgi`, or switch it off with `nvidia-smi -mig 0`"),
        )
    } else {
        ("it is divided into MIG slices, which are listed by themselves", None)
    };
    Obstacle { kind: ObstacleKind::Unsupported, text: text.into(), remedy: remedy.map(Into::into) }
}

fn one_slice() -> Obstacle {
    Obstacle {
        kind: ObstacleKind::Unsupported,
        text: "CUDA gives a process one MIG slice, and this is another one".into(),
        remedy: Some("set CUDA_VISIBLE_DEVICES to this slice's UUID to use it instead".into()),
    }
}

fn whole(raw: &RawMachine, part: &Part<'_>, card: Option<&NvmlDevice>) -> Gpu {
    let vendor = part.vendor();
    let kind = kind(part, vendor);
    let integrated = kind == DeviceKind::IntegratedGpu;
    let (memory_total, memory_free) = own_memory(part, integrated);
    let id = part.id();
    let driver = driver(part);
    Gpu {
        name: name(part, vendor, id),
        vendor,
        kind,
        pci_bus_id: part.bus().map(ToOwned::to_owned),
        pci_id: id.filter(|id| id.1 != 0).map(|(vendor, device)| pci::id(vendor, device)),
        uuid: [Source::Nvml, Source::Drm]
            .iter()
            .find_map(|source| part.says(*source, |sighting| sighting.uuid.clone())),
        driver,
        memory_total,
        memory_free,
        memory_shared: shared_memory(raw, part, integrated, vendor),
        unified_memory: integrated,
        compute_capability: card
            .and_then(|card| card.compute_capability)
            .map(|(major, minor)| format!("{major}.{minor}")),
        cuda_version: card.and(raw.nvml.ok()).and_then(|answers| answers.cuda_version).map(cuda),
        pcie: if integrated { None } else { link(part) },
        power_limit_watts: card.and_then(|card| card.power_limit_milliwatts).map(|limit| f64::from(limit) / 1000.0),
        temperature_celsius: card.and_then(|card| card.temperature_celsius).map(f64::from),
        throttle_reasons: card.and_then(|card| card.throttle_reasons.clone()).unwrap_or_default(),
        ecc: card.and_then(|card| card.ecc),
        mig: card.and_then(|card| card.mig),
        slice_of: None,
        used_by: card.map(|card| users(&card.processes)).unwrap_or_default(),
        engine_device: part.engine.first().map(|device| device.name.clone()),
        obstacle: if part.engine.is_empty() { obstacle::of(raw, part) } else { None },
        sources: sources(part),
    }
}

fn sources(part: &Part<'_>) -> Vec<String> {
    let mut sources: Vec<Source> = part.sightings.iter().map(|sighting| sighting.source).collect();
    sources.extend((!part.engine.is_empty()).then_some(Source::Ggml));
    sources.sort();
    sources.dedup();
    sources.into_iter().map(|source| source.word().to_owned()).collect()
}

/// `13000` → `13.0`.
fn cuda(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Sources that know what they say of it: the memory's own kind first, then how it is wired, then drivers.
fn kind(part: &Part<'_>, vendor: GpuVendor) -> DeviceKind {
    let order = [Source::Nvml, Source::Drm, Source::Metal, Source::Dxgi, Source::Vulkan];
    let told = order.iter().find_map(|source| part.says(*source, |sighting| sighting.kind));
    told.or_else(|| part.engine.first().map(|device| device.kind)).unwrap_or(match (vendor, part.id()) {
        (GpuVendor::Apple | GpuVendor::Qualcomm, _) => DeviceKind::IntegratedGpu,
        (GpuVendor::Amd, Some((_, device))) if AMD_INTEGRATED.contains(&device) => DeviceKind::IntegratedGpu,
        _ => DeviceKind::DiscreteGpu,
    })
}

fn name(part: &Part<'_>, vendor: GpuVendor, id: Option<(u32, u32)>) -> String {
    let order = [Source::Nvml, Source::Metal, Source::Dxgi, Source::Vulkan];
    let of = |source: &Source| part.says(*source, |sighting| sighting.name.clone());
    let told = order.iter().find_map(of).map(|name| without_driver(&name).to_owned());
    told.or_else(|| part.engine.first().map(|device| without_driver(&device.description).to_owned()))
        .or_else(|| of(&Source::Registry))
        .or_else(|| of(&Source::Drm).map(|name| from_table(&name, vendor)))
        .unwrap_or_else(|| match id {
            Some((number, device)) if device != 0 => format!("{} {}", maker(vendor), pci::id(number, device)),
            _ => maker(vendor).to_owned(),
        })
}

const fn maker(vendor: GpuVendor) -> &'static str {
    match vendor {
        GpuVendor::Nvidia => "NVIDIA GPU",
        GpuVendor::Amd => "AMD GPU",
        GpuVendor::Intel => "Intel GPU",
        GpuVendor::Apple => "Apple GPU",
        GpuVendor::Qualcomm => "Qualcomm GPU",
        _ => "display adapter",
    }
}

/// `AMD Radeon RX 7900 XTX (RADV NAVI31)` → `AMD Radeon RX 7900 XTX`.
fn without_driver(name: &str) -> &str {
    name.split_once(" (RADV").map_or(name, |(name, _)| name).trim()
}

/// `AD102 [GeForce RTX 4090]` → `NVIDIA GeForce RTX 4090`.
fn from_table(name: &str, vendor: GpuVendor) -> String {
    let inner = name.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(name, |(inner, _)| inner);
    match vendor {
        GpuVendor::Nvidia => format!("NVIDIA {inner}"),
        GpuVendor::Amd => format!("AMD {inner}"),
        GpuVendor::Intel => format!("Intel {inner}"),
        _ => inner.to_owned(),
    }
}

/// All and free, from one source where it has both.
fn own_memory(part: &Part<'_>, integrated: bool) -> (Option<Bytes>, Option<Bytes>) {
    // Of a chip in the processor only firmware's share is its own: what drivers call its memory is the machine's.
    let trusted = |sighting: &&Sighting<'_>| {
        !integrated || matches!(sighting.source, Source::Drm | Source::Dxgi | Source::Registry)
    };
    let trusted: Vec<&Sighting<'_>> = part.sightings.iter().filter(trusted).collect();
    let engine = part.engine.first().filter(|_| !integrated);
    let whole = trusted
        .iter()
        .find(|sighting| sighting.total.is_some_and(|total| total > Bytes::ZERO))
        .and_then(|sighting| Some((sighting.total?, sighting.free)));
    let Some((total, free)) = whole else {
        return (engine.and_then(|device| device.memory_total), engine.and_then(|device| device.memory_free));
    };
    let free = free
        .or_else(|| trusted.iter().find_map(|sighting| sighting.free))
        .or_else(|| engine.and_then(|device| device.memory_free));
    (Some(total), free.map(|free| free.min(total)))
}

fn shared_memory(raw: &RawMachine, part: &Part<'_>, integrated: bool, vendor: GpuVendor) -> Option<Bytes> {
    let order = [Source::Drm, Source::Metal, Source::Dxgi, Source::Vulkan];
    let told = order.iter().find_map(|source| part.says(*source, |sighting| sighting.shared));
    if !integrated {
        return told;
    }
    let engine = part.engine.first().and_then(|device| device.memory_total);
    // NVIDIA's chips use all of main memory, whatever heap a driver shows.
    let whole = Some(raw.system.memory_total).filter(|total| vendor == GpuVendor::Nvidia && *total > Bytes::ZERO);
    let shared = whole.or(told).or(engine)?;
    // Some drivers count more than there is.
    Some(if raw.system.memory_total > Bytes::ZERO { shared.min(raw.system.memory_total) } else { shared })
}

/// `nvidia 580.95.05`, `amdgpu (Mesa 25.0.7)`, `32.0.15.6094`.
fn driver(part: &Part<'_>) -> Option<String> {
    if let Some(nvidia) = part.says(Source::Nvml, |sighting| sighting.driver.clone()) {
        return Some(nvidia);
    }
    let kernel = [Source::Drm, Source::Dxgi, Source::Registry]
        .iter()
        .find_map(|source| part.says(*source, |sighting| sighting.driver.clone()));
    let user = part.says(Source::Vulkan, |sighting| sighting.driver.clone());
    match (kernel, user) {
        (Some(kernel), Some(user)) if part.seen_by(Source::Drm) && !kernel.contains(&user) => {
            Some(format!("{kernel} ({user})"))
        }
        (Some(kernel), _) => Some(kernel),
        (None, user) => user,
    }
}

/// Each field from the first source that has it.
fn link(part: &Part<'_>) -> Option<PcieLink> {
    let link = PcieLink {
        generation: part.first(|sighting| sighting.pcie?.generation),
        width: part.first(|sighting| sighting.pcie?.width),
        generation_max: part.first(|sighting| sighting.pcie?.generation_max),
        width_max: part.first(|sighting| sighting.pcie?.width_max),
    };
    (link != PcieLink::default()).then_some(link)
}

/// Programs, largest first, each once: one that computes and draws is listed for both with the same memory.
fn users(processes: &[NvmlProcess]) -> Vec<MemoryUser> {
    let mut users: Vec<MemoryUser> = Vec::new();
    for process in processes {
        match users.iter_mut().find(|user| user.pid == process.pid) {
            Some(user) => user.bytes = user.bytes.max(process.bytes),
            None => users.push(MemoryUser { pid: process.pid, name: process.name.clone(), bytes: process.bytes }),
        }
    }
    users.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.pid.cmp(&b.pid)));
    users
}
