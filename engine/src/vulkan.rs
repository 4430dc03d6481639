//! Vulkan's physical devices, as their drivers describe them: [`VulkanAnswers`].
//!
//! Plain data; it does not know which of them are one and the same GPU, nor which llama.cpp takes. Asking loads every
//! installed driver into the process, any of which may hang or crash: ask in a child process. Entry point: [`ask`].

use muster_proto::Bytes;
use serde::{Deserialize, Serialize};

use crate::ffi;

/// What Vulkan said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VulkanAnswers {
    /// The loader's version, e.g. `1.3.239`.
    pub loader_version: Option<String>,
    /// The physical devices, software renderers too, in Vulkan's order.
    pub adapters: Vec<VulkanAdapter>,
}

/// One physical device of Vulkan. One GPU may be several: one for each installed driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VulkanAdapter {
    /// The driver's name for it.
    pub name: String,
    /// PCI vendor; beyond 0xffff Khronos' own numbers, e.g. 0x10005 for Mesa's software renderer.
    pub vendor_id: u32,
    /// PCI device, where the vendor is one of PCI's.
    pub device_id: u32,
    /// What the driver says it is.
    pub kind: VulkanKind,
    /// Vulkan's version, e.g. `1.3.239`.
    pub api_version: Option<String>,
    /// The driver's name, e.g. `radv`, `llvmpipe`, `NVIDIA`.
    pub driver_name: Option<String>,
    /// The driver's version in its own words, e.g. `Mesa 25.0.7`, `580.95.05`.
    pub driver_info: Option<String>,
    /// `VkPhysicalDeviceIDProperties::deviceUUID`, 32 hexadecimal digits.
    pub device_uuid: Option<String>,
    /// The same, of Windows: `deviceLUID`, 16 hexadecimal digits.
    pub luid: Option<String>,
    /// Of `VK_EXT_pci_bus_info`, e.g. `0000:01:00.0`.
    pub pci_bus_id: Option<String>,
    /// Its heaps.
    pub heaps: Vec<VulkanHeap>,
}

/// `VkPhysicalDeviceType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VulkanKind {
    /// Something else.
    #[default]
    Other,
    /// In the processor, or on the board.
    Integrated,
    /// A card.
    Discrete,
    /// A virtual machine's.
    Virtual,
    /// A software renderer.
    Cpu,
}

/// A heap of a physical device of Vulkan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VulkanHeap {
    /// All of it.
    pub size: Bytes,
    /// Whether it is `DEVICE_LOCAL`.
    pub device_local: bool,
    /// What this process may take, of `VK_EXT_memory_budget`.
    pub budget: Option<Bytes>,
    /// What this process takes.
    pub usage: Option<Bytes>,
}

/// Why Vulkan did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VulkanError {
    /// There is no loader library.
    #[error("the Vulkan loader is not installed: {reason}")]
    NoLoader {
        /// What the system says.
        reason: String,
    },
    /// The loader is there and said no: mostly because no driver is installed.
    #[error("Vulkan's {call} failed: {reason}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// Vulkan's own word, e.g. `ERROR_INCOMPATIBLE_DRIVER`.
        reason: String,
    },
}

/// Asks all installed drivers. Blocks for as long as they take.
///
/// # Errors
/// See [`VulkanError`].
pub fn ask() -> Result<VulkanAnswers, VulkanError> {
    ffi::vulkan::ask()
}
