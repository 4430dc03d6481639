//! What is asked: [`SpeedQuestion`], and who runs it.

use crate::device_table::{KnownDevice, Vendor};
use crate::worker::PhantomBackend;

use super::calibration::Calibration;
use super::costs::ModelCosts;

/// llama.cpp's backends that speeds are known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// CUDA, NVIDIA only.
    Cuda,
    /// ROCm (HIP), AMD only.
    Rocm,
    /// Vulkan, any GPU.
    Vulkan,
    /// Metal, Apple only.
    Metal,
    /// The CPU.
    Cpu,
}

impl From<PhantomBackend> for Backend {
    fn from(backend: PhantomBackend) -> Self {
        match backend {
            PhantomBackend::Cuda => Self::Cuda,
            PhantomBackend::Vulkan => Self::Vulkan,
            PhantomBackend::Metal => Self::Metal,
            PhantomBackend::Rocm => Self::Rocm,
        }
    }
}

impl Backend {
    /// Its name, as the command line and the data files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cpu => "cpu",
        }
    }

    /// The backend of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        [Self::Cuda, Self::Rocm, Self::Vulkan, Self::Metal, Self::Cpu].into_iter().find(|known| known.name() == name)
    }
}

/// Whose build of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// llama.cpp.
    #[default]
    LlamaCpp,
    /// The fork ik_llama.cpp, whose measurements are among the data.
    IkLlamaCpp,
}

/// A device that holds layers, and what is known of its speed.
#[derive(Clone, Debug)]
pub struct DeviceShare<'a> {
    /// Its specification.
    pub device: &'a KnownDevice,
    /// What its own benchmark says; replaces the priors' efficiencies.
    pub calibration: Option<&'a Calibration>,
    /// Share of the model's layers on it, 0 to 1.
    pub layers: f64,
}

/// What stays on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Placement {
    /// Share of the layers that the host computes, 0 to 1.
    pub host_layers: f64,
    /// Share of the routed experts that the host computes (all of the host's own layers included), 0 to 1.
    pub host_experts: f64,
    /// Whether the output matrix is on the host.
    pub host_output: bool,
}

/// How fast one model will run, placed like this, on these devices.
#[derive(Clone, Debug)]
pub struct SpeedQuestion<'a> {
    /// What the model costs.
    pub costs: &'a ModelCosts,
    /// GPUs that hold layers; empty if the CPU runs it all.
    pub devices: Vec<DeviceShare<'a>>,
    /// What stays on the host.
    pub placement: Placement,
    /// The host's CPU; `None` for a desktop of eight cores with two channels of DDR5-5600, and a wider interval.
    pub host: Option<&'a KnownDevice>,
    /// What the host's own benchmark says.
    pub host_calibration: Option<&'a Calibration>,
    /// The backend of the GPUs.
    pub backend: Backend,
    /// Flash attention; `None` for llama.cpp's choice, which is on for every backend named here.
    pub flash_attention: Option<bool>,
    /// Bytes of an element of the KV cache: 2 for F16, 34/32 for `Q8_0`, 18/32 for `Q4_0`.
    pub cache_bytes_per_element: f64,
    /// Tokens already in the context.
    pub depth: u64,
    /// Tokens of the prompt to prefill.
    pub prompt_tokens: u64,
    /// Tokens to decode.
    pub decode_tokens: u64,
    /// Tokens of one physical batch, llama.cpp's `n_ubatch`.
    pub ubatch: u32,
    /// Threads of the host; `None` for one a core.
    pub threads: Option<u32>,
    /// When the engine was built, as a year (2024.5); `None` for the build that this program carries.
    pub built: Option<f64>,
    /// Whose engine.
    pub engine: Engine,
    /// Whether a Vulkan driver of an NVIDIA card has only the first extension for matrices (`KHR_cooperative_matrix`), as
    /// before 2025.
    pub first_matrix_extension: bool,
}

impl<'a> SpeedQuestion<'a> {
    /// A model that is wholly on one device (or on the host, if that is a CPU), with llama.cpp's defaults: 512 tokens of
    /// prompt, 128 decoded, from an empty context.
    pub fn on(costs: &'a ModelCosts, device: &'a KnownDevice, backend: Backend) -> Self {
        let cpu = backend == Backend::Cpu || device.is_cpu();
        Self {
            costs,
            devices: if cpu { Vec::new() } else { vec![DeviceShare { device, calibration: None, layers: 1.0 }] },
            placement: if cpu {
                Placement { host_layers: 1.0, host_experts: 1.0, host_output: true }
            } else {
                Placement::default()
            },
            host: cpu.then_some(device),
            host_calibration: None,
            backend: if cpu { Backend::Cpu } else { backend },
            flash_attention: None,
            cache_bytes_per_element: 2.0,
            depth: 0,
            prompt_tokens: 512,
            decode_tokens: 128,
            ubatch: 512,
            threads: None,
            built: None,
            engine: Engine::LlamaCpp,
            first_matrix_extension: false,
        }
    }
}

/// The backend that a device is taken to run with where none is named. NVIDIA: CUDA. Apple: Metal. Intel: Vulkan, the one
/// whose measurements are known. AMD: ROCm where AMD's releases support the chip (RDNA 3 and later cards, CDNA), since its
/// prefill is up to twice Vulkan's there; Vulkan for older chips and integrated graphics, where ROCm needs an override
/// or does not run.
pub fn default_backend(device: &KnownDevice) -> Backend {
    if device.is_cpu() {
        return Backend::Cpu;
    }
    match device.vendor {
        Vendor::Nvidia => Backend::Cuda,
        Vendor::Apple => Backend::Metal,
        Vendor::Amd
            if !device.unified
                && matches!(device.architecture.as_str(), "RDNA3" | "RDNA4" | "CDNA1" | "CDNA2" | "CDNA3") =>
        {
            Backend::Rocm
        }
        Vendor::Amd | Vendor::Intel => Backend::Vulkan,
        Vendor::Other => Backend::Cpu,
    }
}
