//! The short jobs: devices and sizing.

use std::path::{Path, PathBuf};

use crate::ffi;
use crate::gguf::{GgufFiles, GgufHeader};
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

/// The gate before llama.cpp: no file reaches it whose header is not in order, nor one that it would open by itself as
/// another part of the model.
pub fn check_header(path: &Path) -> Result<GgufHeader, String> {
    GgufFiles::open(path).map(GgufFiles::into_header).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// The shim's settings, the same for sizing and loading. `encoder` is what the file's header says.
pub fn settings_of(settings: &wire::Settings, encoder: bool, threads: u32, dry_run: Option<DryRun>) -> ffi::Settings {
    let gpu_layers = settings.gpu_layers;
    let no_alloc = dry_run.is_some();
    let DryRun { phantoms, options } = dry_run.unwrap_or_default();
    // No layers on a GPU means no GPU at all: llama.cpp would still compute long prompts on it, and take its memory.
    let no_gpu = gpu_layers == Some(0) && !options.gpu_without_layers;
    ffi::Settings {
        context: settings.context,
        parallel: settings.parallel,
        batch: settings.batch,
        ubatch: settings.ubatch,
        kv_type: settings.kv_type,
        gpu_layers: gpu_layers.map_or(-1, |layers| i32::try_from(layers).unwrap_or(i32::MAX)),
        threads,
        cpu_only: no_gpu || (no_alloc && !phantoms),
        phantoms: phantoms && !no_gpu,
        no_alloc,
        kv_unified: settings.kv_unified,
        flash_attention: settings.flash_attention,
        expert_layers_on_host: settings.expert_layers_on_host,
        total_context: options.total_context.unwrap_or(0),
        all_outputs: options.all_outputs,
        fit: options.fit,
        fit_min_context: options.fit_min_context,
        fit_margin: options.fit_margin,
        fit_unmodified: options.unmodified_fit,
        encoder,
    }
}

/// The shim's layout, the same for sizing and loading.
pub fn layout_of(layout: Option<&wire::Layout>) -> ffi::Layout {
    let Some(wire::Layout { split, overrides }) = layout else { return ffi::Layout::default() };
    ffi::Layout {
        split: split.clone(),
        overrides: overrides.iter().map(|o| (o.pattern.clone(), o.device.clone())).collect(),
    }
}

/// What makes a load a dry run: nothing is allocated.
#[derive(Clone, Copy, Default)]
pub struct DryRun {
    /// On the registered phantoms, and on no other GPU.
    pub phantoms: bool,
    /// What only a dry run may ask for.
    pub options: wire::SizeOptions,
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
    let header = check_header(&path)?;
    let phantoms: Vec<ffi::Phantom> = request
        .phantoms
        .iter()
        .map(|p| ffi::Phantom {
            name: p.name.clone(),
            backend: p.backend,
            total: p.total,
            free: p.free,
            capability: p.capability,
            integrated: p.integrated,
        })
        .collect();
    let options = request.options.unwrap_or_default();
    if !phantoms.is_empty() {
        let earlier = ffi::Earlier {
            graphs: options.earlier_builds,
            f32_masks: options.f32_masks,
            copied_rows: options.copied_rows,
        };
        ffi::register_phantoms(&phantoms, &earlier)?;
    }
    let settings = request.settings.as_ref().ok_or("a size request without settings")?;
    let layout = layout_of(request.layout.as_ref());
    let settings =
        settings_of(settings, header.is_encoder(), 0, Some(DryRun { phantoms: !phantoms.is_empty(), options }));
    let model = ffi::Model::open(&path, &settings, &layout, |_| true)?;
    let facts = model.facts();
    Ok(Reply::Sized(wire::Sized {
        memory: Some(memory_of(&model)),
        layers: facts.layers,
        gpu_layers: facts.gpu_layers,
        context_train: facts.context_train,
        experts: facts.experts,
        total_layers: facts.total_layers,
        context: facts.context,
        expert_layers_on_host: facts.expert_layers_on_host,
        split: facts.split[..phantoms.len().min(facts.split.len())]
            .iter()
            .copied()
            .filter(|_| facts.split.iter().any(|share| *share > 0.0))
            .collect(),
        overrides: model
            .overrides()
            .into_iter()
            .map(|(pattern, device)| wire::TensorOverride { pattern, device })
            .collect(),
        fits: match facts.fit {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        },
    }))
}
