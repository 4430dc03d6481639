//! What a desk is: its [`Inventory`].
//!
//! Run, parse, assemble: [`capture`](fn@capture::capture) asks every source on its own, those that may hang or crash in a
//! [`child`] process each, and keeps what they say as a [`raw::RawMachine`]; [`assemble`](mod@assemble) joins that, without
//! asking anybody. What cannot be read is a [`ProbeFailure`](muster_proto::ProbeFailure), never a hole filled with a default.
//! Entry point: [`collect`].

pub mod assemble;
pub mod capture;
pub mod child;
mod cpu;
mod drm;
mod fingerprint;
pub mod kept;
#[cfg(unix)]
mod linux;
mod look;
mod macos;
pub(crate) mod memory;
mod nvml;
pub mod nvml_free;
pub mod nvml_use;
mod pci;
pub mod raw;
pub mod sleep;
mod windows;

use std::path::PathBuf;
use std::sync::Arc;

use muster_engine::worker::WorkerCommand;
use muster_proto::{Bytes, Cpu, Device, Gpu, Hardware, Inventory, Memory, Os};

use crate::clock;
use crate::roots::Roots;
use crate::serving::Serving;
use assemble::Assembled;
pub use look::Looker;
use raw::RawMachine;

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Where the kernel shows this machine.
    pub roots: Roots,
    /// The model store, for its volume.
    pub store: PathBuf,
    /// How workers and probes are started.
    pub worker: WorkerCommand,
    /// What this agent runs itself: its memory counts as free.
    pub serving: Arc<Serving>,
}

/// The name that this machine calls itself.
pub fn hostname() -> String {
    sysinfo::System::host_name().ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".to_owned())
}

/// Looks at everything once. Starts an engine worker and the probes' processes for a moment.
pub async fn collect(probe: &Probe) -> Inventory {
    Looker::default().look(probe, true).await
}

/// What the raw answers come to. Pure but for the moment that it is stamped with.
pub fn inventory(raw: &RawMachine) -> Inventory {
    let Assembled { gpus, chassis, remote_session, devices, failures } = assemble::assemble(raw);
    let system = &raw.system;
    let os = Os { platform: system.platform.clone(), name: system.os_name.clone(), kernel: system.kernel.clone() };
    let cpu = Cpu {
        brand: system.cpu_brand.clone(),
        physical_cores: system.physical_cores,
        threads: system.threads,
        features: system.cpu_features.clone(),
    };
    let memory = Memory { total: system.memory_total, available: system.memory_available };
    Inventory {
        collected_at: clock::now(),
        hostname: system.hostname.clone(),
        hardware_fingerprint: fingerprint::of(&os, &cpu, memory, &gpus),
        os,
        cpu,
        memory,
        devices,
        store_disk: raw.store_disk.ok().copied(),
        engine_build: muster_engine::BUILD.into(),
        failures,
        hardware: Hardware { gpus, chassis, remote_session, typical: None },
    }
}

/// What this agent's own models take on a device could be free for another plan. `serving` says what ran when the device at
/// that PCI address was read.
fn add_own_memory<'a>(devices: &mut [Device], gpus: &mut [Gpu], serving: impl Fn(Option<&str>) -> &'a Serving) {
    let own = |name: &str, bus: Option<&str>| -> Bytes {
        let workers = serving(bus).workers();
        let all = workers.values().flat_map(|running| &running.loaded.memory.devices);
        all.filter(|memory| memory.name == name).map(muster_proto::DeviceMemory::total).sum()
    };
    let more = |free: Option<Bytes>, total: Option<Bytes>, name: &str, bus: Option<&str>| {
        let free = free?.saturating_add(own(name, bus));
        Some(total.map_or(free, |total| free.min(total)))
    };
    for device in devices {
        device.memory_free = more(device.memory_free, device.memory_total, &device.name, device.pci_bus_id.as_deref());
    }
    for gpu in gpus {
        if let Some(name) = &gpu.engine_device {
            gpu.memory_free = more(gpu.memory_free, gpu.memory_total, name, gpu.pci_bus_id.as_deref());
        }
    }
}
