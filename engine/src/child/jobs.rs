//! The short jobs: devices and sizing.

use std::path::{Path, PathBuf};

use crate::ffi;
use crate::gguf::GgufHeader;
use crate::wire::{self, from_worker::Reply};

/// A path as it came over the pipe.
pub fn path_of(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    let path =
        PathBuf::from(std::ffi::OsString::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes)));
    #[cfg(not(unix))]
    let path = PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
    path
}

/// The gate before llama.cpp: no file reaches it whose header is not in order.
pub fn check_header(path: &Path) -> Result<GgufHeader, String> {
    GgufHeader::read(path).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// The shim's settings, the same for sizing and loading.
pub fn settings_of(settings: &wire::Settings, threads: u32, phantoms: bool, no_alloc: bool) -> ffi::Settings {
    let gpu_layers = settings.gpu_layers;
    ffi::Settings {
        context: settings.context,
        parallel: settings.parallel,
        batch: settings.batch,
        ubatch: settings.ubatch,
        kv_type: settings.kv_type,
        gpu_layers: gpu_layers.map_or(-1, |layers| i32::try_from(layers).unwrap_or(i32::MAX)),
        threads,
        // No layers on a GPU means no GPU at all: llama.cpp would still compute long prompts on it, and take its memory.
        cpu_only: gpu_layers == Some(0) || (no_alloc && !phantoms),
        phantoms: phantoms && gpu_layers != Some(0),
        no_alloc,
    }
}

pub fn memory_of(model: &ffi::Model) -> wire::Memory {
    let entry = |memory: ffi::Memory| wire::DeviceMemory {
        name: memory.name,
        model: memory.model,
        context: memory.context,
        compute: memory.compute,
    };
    wire::Memory { entries: model.memory().into_iter().map(entry).collect() }
}

pub fn devices() -> Reply {
    let device = |device: ffi::Device| wire::Device {
        name: device.name,
        description: device.description,
        kind: device.kind,
        backend: device.backend,
        memory_total: device.memory_total,
        memory_free: device.memory_free,
        bus_id: device.bus_id,
    };
    Reply::Devices(wire::DeviceList { devices: ffi::devices().into_iter().map(device).collect() })
}

pub fn size(request: &wire::Size) -> Result<Reply, String> {
    let path = path_of(&request.path);
    check_header(&path)?;
    let phantoms: Vec<ffi::Phantom> = request
        .phantoms
        .iter()
        .map(|p| ffi::Phantom { name: p.name.clone(), backend: p.backend, total: p.total, free: p.free })
        .collect();
    if !phantoms.is_empty() {
        ffi::register_phantoms(&phantoms)?;
    }
    let settings = request.settings.as_ref().ok_or("a size request without settings")?;
    let settings = settings_of(settings, 0, !phantoms.is_empty(), true);
    let model = ffi::Model::open(&path, &settings, |_| true)?;
    let facts = model.facts();
    Ok(Reply::Sized(wire::Sized {
        memory: Some(memory_of(&model)),
        layers: facts.layers,
        gpu_layers: facts.gpu_layers,
        context_train: facts.context_train,
        experts: facts.experts,
    }))
}
