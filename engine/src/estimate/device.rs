//! [`TargetDevice`]: a device that a question is about, and where such devices come from.

use muster_proto::{Bytes, Device, DeviceKind, Inventory};

use super::known;
use crate::device_table::{self, KnownDevice};
use crate::worker::{PhantomBackend, PhantomDevice};

/// Most devices of a question: llama.cpp itself takes no more.
pub const MOST_DEVICES: usize = 16;

/// A GPU that a model could run on; it need not be there.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetDevice {
    /// What the asker calls it, e.g. `gpu0`.
    pub name: String,
    /// The vendor's name for it.
    pub description: Option<String>,
    /// The backend that would drive it.
    pub backend: PhantomBackend,
    /// Its generation, as in [`PhantomDevice::capability`].
    pub capability: Option<u32>,
    /// Whether it shares main memory.
    pub integrated: bool,
    /// What models can have of its memory.
    pub memory: Bytes,
    /// What its maker publishes of it, for the speed.
    pub known: Option<&'static KnownDevice>,
}

/// Why devices cannot be asked about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Two have one name.
    #[error("two devices are named {0:?}: give each a name of its own")]
    Twice(String),
    /// Too many.
    #[error("{0} devices: llama.cpp takes {MOST_DEVICES} at most")]
    TooMany(usize),
    /// The backend does not drive it.
    #[error("{backend} does not run on {device}")]
    Backend {
        /// The device's name.
        device: String,
        /// The backend's name.
        backend: &'static str,
    },
    /// It comes with several amounts of memory, or shares that of a machine.
    #[error(
        "the memory of {device} differs from one to the next: say it with --device, for example --device gpu0=16GiB"
    )]
    Memory {
        /// The device's name.
        device: String,
    },
}

impl TargetDevice {
    /// A device of which only the backend and the memory are known: a GPU of a common generation.
    pub fn new(name: impl Into<String>, backend: PhantomBackend, memory: Bytes) -> Self {
        Self {
            name: name.into(),
            description: None,
            backend,
            capability: None,
            integrated: backend == PhantomBackend::Metal,
            memory,
            known: None,
        }
    }

    /// A known device; `memory` is what models can have of it, or `None` for what
    /// [is usual](known::usable_memory).
    ///
    /// # Errors
    /// [`DeviceError::Backend`] and [`DeviceError::Memory`].
    pub fn known(
        name: impl Into<String>,
        device: &'static KnownDevice,
        backend: PhantomBackend,
        memory: Option<Bytes>,
    ) -> Result<Self, DeviceError> {
        if !known::runs(device, backend) {
            return Err(DeviceError::Backend { device: device.name.clone(), backend: backend_name(backend) });
        }
        let memory = memory
            .or_else(|| known::usable_memory(device))
            .ok_or_else(|| DeviceError::Memory { device: device.name.clone() })?;
        Ok(Self {
            name: name.into(),
            description: Some(device.name.clone()),
            backend,
            capability: known::capability(device, backend),
            integrated: device.unified,
            memory,
            known: Some(device),
        })
    }

    /// The phantom that stands for it as the `index`th of a dry run. It gets a name of its own, because names that people
    /// choose may be any. All of the memory is free: llama.cpp too looks at what is free before it takes anything, and its
    /// margin is for what a driver takes.
    pub(super) fn phantom(&self, index: usize) -> PhantomDevice {
        PhantomDevice {
            name: phantom_name(index),
            backend: self.backend,
            total: self.memory,
            free: self.memory,
            integrated: self.integrated,
            capability: self.capability,
        }
    }

    /// Checks that these can be asked about together.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn check(devices: &[Self]) -> Result<(), DeviceError> {
        if devices.len() > MOST_DEVICES {
            return Err(DeviceError::TooMany(devices.len()));
        }
        match devices.iter().enumerate().find(|(index, device)| devices[..*index].iter().any(|d| d.name == device.name))
        {
            Some((_, device)) => Err(DeviceError::Twice(device.name.clone())),
            None => Ok(()),
        }
    }
}

/// The name of the `index`th phantom of a dry run.
pub(super) fn phantom_name(index: usize) -> String {
    format!("Phantom{index}")
}

/// How people know a backend.
pub(super) fn backend_name(backend: PhantomBackend) -> &'static str {
    match backend {
        PhantomBackend::Cuda => "CUDA",
        PhantomBackend::Vulkan => "Vulkan",
        PhantomBackend::Metal => "Metal",
        PhantomBackend::Rocm => "ROCm",
    }
}

/// The backend that drives a device of an inventory; Vulkan for any that is not known by name, since it drives all.
pub fn backend_of(device: &Device) -> PhantomBackend {
    match device.backend.to_ascii_lowercase().as_str() {
        "cuda" | "musa" => PhantomBackend::Cuda,
        "rocm" | "hip" => PhantomBackend::Rocm,
        "metal" | "mtl" => PhantomBackend::Metal,
        _ => PhantomBackend::Vulkan,
    }
}

/// The GPUs that llama.cpp would use on a machine: discrete ones and then accelerators, or integrated ones where there are
/// no others.
pub fn gpus(inventory: &Inventory) -> Vec<&Device> {
    let of = |kind| inventory.devices.iter().filter(move |device| device.kind == kind);
    let discrete: Vec<_> = of(DeviceKind::DiscreteGpu).chain(of(DeviceKind::Accelerator)).collect();
    if discrete.is_empty() { of(DeviceKind::IntegratedGpu).collect() } else { discrete }
}

/// The [GPUs](gpus) of a machine, with the memory that models may count on there. One whose memory nobody could read cannot be
/// asked about, and is left out.
pub fn machine_devices(inventory: &Inventory) -> Vec<TargetDevice> {
    let target = |gpu: &Device| {
        let backend = backend_of(gpu);
        let known = device_table::find(&gpu.description).ok().filter(|known| known::runs(known, backend));
        Some(TargetDevice {
            name: gpu.name.clone(),
            description: Some(gpu.description.clone()).filter(|text| !text.is_empty()),
            backend,
            capability: known.and_then(|known| known::capability(known, backend)),
            integrated: gpu.kind == DeviceKind::IntegratedGpu,
            memory: inventory.free_to_plan(gpu).or(gpu.memory_total)?,
            known,
        })
    };
    gpus(inventory).into_iter().filter_map(target).take(MOST_DEVICES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_a_name_of_its_own() {
        let device = |name: &str| TargetDevice::new(name, PhantomBackend::Cuda, Bytes::from_gib(8));
        assert_eq!(TargetDevice::check(&[device("a"), device("b")]), Ok(()));
        assert_eq!(TargetDevice::check(&[device("a"), device("b"), device("a")]), Err(DeviceError::Twice("a".into())));
        let many: Vec<_> = (0..17).map(|index| device(&index.to_string())).collect();
        assert_eq!(TargetDevice::check(&many), Err(DeviceError::TooMany(17)));
    }
}
