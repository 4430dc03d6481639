//! [`Desk`]: of an inventory, what decides: budgets of memory, devices that compute, room for files.

use muster_proto::{Bytes, Device, DeviceKind, Gpu, GpuVendor, Inventory, MemoryBasis, Obstacle};

use crate::device_table::KnownDevice;
use crate::estimate;
use crate::surcharge;
use crate::worker::PhantomBackend;

/// A GPU that models could be on.
#[derive(Clone, Debug)]
pub(super) struct DeskGpu {
    /// llama.cpp's name of it.
    pub name: String,
    pub backend: PhantomBackend,
    /// Whether it computes in main memory.
    pub shared: bool,
    /// What models can have of it, the driver's part taken off.
    pub budget: u64,
    /// What the driver takes.
    pub surcharge: u64,
    pub known: Option<&'static KnownDevice>,
}

/// What decides.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub gpus: Vec<DeskGpu>,
    /// Main memory that models can have.
    pub ram: u64,
    pub basis: MemoryBasis,
    pub host: Option<&'static KnownDevice>,
    pub disk: Option<u64>,
    /// GPUs that are there and cannot be used.
    pub obstructed: Vec<Obstructed>,
}

/// A GPU that cannot be used, and what it would be if it could.
#[derive(Clone, Debug)]
pub(super) struct Obstructed {
    pub gpu: DeskGpu,
    pub label: String,
    pub obstacle: Obstacle,
}

/// Finds known devices by name.
pub(super) type Find<'a> = &'a dyn Fn(&str) -> Option<&'static KnownDevice>;

impl Desk {
    /// Reads an inventory; `find` knows devices by the names that drivers give them.
    pub fn of(inventory: &Inventory, find: Find<'_>) -> Self {
        let host = inventory.cpu.brand.as_deref().and_then(find).filter(|known| known.is_cpu());
        Self {
            gpus: gpus(inventory, find),
            ram: inventory.memory_to_plan().get(),
            basis: if inventory.hardware.typical.is_some() { MemoryBasis::Typical } else { MemoryBasis::Momentary },
            host,
            disk: inventory.store_disk.map(|disk| disk.free.get()),
            obstructed: inventory.hardware.gpus.iter().filter_map(|gpu| obstructed(gpu, inventory, find)).collect(),
        }
    }

    /// As if the obstacles were gone: the GPUs that cannot be used are there as well, discrete ones alone if there are any.
    pub fn without_obstacles(&self) -> Self {
        let mut gpus = self.gpus.clone();
        gpus.extend(self.obstructed.iter().map(|obstructed| obstructed.gpu.clone()));
        if gpus.iter().any(|gpu| !gpu.shared) {
            gpus.retain(|gpu| !gpu.shared);
        }
        Self { gpus, obstructed: Vec::new(), ..self.clone() }
    }

    /// The backend whose sizes count.
    pub fn backend(&self) -> PhantomBackend {
        self.gpus.first().map_or(PhantomBackend::Vulkan, |gpu| gpu.backend)
    }

    /// What models can have on all GPUs together.
    pub fn vram(&self) -> Option<u64> {
        (!self.gpus.is_empty()).then(|| self.gpus.iter().map(|gpu| gpu.budget).sum())
    }

    /// Whether the GPUs compute in main memory.
    pub fn shared(&self) -> bool {
        self.gpus.first().is_some_and(|gpu| gpu.shared)
    }
}

/// What models get of free memory, and what the driver takes of it.
pub(super) fn budget(backend: PhantomBackend, free: Bytes) -> (u64, u64) {
    let surcharge = surcharge::surcharge(backend).expected.get();
    (free.get().saturating_sub(surcharge), surcharge)
}

/// The GPUs that llama.cpp would use, with what models can have of them.
fn gpus(inventory: &Inventory, find: Find<'_>) -> Vec<DeskGpu> {
    let desk_gpu = |device: &Device| {
        let joined = inventory.hardware.gpus.iter().find(|gpu| gpu.engine_device.as_deref() == Some(&device.name));
        let free = inventory.free_to_plan(device).or(device.memory_total)?;
        let backend = estimate::backend_of(device);
        let (budget, surcharge) = budget(backend, free);
        Some(DeskGpu {
            name: device.name.clone(),
            backend,
            shared: device.kind == DeviceKind::IntegratedGpu || joined.is_some_and(|gpu| gpu.unified_memory),
            budget,
            surcharge,
            known: find(&device.description).filter(|known| !known.is_cpu()),
        })
    };
    estimate::gpus(inventory).into_iter().filter_map(desk_gpu).take(estimate::MOST_DEVICES).collect()
}

/// What would drive a GPU: NVIDIA's CUDA, Apple's Metal, all others Vulkan.
pub(super) fn backend_of_vendor(vendor: GpuVendor) -> PhantomBackend {
    match vendor {
        GpuVendor::Nvidia => PhantomBackend::Cuda,
        GpuVendor::Apple => PhantomBackend::Metal,
        _ => PhantomBackend::Vulkan,
    }
}

/// What a GPU that cannot be used would be.
fn obstructed(gpu: &Gpu, inventory: &Inventory, find: Find<'_>) -> Option<Obstructed> {
    let obstacle = gpu.obstacle.clone().filter(|_| gpu.engine_device.is_none())?;
    let known = find(&gpu.name).filter(|known| !known.is_cpu());
    let backend = backend_of_vendor(gpu.vendor);
    let shared = gpu.kind == DeviceKind::IntegratedGpu || gpu.unified_memory;
    let free = if shared {
        // Half of main memory, as Linux' and Windows' drivers allow.
        gpu.memory_shared.unwrap_or(Bytes::new(inventory.memory.total.get() / 2))
    } else {
        // Without its driver, the size may be known by name alone.
        gpu.memory_free.or(gpu.memory_total).or(known.and_then(|known| known.memory))?
    };
    let (budget, surcharge) = budget(backend, free);
    let desk_gpu = DeskGpu { name: gpu.name.clone(), backend, shared, budget, surcharge, known };
    Some(Obstructed { gpu: desk_gpu, label: gpu.name.clone(), obstacle })
}
