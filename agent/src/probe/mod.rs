//! What a desk is: its [`Inventory`].
//!
//! Each source is read on its own; what cannot be read is a [`ProbeFailure`], never a hole filled with a default. Entry
//! point: [`collect`].

pub mod assemble;
mod cpu;
mod fingerprint;
mod macos;
mod memory;
mod nvml;
pub mod raw;
mod windows;

use std::path::PathBuf;
use std::sync::Arc;

use muster_engine::worker::{self, WorkerCommand};
use muster_proto::{Device, Hardware, Inventory, Os, ProbeFailure};

use crate::clock;
use crate::install::disk_of;
use crate::serving::Serving;

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The model store, for its volume.
    pub store: PathBuf,
    /// How workers are started.
    pub worker: WorkerCommand,
    /// What this agent runs itself: its memory counts as free.
    pub serving: Arc<Serving>,
}

/// The name that this machine calls itself.
pub fn hostname() -> String {
    sysinfo::System::host_name().ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".to_owned())
}

/// Looks at everything once. Starts an engine worker for a moment.
pub async fn collect(probe: &Probe) -> Inventory {
    let mut failures = Vec::new();
    let mut devices = match worker::devices(&probe.worker).await {
        Ok(devices) => devices,
        Err(error) => {
            failures.push(failure("devices", &crate::error_chain(&error)));
            Vec::new()
        }
    };
    add_own_memory(&mut devices, &probe.serving);
    // NVML is a library call into a driver and may take its time.
    match tokio::task::spawn_blocking(nvml::read).await {
        Ok(Ok(cards)) => nvml::join(&mut devices, &cards),
        // Without an NVIDIA card nobody misses it.
        Ok(Err(reason)) if devices.iter().any(nvml::is_nvidia) => failures.push(failure("nvml", &reason)),
        Ok(Err(_)) => {}
        Err(error) => failures.push(failure("nvml", &error.to_string())),
    }
    let store_disk = disk_of(&probe.store)
        .map_err(|error| failures.push(failure("store_disk", &format!("{}: {error}", probe.store.display()))))
        .ok();
    let cpu = cpu::read(&mut failures);
    let memory = memory::read(&probe.serving);
    let os = Os {
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        name: sysinfo::System::long_os_version().ok(),
        kernel: sysinfo::System::kernel_version().ok(),
    };
    Inventory {
        collected_at: clock::now(),
        hostname: hostname(),
        hardware_fingerprint: fingerprint::of(&os, &cpu, memory, &devices),
        os,
        cpu,
        memory,
        devices,
        store_disk,
        engine_build: muster_engine::BUILD.into(),
        failures,
        hardware: Hardware::default(),
    }
}

fn failure(probe: &str, reason: &str) -> ProbeFailure {
    ProbeFailure { probe: probe.into(), reason: reason.into() }
}

/// What this agent's own models take on a device could be free for another plan.
fn add_own_memory(devices: &mut [Device], serving: &Serving) {
    for device in devices {
        let own = serving
            .workers()
            .values()
            .flat_map(|running| &running.loaded.memory.devices)
            .filter(|memory| memory.name == device.name)
            .map(muster_proto::DeviceMemory::total)
            .sum();
        device.memory_free = device.memory_free.map(|free| {
            let free = free.saturating_add(own);
            device.memory_total.map_or(free, |total| free.min(total))
        });
    }
}
