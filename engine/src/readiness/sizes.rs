//! What each reference model takes in each quantization and context, worked out once for each backend.

use std::sync::LazyLock;

use muster_proto::{Bytes, ContextTokens, EngineSettings};

use crate::profile::shipped::ShippedProfiles;
use crate::profile::{DeviceShare, Needed, SizingProfile};
use crate::reference;
use crate::worker::PhantomBackend;

/// Quantizations from the best to the smallest: those that ship, but F16, which nobody can tell from `Q8_0`.
pub(super) const QUANTIZATIONS: [&str; 5] = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M"];

/// Contexts that are told apart, in tokens.
pub(super) const CONTEXTS: [u32; 9] = [512, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144];

/// What one model takes with one context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size {
    /// Weights and cache on a GPU, all layers there.
    pub device: u64,
    /// Compute buffers of each GPU.
    pub device_compute: u64,
    /// Main memory beside them.
    pub beside: u64,
    /// Weights and cache in main memory, all layers there.
    pub alone: u64,
    /// Compute buffers in main memory then.
    pub alone_compute: u64,
}

/// One model in one quantization.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// Its file: all weights once.
    pub file: u64,
    /// By index of [`CONTEXTS`]; shorter if it was not trained for more.
    pub by_context: Vec<Size>,
}

/// By model, as [`reference::all`] has them, and by [`QUANTIZATIONS`].
type Table = Vec<[Option<Sizes>; QUANTIZATIONS.len()]>;

static TABLES: [LazyLock<Table>; 4] = [
    LazyLock::new(|| table("cuda")),
    LazyLock::new(|| table("vulkan")),
    LazyLock::new(|| table("metal")),
    LazyLock::new(|| table("rocm")),
];

/// What a model takes where this backend drives the GPUs; a machine without one asks for Vulkan's.
pub(super) fn sizes(backend: PhantomBackend, model: usize, quantization: usize) -> Option<&'static Sizes> {
    let table = match backend {
        PhantomBackend::Cuda => &TABLES[0],
        PhantomBackend::Vulkan => &TABLES[1],
        PhantomBackend::Metal => &TABLES[2],
        PhantomBackend::Rocm => &TABLES[3],
    };
    table.get(model)?.get(quantization)?.as_ref()
}

/// Some ten thousand points of profiles, by as many threads as there are.
fn table(backend: &str) -> Table {
    let shipped = ShippedProfiles::load(backend);
    let models = reference::all();
    let of = |model: &reference::ReferenceModel| {
        QUANTIZATIONS.map(|quantization| sizes_of(shipped.get(&model.id, quantization)?, model.context()))
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let parts: Vec<_> = models
            .chunks(models.len().div_ceil(threads).max(1))
            .map(|part| scope.spawn(|| part.iter().map(of).collect::<Table>()))
            .collect();
        // A thread only ends early by a panic, which goes on here.
        let joined = parts.into_iter().map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    })
}

fn sizes_of(profile: &SizingProfile, trained: u32) -> Option<Sizes> {
    let by_context: Vec<Size> = CONTEXTS
        .iter()
        .filter(|context| **context <= trained)
        .map_while(|context| size(profile, ContextTokens::new(*context)))
        .collect();
    let first = by_context.first()?;
    // Without a cache to speak of: weights on a GPU and beside it are those of the file.
    let cache = size_of_cache(profile)?;
    Some(Sizes { file: (first.device + first.beside).saturating_sub(cache), by_context })
}

fn size_of_cache(profile: &SizingProfile) -> Option<u64> {
    let device = DeviceShare::only("GPU");
    let settings = settings(ContextTokens::new(CONTEXTS[0]));
    let need = profile.need(&settings, &Needed { devices: &device, ..Needed::default() }).ok()?;
    let on_device: u64 = need.devices.iter().map(|device| device.context.get()).sum();
    Some(on_device + need.host.context.get() + need.host.compute.get())
}

fn settings(context: ContextTokens) -> EngineSettings {
    EngineSettings { context, ..EngineSettings::default() }
}

fn size(profile: &SizingProfile, context: ContextTokens) -> Option<Size> {
    let gpu = DeviceShare::only("GPU");
    let whole = profile.need(&settings(context), &Needed { devices: &gpu, ..Needed::default() }).ok()?;
    let alone = profile.need(&settings(context), &Needed::default()).ok()?;
    let sum = |part: fn(&muster_proto::DeviceMemory) -> Bytes| whole.devices.iter().map(part).sum::<Bytes>().get();
    Some(Size {
        device: sum(|device| device.model + device.context),
        device_compute: sum(|device| device.compute),
        beside: whole.host.total().get(),
        alone: (alone.host.model + alone.host.context).get(),
        alone_compute: alone.host.compute.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(id: &str) -> usize {
        reference::all().iter().position(|model| model.id == id).expect(id)
    }

    #[test]
    fn every_model_has_sizes_on_every_backend_and_they_grow_with_the_context() {
        for backend in [PhantomBackend::Cuda, PhantomBackend::Vulkan, PhantomBackend::Metal, PhantomBackend::Rocm] {
            for model in 0..reference::all().len() {
                let mut larger = u64::MAX;
                for quantization in 0..QUANTIZATIONS.len() {
                    let sizes = sizes(backend, model, quantization).expect("ships");
                    let grows = |pair: &[Size]| pair[0].device <= pair[1].device && pair[0].alone <= pair[1].alone;
                    assert!(sizes.by_context.windows(2).all(grows), "{}", reference::all()[model].id);
                    assert!(sizes.file <= larger, "{}", reference::all()[model].id);
                    larger = sizes.file;
                }
            }
        }
    }

    #[test]
    fn the_well_known_model_takes_what_llama_cpp_says() {
        // Llama-3-8B Q4_K_M with 8,192 tokens: 4403.49 + 1024.00 MiB on the device, 281.81 MiB of weights beside.
        let sizes = sizes(PhantomBackend::Cuda, index("llama-3-8b"), 3).expect("ships");
        let size = sizes.by_context[3];
        assert_eq!(size.device >> 20, 5427);
        let file = Bytes::new(sizes.file);
        assert!((Bytes::from_mib(4680)..Bytes::from_mib(4700)).contains(&file), "{file}");
    }
}
