//! [`Inventory`]: what a desk's hardware is, as its agent saw it at one moment.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{Bytes, Hardware, Timestamp};

/// What one machine is, immutable and timestamped. What could not be read is in `failures`, never a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// When it was collected, by the agent's clock.
    pub collected_at: Timestamp,
    /// The name that the machine calls itself.
    pub hostname: String,
    /// SHA-256 over the hardware's stable facts, hexadecimal: changes when parts do, not when a driver does.
    pub hardware_fingerprint: String,
    /// The operating system.
    pub os: Os,
    /// The processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// What llama.cpp can compute on, each device once; the CPU is one of them.
    pub devices: Vec<Device>,
    /// The volume that holds the model store.
    pub store_disk: Option<Disk>,
    /// The llama.cpp build that answers on this desk, e.g. `llama-cpp-sys-2 0.1.161`.
    pub engine_build: String,
    /// What could not be read, and why.
    pub failures: Vec<ProbeFailure>,
    /// The parts beyond what llama.cpp sees; empty from an older agent.
    #[serde(default)]
    pub hardware: Hardware,
}

impl Inventory {
    /// The main memory that models may count on: what is free 95 % of the time where the agent sampled that, else what is
    /// free now. A desk in use counts, not an empty one; and what somebody takes for an hour moves no models about. What
    /// the agent's own models take counts as free in both.
    pub fn memory_to_plan(&self) -> Bytes {
        let typical = self.hardware.typical.as_ref().map(|typical| typical.memory_available.min(self.memory.total));
        typical.unwrap_or(self.memory.available)
    }

    /// The same for a device; `None` where neither is known.
    pub fn free_to_plan(&self, device: &Device) -> Option<Bytes> {
        let known = self.hardware.typical.iter().flat_map(|typical| &typical.devices);
        let typical = known.filter(|known| known.device == device.name).map(|known| known.free).min();
        typical.map(|free| device.memory_total.map_or(free, |total| free.min(total))).or(device.memory_free)
    }
}

/// An operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// Family and architecture, e.g. `linux-x86_64`.
    pub platform: String,
    /// As it names itself, e.g. `Debian GNU/Linux 12`.
    pub name: Option<String>,
    /// Kernel version.
    pub kernel: Option<String>,
}

/// A processor, all sockets together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// The vendor's name for it.
    pub brand: Option<String>,
    /// Physical cores.
    pub physical_cores: Option<u32>,
    /// Hardware threads that this process may use.
    pub threads: u32,
    /// Instruction sets that llama.cpp cares about, e.g. `avx2`, `avx512f`, sorted.
    pub features: Vec<String>,
}

/// Main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: Bytes,
    /// What a new program could get without swapping.
    pub available: Bytes,
}

/// A volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// All of it.
    pub total: Bytes,
    /// What this user may still write.
    pub free: Bytes,
}

open_enum! {
    /// What kind of device computes.
    DeviceKind {
        /// The processor, with main memory.
        Cpu = 1 => "cpu",
        /// A GPU with memory of its own.
        DiscreteGpu = 2 => "discrete_gpu",
        /// A GPU that shares main memory.
        IntegratedGpu = 3 => "integrated_gpu",
        /// Another accelerator.
        Accelerator = 4 => "accelerator",
    }
}

/// One device that llama.cpp can compute on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// llama.cpp's name for it, e.g. `CPU`, `CUDA0`, `Vulkan0`.
    pub name: String,
    /// The vendor's name for it.
    pub description: String,
    /// What it is.
    pub kind: DeviceKind,
    /// The backend that drives it, e.g. `CPU`, `CUDA`, `Vulkan`.
    pub backend: String,
    /// All of its memory.
    pub memory_total: Option<Bytes>,
    /// What is free now.
    pub memory_free: Option<Bytes>,
    /// PCI address, e.g. `0000:01:00.0`: what joins it with what other sources say.
    pub pci_bus_id: Option<String>,
    /// The vendor's identifier for this very card.
    pub uuid: Option<String>,
    /// Driver version.
    pub driver: Option<String>,
}

/// One thing that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// Which probe, e.g. `nvml`.
    pub probe: String,
    /// What happened, and where it is known, what to do.
    pub reason: String,
}
