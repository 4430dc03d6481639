//! [`Hardware`]: the parts of a desk beyond what llama.cpp sees: every GPU once, the chassis, and what is typically free.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{Bytes, DeviceKind, Timestamp};

/// What the probes found and joined. What an older agent does not tell is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// Every GPU of the machine exactly once, whether llama.cpp can use it or not; MIG slices count as GPUs.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// What kind of machine it is.
    #[serde(default)]
    pub chassis: Chassis,
    /// Whether the agent looked from a remote desktop session, where Windows shows a virtual adapter.
    #[serde(default)]
    pub remote_session: Option<bool>,
    /// What is free on most of a working day; absent before enough was sampled.
    #[serde(default)]
    pub typical: Option<TypicalUse>,
}

open_enum! {
    /// Who made a GPU.
    GpuVendor {
        /// NVIDIA, PCI vendor 10de.
        Nvidia = 1 => "nvidia",
        /// AMD, PCI vendor 1002.
        Amd = 2 => "amd",
        /// Intel, PCI vendor 8086.
        Intel = 3 => "intel",
        /// Apple.
        Apple = 4 => "apple",
        /// Qualcomm.
        Qualcomm = 5 => "qualcomm",
        /// Somebody else: a server's display chip, a virtual machine's adapter.
        Other = 6 => "other",
    }
}

/// One GPU, joined from all sources that know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// The vendor's name for it.
    pub name: String,
    /// Who made it.
    pub vendor: GpuVendor,
    /// Discrete or integrated.
    pub kind: DeviceKind,
    /// PCI address, e.g. `0000:01:00.0`.
    pub pci_bus_id: Option<String>,
    /// PCI vendor and device, e.g. `10de:2684`.
    pub pci_id: Option<String>,
    /// The vendor's identifier for this very card or slice.
    pub uuid: Option<String>,
    /// The kernel's or the system's driver and its version, e.g. `nvidia 580.95.05`.
    pub driver: Option<String>,
    /// Memory of its own; for an integrated one what firmware set aside.
    pub memory_total: Option<Bytes>,
    /// What is free of that now.
    pub memory_free: Option<Bytes>,
    /// Main memory that it may use besides (AMD's GTT, Windows' shared memory, Apple's working set).
    pub memory_shared: Option<Bytes>,
    /// Whether it computes in main memory, so that models there and elsewhere share one budget.
    pub unified_memory: bool,
    /// Compute capability of an NVIDIA card, e.g. `8.9`.
    pub compute_capability: Option<String>,
    /// Newest CUDA version that its driver takes, e.g. `13.0`.
    pub cuda_version: Option<String>,
    /// The PCIe link.
    pub pcie: Option<PcieLink>,
    /// Power limit in force, in watts.
    pub power_limit_watts: Option<f64>,
    /// Temperature, in degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// Why it runs slower than it could now, in the driver's words, e.g. `sw_thermal_slowdown`.
    #[serde(default)]
    pub throttle_reasons: Vec<String>,
    /// Whether ECC is on.
    pub ecc: Option<bool>,
    /// Whether MIG is on; its slices are entries of their own.
    pub mig: Option<bool>,
    /// UUID of the card that this MIG slice is of.
    pub slice_of: Option<String>,
    /// Programs that hold its memory, largest first. Stays on the desk: never sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<MemoryUser>,
    /// llama.cpp's name of it, e.g. `CUDA0`; `None` where llama.cpp cannot use it.
    pub engine_device: Option<String>,
    /// Why llama.cpp cannot use it.
    pub obstacle: Option<Obstacle>,
    /// The probes that saw it, e.g. `drm`, `nvml`, `vulkan`, `ggml`.
    #[serde(default)]
    pub sources: Vec<String>,
}

/// A PCIe link, now and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcieLink {
    /// Generation now; idle cards go down.
    pub generation: Option<u32>,
    /// Lanes now.
    pub width: Option<u32>,
    /// Generation that card and slot can do.
    pub generation_max: Option<u32>,
    /// Lanes that card and slot can do.
    pub width_max: Option<u32>,
}

/// A program that holds memory of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUser {
    /// Its process.
    pub pid: u32,
    /// Its name, where it may be read.
    pub name: Option<String>,
    /// What it holds.
    pub bytes: Option<Bytes>,
}

open_enum! {
    /// What keeps llama.cpp from a GPU.
    ObstacleKind {
        /// No driver of the kernel is bound to it.
        DriverMissing = 1 => "driver_missing",
        /// The kernel's driver is there, the Vulkan (or CUDA, ROCm) driver is not.
        ComputeDriverMissing = 2 => "compute_driver_missing",
        /// This user may not open it.
        NoPermission = 3 => "no_permission",
        /// The driver is there and fails.
        DriverBroken = 4 => "driver_broken",
        /// This build of the engine has no backend for it.
        BackendMissing = 5 => "backend_missing",
        /// A software renderer stands in for it.
        SoftwareRenderer = 6 => "software_renderer",
        /// Too old or too small for the backend.
        Unsupported = 7 => "unsupported",
        /// The driver did not answer in time.
        TimedOut = 8 => "timed_out",
    }
}

/// Why llama.cpp cannot use a GPU, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// What it is.
    pub kind: ObstacleKind,
    /// In one sentence, for people.
    pub text: String,
    /// What to do about it, e.g. `install mesa-vulkan-drivers`.
    pub remedy: Option<String>,
}

open_enum! {
    /// What kind of machine it is.
    ChassisKind {
        /// A desktop or tower.
        Desktop = 1 => "desktop",
        /// A laptop, with whatever lid.
        Laptop = 2 => "laptop",
        /// All in one, stick, mini.
        Compact = 3 => "compact",
        /// A server or blade.
        Server = 4 => "server",
        /// A virtual machine.
        Virtual = 5 => "virtual",
        /// Something else.
        Other = 6 => "other",
    }
}

/// What kind of machine it is, and where it gets its power from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chassis {
    /// Laptop, desktop, ...
    pub kind: Option<ChassisKind>,
    /// Who made it.
    pub vendor: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// The directory domain that it belongs to.
    pub domain: Option<String>,
    /// Whether it has a battery.
    pub battery: Option<bool>,
    /// Whether it is on mains power now.
    pub on_mains: Option<bool>,
}

/// What the owner's own programs take most of the time: the 95th percentile of use, over what was sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypicalUse {
    /// The first sample that counts.
    pub since: Timestamp,
    /// The last.
    pub until: Timestamp,
    /// How many count.
    pub samples: u32,
    /// Main memory that is available 95 % of the time, this agent's own models counted as available.
    pub memory_available: Bytes,
    /// For each device, by llama.cpp's name: what is free 95 % of the time, counted the same way.
    pub devices: Vec<TypicalFree>,
}

/// See [`TypicalUse::devices`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypicalFree {
    /// llama.cpp's name of the device.
    pub device: String,
    /// What is free 95 % of the time.
    pub free: Bytes,
}
