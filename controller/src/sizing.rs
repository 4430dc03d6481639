//! What models take in memory on a machine's devices, by llama.cpp's own dry run in a worker; each asked once.
//!
//! Owns: which devices to imagine for an inventory, and the key under which an answer is kept.

use std::path::PathBuf;

use muster_engine::estimate::{MOST_DEVICES, backend_of, gpus};
use muster_engine::worker::{self, PhantomDevice, SizeOptions, SizeRequest, WorkerCommand, WorkerError};
use muster_proto::{Bytes, DeviceKind, EngineSettings, Inventory};

use crate::store::{SizingKey, SizingOutcome};

/// Steps in which free memory enters a key, where it decides how layers are spread: fine enough to be right, coarse
/// enough that not every inventory asks anew.
const FREE_STEP: u64 = 256 << 20;

/// The devices to imagine for a machine. A device of which nothing is known about memory cannot be planned for.
pub(crate) fn phantoms(inventory: &Inventory) -> Vec<PhantomDevice> {
    // A machine may claim any number of them.
    let gpus: Vec<_> =
        gpus(inventory).into_iter().filter(|gpu| gpu.memory_total.is_some()).take(MOST_DEVICES).collect();
    // Alone, a device takes all layers whatever is free; together, they share by what is free.
    let alone = gpus.len() == 1;
    gpus.iter()
        .map(|gpu| {
            let total = gpu.memory_total.unwrap_or(Bytes::ZERO);
            let free = inventory.free_to_plan(gpu).unwrap_or(total).get() / FREE_STEP * FREE_STEP;
            PhantomDevice {
                name: gpu.name.clone(),
                backend: backend_of(gpu),
                total,
                free: if alone { total } else { Bytes::new(free) },
                integrated: gpu.kind == DeviceKind::IntegratedGpu,
                capability: None,
            }
        })
        .collect()
}

/// The key of one question.
pub(crate) fn key(settings: &EngineSettings, devices: &[PhantomDevice]) -> SizingKey {
    let device = |device: &PhantomDevice| {
        let memory = if devices.len() == 1 { 0 } else { device.free.get() };
        (device.name.clone(), format!("{:?}", device.backend), memory)
    };
    SizingKey {
        engine_build: muster_engine::BUILD.to_owned(),
        settings: settings.clone(),
        devices: devices.iter().map(device).collect(),
    }
}

/// Asks a worker. An error is one of this host, worth another try; what llama.cpp says of the file is an outcome.
pub(crate) async fn ask(
    command: &WorkerCommand,
    path: PathBuf,
    settings: EngineSettings,
    devices: Vec<PhantomDevice>,
) -> Result<SizingOutcome, WorkerError> {
    match worker::size(command, SizeRequest { path, settings, devices, options: SizeOptions::default() }).await {
        Ok(sized) => Ok(SizingOutcome::Needs(sized.need)),
        Err(error) if is_about_the_file(&error) => Ok(SizingOutcome::Refused(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Whether a worker's end tells of the file. One that was killed tells of this host: of somebody's hand, or of memory.
fn is_about_the_file(error: &WorkerError) -> bool {
    match error {
        WorkerError::Refused { .. } => true,
        WorkerError::Died { status, .. } => !["SIGKILL", "SIGTERM", "SIGINT"].iter().any(|hand| status.contains(hand)),
        _ => false,
    }
}
