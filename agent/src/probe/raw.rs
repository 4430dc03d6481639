//! [`RawMachine`]: what all probes answered, before anybody drew a conclusion.
//!
//! Plain data that serializes, so that a machine can be captured in one file and looked at again by
//! [`assemble`](super::assemble::assemble) anywhere. It does not know how the answers were got, nor what they mean. A field
//! that a probe did not answer is left out; in lists of fields that fail alone, `errors` says why.

use std::collections::BTreeMap;

pub use muster_engine::vulkan::{VulkanAdapter, VulkanAnswers, VulkanHeap, VulkanKind};
use muster_proto::{Bytes, Device, Disk};
use serde::{Deserialize, Serialize};

/// How a probe ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeResult<T> {
    /// It answered.
    Ok(T),
    /// It could not.
    Failed {
        /// What happened, in the words of whoever said no.
        reason: String,
        /// Whether what it asks is simply not installed: of no interest where nothing needs it.
        #[serde(default)]
        absent: bool,
    },
    /// It did not answer in time, and was killed.
    TimedOut {
        /// After so long.
        after_ms: u64,
    },
    /// It was not asked: another system's.
    #[default]
    Skipped,
}

impl<T> ProbeResult<T> {
    /// The answer, if there is one.
    pub const fn ok(&self) -> Option<&T> {
        match self {
            Self::Ok(answer) => Some(answer),
            _ => None,
        }
    }

    /// The failure of a probe that is there and did not work.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), absent: false }
    }

    /// The failure of a probe whose library or system is not installed.
    pub fn absent(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), absent: true }
    }
}

/// All answers of one machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawMachine {
    /// Where the answers are from: captured on a machine, or made from which document. For the corpus.
    pub provenance: String,
    /// Processor, memory, operating system.
    pub system: RawSystem,
    /// The engine's build.
    pub engine: RawEngine,
    /// Who looks, and from where.
    pub session: RawSession,
    /// The firmware's table by the names that Linux gives its files, e.g. `sys_vendor`, `product_name`, `chassis_type`.
    /// Windows and macOS fill the same names from their own sources.
    pub dmi: ProbeResult<BTreeMap<String, String>>,
    /// Batteries and mains adapters. Windows and macOS translate into the same attributes.
    pub power: ProbeResult<Vec<PowerSupply>>,
    /// The volume of the model store.
    pub store_disk: ProbeResult<Disk>,
    /// Linux: GPUs as the kernel shows them.
    pub drm: ProbeResult<DrmAnswers>,
    /// NVIDIA's management library.
    pub nvml: ProbeResult<NvmlAnswers>,
    /// Vulkan's physical devices.
    pub vulkan: ProbeResult<VulkanAnswers>,
    /// What llama.cpp can compute on, its CPU too, in its own order.
    pub ggml: ProbeResult<Vec<Device>>,
    /// Windows: adapters of DXGI.
    pub dxgi: ProbeResult<Vec<DxgiAdapter>>,
    /// Windows: display adapters of the registry.
    pub registry: ProbeResult<Vec<RegistryAdapter>>,
    /// macOS: devices of Metal.
    pub metal: ProbeResult<Vec<MetalDevice>>,
}

/// Processor, memory, operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawSystem {
    /// Family and architecture, e.g. `linux-x86_64`, `windows-x86_64`, `macos-aarch64`.
    pub platform: String,
    /// The system as it names itself.
    pub os_name: Option<String>,
    /// Its kernel's version.
    pub kernel: Option<String>,
    /// The name that the machine calls itself.
    pub hostname: String,
    /// The processor's name.
    pub cpu_brand: Option<String>,
    /// Physical cores.
    pub physical_cores: Option<u32>,
    /// Hardware threads.
    pub threads: u32,
    /// Instruction sets that llama.cpp has code for.
    pub cpu_features: Vec<String>,
    /// Main memory.
    pub memory_total: Bytes,
    /// What a new program could get of it.
    pub memory_available: Bytes,
    /// What could not be read of the above.
    pub errors: BTreeMap<String, String>,
}

/// What the engine was built with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawEngine {
    /// Backends that it carries, by ggml's names, e.g. `CPU`, `Vulkan`, `CUDA`, `Metal`.
    pub backends: Vec<String>,
}

/// Who looks, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawSession {
    /// The user that the agent runs as.
    pub user: Option<String>,
    /// Its groups, by name where they have one.
    pub groups: Vec<String>,
    /// Whether that user may everything.
    pub root: bool,
    /// Windows: `SM_REMOTESESSION`; Linux: `SSH_CONNECTION`, `XRDP_SESSION` and the like, by name.
    pub remote: Option<String>,
    /// The directory domain that the machine belongs to, where it says so.
    pub domain: Option<String>,
    /// Whether this is inside a container, and which kind, e.g. `docker`.
    pub container: Option<String>,
    /// The hypervisor that this is a guest of, e.g. `kvm`, `microsoft`, `vmware`.
    pub hypervisor: Option<String>,
}

/// One entry of `/sys/class/power_supply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerSupply {
    /// Its name, e.g. `BAT0`, `AC`.
    pub name: String,
    /// Its files: `type` (`Battery`, `Mains`, `USB`), `online`, `status`, `present`, `scope` (`Device` for a mouse's).
    pub attributes: BTreeMap<String, String>,
}

/// What Linux shows of GPUs below `/sys` and `/dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrmAnswers {
    /// Below `/sys`, by relative path: for each GPU on PCI the files of its folder `bus/pci/devices/0000:01:00.0/` (`vendor`,
    /// `device`, `class`, `boot_vga`, `driver`, `mem_info_vram_total`, `drm/card0`, `drm/renderD128`, ...), for each on
    /// another bus those of `class/drm/card0/device/`, and of a driver its `module/amdgpu/version`.
    pub files: BTreeMap<String, SysfsEntry>,
    /// Device nodes by path below `/dev`, e.g. `dri/renderD128`, `kfd`, `nvidia0`, `nvidiactl`.
    pub nodes: BTreeMap<String, DeviceNode>,
    /// Names out of the system's `pci.ids`, by `10de:2684`.
    pub pci_names: BTreeMap<String, String>,
}

/// A file's content or a link's target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SysfsEntry {
    /// What is in the file, without the last line break. Of a folder: nothing.
    Text(String),
    /// Where the link points to.
    Link {
        /// The target as it stands in the link.
        link: String,
    },
    /// It is there and cannot be read.
    Error {
        /// What the kernel says, e.g. `Permission denied (os error 13)`.
        error: String,
    },
}

/// A device node, and whether this user may use it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceNode {
    /// Whether it may be opened for reading and writing.
    pub usable: bool,
    /// What the kernel says if not.
    pub error: Option<String>,
    /// The group that owns it.
    pub group: Option<String>,
    /// Its access rights, e.g. 0o660.
    pub mode: Option<u32>,
}

/// What NVML said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvmlAnswers {
    /// The driver's version, e.g. `580.95.05`.
    pub driver_version: Option<String>,
    /// NVML's number of the newest CUDA that the driver takes: 13000 is 13.0.
    pub cuda_version: Option<i32>,
    /// The cards. One that cannot be opened is here with nothing but `index` and `errors`.
    pub devices: Vec<NvmlDevice>,
    /// What could not be read of the above, by the field's name.
    pub errors: BTreeMap<String, String>,
}

/// One card, or of `slices` one MIG slice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvmlDevice {
    /// NVML's number of it.
    pub index: u32,
    /// Its name.
    pub name: Option<String>,
    /// `GPU-…`, of a slice `MIG-…`.
    pub uuid: Option<String>,
    /// As NVML writes it, e.g. `00000000:01:00.0`.
    pub pci_bus_id: Option<String>,
    /// PCI device and vendor in one number: 0x268410de.
    pub pci_device_id: Option<u32>,
    /// See [`NvmlMemory`].
    pub memory: Option<NvmlMemory>,
    /// Major and minor.
    pub compute_capability: Option<(i32, i32)>,
    /// PCIe generation now.
    pub pcie_generation: Option<u32>,
    /// Lanes now.
    pub pcie_width: Option<u32>,
    /// PCIe generation at most.
    pub pcie_generation_max: Option<u32>,
    /// Lanes at most.
    pub pcie_width_max: Option<u32>,
    /// Power limit in force, in milliwatts.
    pub power_limit_milliwatts: Option<u32>,
    /// In degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Reasons for a lower clock, as words in NVML's spelling, e.g. `sw_thermal_slowdown`, `gpu_idle`.
    pub throttle_reasons: Option<Vec<String>>,
    /// Whether ECC is on.
    pub ecc: Option<bool>,
    /// Whether MIG is on.
    pub mig: Option<bool>,
    /// Its MIG slices.
    pub slices: Vec<Self>,
    /// Programs that hold its memory; one is here once for each kind of use.
    pub processes: Vec<NvmlProcess>,
    /// What could not be read of the above, by the field's name.
    pub errors: BTreeMap<String, String>,
}

/// A card's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvmlMemory {
    /// All.
    pub total: Bytes,
    /// Free.
    pub free: Bytes,
    /// Used.
    pub used: Bytes,
}

/// A program that holds memory of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvmlProcess {
    /// Its process.
    pub pid: u32,
    /// Its name, where it may be read.
    pub name: Option<String>,
    /// What it holds; Windows' driver model does not tell.
    pub bytes: Option<Bytes>,
}

/// One adapter of DXGI (`DXGI_ADAPTER_DESC1` and `QueryVideoMemoryInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DxgiAdapter {
    /// `Description`.
    pub description: String,
    /// `VendorId`.
    pub vendor_id: u32,
    /// `DeviceId`.
    pub device_id: u32,
    /// `SubSysId`.
    pub subsys_id: u32,
    /// `Revision`.
    pub revision: u32,
    /// `AdapterLuid`, 16 hexadecimal digits, low part first as in memory: comparable with Vulkan's.
    pub luid: Option<String>,
    /// `DedicatedVideoMemory`.
    pub dedicated_video: Bytes,
    /// `DedicatedSystemMemory`.
    pub dedicated_system: Bytes,
    /// `SharedSystemMemory`.
    pub shared_system: Bytes,
    /// `DXGI_ADAPTER_FLAG_REMOTE`.
    pub remote: bool,
    /// `DXGI_ADAPTER_FLAG_SOFTWARE`.
    pub software: bool,
    /// `QueryVideoMemoryInfo(LOCAL)`: budget.
    pub local_budget: Option<Bytes>,
    /// The same: current usage of this process.
    pub local_usage: Option<Bytes>,
    /// `QueryVideoMemoryInfo(NON_LOCAL)`: budget.
    pub non_local_budget: Option<Bytes>,
    /// Whether the driver says it computes in main memory (`D3D12_FEATURE_DATA_ARCHITECTURE::UMA`), where it was asked.
    pub uma: Option<bool>,
    /// `CheckInterfaceSupport`: the user-mode driver's version, e.g. `32.0.15.6094`.
    pub driver_version: Option<String>,
    /// PCI address, where SetupAPI or `D3DKMTQueryAdapterInfo` told it.
    pub pci_bus_id: Option<String>,
}

/// One display adapter of the registry, `…\Class\{4d36e968-e325-11ce-bfc1-08002be10318}\0000`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryAdapter {
    /// The key's name, e.g. `0000`.
    pub key: String,
    /// `DriverDesc`.
    pub description: Option<String>,
    /// `MatchingDeviceId`, e.g. `pci\ven_10de&dev_2684`.
    pub matching_device_id: Option<String>,
    /// `DriverVersion`.
    pub driver_version: Option<String>,
    /// `ProviderName`.
    pub provider: Option<String>,
    /// `HardwareInformation.qwMemorySize`: 64 bit.
    pub qw_memory_size: Option<u64>,
    /// `HardwareInformation.MemorySize`: 32 bit, ends at 4 GiB and is believed by nobody here; kept as it was found.
    pub memory_size: Option<u32>,
    /// `LocationInformation` of its device, e.g. `PCI bus 1, device 0, function 0`.
    pub location: Option<String>,
    /// The device's problem code (`CM_PROB_…`): 43 the driver stopped it, 28 no driver, 22 disabled.
    pub problem: Option<u32>,
}

/// One `MTLDevice`.
#[expect(clippy::struct_excessive_bools, reason = "Metal's own properties")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetalDevice {
    /// `name`, e.g. `Apple M3 Max`.
    pub name: String,
    /// `registryID`.
    pub registry_id: u64,
    /// `recommendedMaxWorkingSetSize`.
    pub recommended_max_working_set: Bytes,
    /// `currentAllocatedSize`, of this process.
    pub current_allocated: Option<Bytes>,
    /// `maxBufferLength`.
    pub max_buffer_length: Bytes,
    /// `hasUnifiedMemory`.
    pub unified_memory: bool,
    /// `isLowPower`: the integrated one of two.
    pub low_power: bool,
    /// `isRemovable`: an external one.
    pub removable: bool,
    /// `isHeadless`: no display.
    pub headless: bool,
    /// Newest GPU family that it has, e.g. `apple9`, `mac2`.
    pub family: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_in_few_words_reads_and_comes_back() {
        let text = r#"{
            "system": {"platform": "linux-x86_64"},
            "drm": {"ok": {"files": {
                "bus/pci/devices/0000:01:00.0/vendor": "0x10de",
                "bus/pci/devices/0000:01:00.0/driver": {"link": "../../../bus/pci/drivers/nvidia"},
                "bus/pci/devices/0000:01:00.0/config": {"error": "Permission denied (os error 13)"}
            }}},
            "nvml": {"timed_out": {"after_ms": 5000}},
            "vulkan": {"failed": {"reason": "no loader"}},
            "metal": "skipped"
        }"#;
        let machine: RawMachine = serde_json::from_str(text).expect("a machine");
        assert_eq!(machine.nvml, ProbeResult::TimedOut { after_ms: 5000 });
        assert_eq!(machine.vulkan, ProbeResult::failed("no loader"));
        let drm = machine.drm.ok().expect("answered");
        assert!(matches!(&drm.files["bus/pci/devices/0000:01:00.0/driver"], SysfsEntry::Link { .. }));
        let again = serde_json::from_str(&serde_json::to_string(&machine).expect("serializes")).expect("reads");
        assert_eq!(machine, again);
        assert!(serde_json::from_str::<RawMachine>(r#"{"nmvl": "skipped"}"#).is_err(), "a typing error passed");
    }
}
