//! [`capture`]: asks all probes at once and keeps what they say as a [`RawMachine`].
//!
//! Which probe a system has is decided here and nowhere else. It does not know what the answers mean.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_engine::worker;
use muster_proto::Device;
use tokio::time::timeout;

#[cfg(target_os = "linux")]
use super::linux as system;
#[cfg(target_os = "macos")]
use super::macos as system;
use super::raw::{ProbeResult, RawEngine, RawMachine, RawSystem};
#[cfg(windows)]
use super::windows as system;
use super::{Probe, child, cpu, hostname, memory};
use crate::install::disk_of;

/// How long a probe may take. A driver that wakes a card needs two seconds, one that hangs never answers.
const DEADLINE: Duration = Duration::from_secs(8);
/// The same for llama.cpp's own list: its backends start all cards, one after the other.
const ENGINE_DEADLINE: Duration = Duration::from_secs(20);

/// Asks only what wakes no graphics card that sleeps: no driver.
pub async fn gently(probe: &Probe) -> RawMachine {
    let linux = cfg!(target_os = "linux");
    let (drm, local) = tokio::join!(ask(linux, &probe.worker.program, "drm-gently"), spawn_local(probe));
    RawMachine { drm, ..local }
}

/// Asks everything once, all at the same time.
pub async fn capture(probe: &Probe) -> RawMachine {
    let program = &probe.worker.program;
    let (linux, windows, macos) = (cfg!(target_os = "linux"), cfg!(windows), cfg!(target_os = "macos"));
    let (drm, nvml, vulkan, dxgi, registry, metal, ggml, local) = tokio::join!(
        ask(linux, program, "drm"),
        ask(linux || windows, program, "nvml"),
        ask(true, program, "vulkan"),
        ask(windows, program, "dxgi"),
        ask(windows, program, "registry"),
        ask(macos, program, "metal"),
        engine_devices(probe),
        spawn_local(probe),
    );
    RawMachine { drm, nvml, vulkan, ggml, dxgi, registry, metal, ..local }
}

async fn ask<T: serde::de::DeserializeOwned>(here: bool, program: &std::path::Path, name: &str) -> ProbeResult<T> {
    if here { child::ask(program, name, DEADLINE).await } else { ProbeResult::Skipped }
}

async fn engine_devices(probe: &Probe) -> ProbeResult<Vec<Device>> {
    match timeout(ENGINE_DEADLINE, worker::devices(&probe.worker)).await {
        Ok(Ok(devices)) => ProbeResult::Ok(devices),
        Ok(Err(error)) => ProbeResult::failed(crate::error_chain(&error)),
        Err(_) => ProbeResult::TimedOut { after_ms: u64::try_from(ENGINE_DEADLINE.as_millis()).unwrap_or(u64::MAX) },
    }
}

/// Files and system calls only, but a network volume may take its time.
async fn spawn_local(probe: &Probe) -> RawMachine {
    let probe = probe.clone();
    tokio::task::spawn_blocking(move || local(&probe)).await.unwrap_or_else(|error| RawMachine {
        store_disk: ProbeResult::failed(error.to_string()),
        dmi: ProbeResult::failed(error.to_string()),
        ..RawMachine::default()
    })
}

/// What needs no driver.
fn local(probe: &Probe) -> RawMachine {
    let mut errors = BTreeMap::new();
    let cpu = cpu::read(&mut errors);
    let memory = memory::read(&probe.serving);
    RawMachine {
        system: RawSystem {
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            os_name: sysinfo::System::long_os_version().ok(),
            kernel: sysinfo::System::kernel_version().ok(),
            hostname: hostname(),
            cpu_brand: cpu.brand,
            physical_cores: cpu.physical_cores,
            threads: cpu.threads,
            cpu_features: cpu.features,
            memory_total: memory.total,
            memory_available: memory.available,
            errors,
        },
        engine: RawEngine { backends: engine_backends() },
        session: system::session(),
        dmi: system::dmi(&probe.roots.sys),
        power: system::power(&probe.roots.sys),
        store_disk: match disk_of(&probe.store) {
            Ok(disk) => ProbeResult::Ok(disk),
            Err(error) => ProbeResult::failed(format!("{}: {error}", probe.store.display())),
        },
        ..RawMachine::default()
    }
}

/// What the engine was built with, beyond what it found a device for.
fn engine_backends() -> Vec<String> {
    let all = [("CPU", true), ("Vulkan", cfg!(feature = "vulkan")), ("Metal", cfg!(target_os = "macos"))];
    all.iter().filter(|(_, built)| *built).map(|(name, _)| (*name).to_owned()).collect()
}
