//! [`Sighting`]: one GPU as one source saw it.
//!
//! What is no GPU is sorted out here: software renderers, and adapters that only show a remote desktop.

use muster_proto::{Bytes, DeviceKind, GpuVendor, PcieLink};

use super::super::pci;
use super::super::raw::{
    DrmAnswers, DxgiAdapter, MetalDevice, NvmlAnswers, NvmlDevice, ProbeResult, RawMachine, RegistryAdapter,
    SysfsEntry, VulkanAdapter, VulkanKind,
};

/// Mesa's number of itself: its software renderers have it for a PCI vendor.
const MESA: u32 = 0x1_0005;
/// Microsoft: its software renderer and its remote adapters.
pub const MICROSOFT: u32 = 0x1414;
pub const NVIDIA: u32 = 0x10de;
pub const AMD: u32 = 0x1002;
pub const INTEL: u32 = 0x8086;
/// A virtual machine's display adapter.
const VIRTIO_GPU: (u32, u32) = (0x1af4, 0x1050);
/// AMD's other number: that of its processors' parts.
const AMD_PROCESSOR: u32 = 0x1022;

/// One GPU as one source saw it. What a source does not tell is empty.
#[derive(Clone, Debug, Default)]
pub struct Sighting<'a> {
    /// The probe.
    pub source: Source,
    /// PCI address in Linux' form.
    pub bus: Option<String>,
    /// PCI vendor and device.
    pub id: Option<(u32, u32)>,
    /// The vendor's identifier for this very card, 32 hexadecimal digits where it is one.
    pub uuid: Option<String>,
    /// Windows' identifier.
    pub luid: Option<&'a str>,
    /// Its name.
    pub name: Option<String>,
    /// Discrete or integrated, where this source can tell.
    pub kind: Option<DeviceKind>,
    /// Memory of its own.
    pub total: Option<Bytes>,
    /// What is free of that.
    pub free: Option<Bytes>,
    /// Main memory that it may use.
    pub shared: Option<Bytes>,
    /// The driver and its version.
    pub driver: Option<String>,
    /// The driver's name alone, to tell two drivers of one GPU from two GPUs.
    pub driver_name: Option<&'a str>,
    /// The PCIe link.
    pub pcie: Option<PcieLink>,
    /// All that NVML says.
    pub nvml: Option<&'a NvmlDevice>,
    /// All that the registry says.
    pub registry: Option<&'a RegistryAdapter>,
    /// Its render nodes, by path below `/dev`.
    pub nodes: Vec<String>,
}

/// The probes, the most trustworthy about sizes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Nvml,
    #[default]
    Drm,
    Metal,
    Vulkan,
    Dxgi,
    Registry,
    Ggml,
}

impl Source {
    /// The probe's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nvml => "nvml",
            Self::Drm => "drm",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::Dxgi => "dxgi",
            Self::Registry => "registry",
            Self::Ggml => "ggml",
        }
    }
}

/// Who made it, by PCI vendor.
pub fn vendor_of(number: u32) -> GpuVendor {
    match number {
        NVIDIA => GpuVendor::Nvidia,
        AMD | AMD_PROCESSOR => GpuVendor::Amd,
        INTEL => GpuVendor::Intel,
        0x106b => GpuVendor::Apple,
        0x17cb | 0x5143 | 0x4d4f_4351 => GpuVendor::Qualcomm,
        _ => GpuVendor::Other,
    }
}

/// GPUs below `/sys`.
pub fn drm(answers: &DrmAnswers) -> Vec<Sighting<'_>> {
    let mut found: Vec<Sighting<'_>> = Vec::new();
    let read = Sysfs { answers };
    let folders = answers.files.keys().filter_map(|path| path.strip_suffix("/class"));
    for folder in folders {
        let Some(address) = folder.strip_prefix("bus/pci/devices/") else { continue };
        let (class, vendor) = (read.number(folder, "class"), read.number(folder, "vendor"));
        let is_gpu = match class.map(|class| class >> 16) {
            Some(0x03) => true,
            Some(0x12) => vendor == Some(AMD),
            _ => false,
        };
        // A slice of a card that this machine gives to its guests is no card of its own.
        if !is_gpu || read.entry(folder, "physfn").is_some() {
            continue;
        }
        found.push(read.on_pci(folder, address, vendor));
    }
    let platform = answers.files.keys().filter_map(|path| path.strip_suffix("/device/uevent"));
    // A card and its render node are one; the card stands first.
    let mut seen: Vec<&str> = Vec::new();
    for folder in platform {
        let Some(uevent) = read.text(&format!("{folder}/device"), "uevent") else { continue };
        if !seen.contains(&uevent) {
            seen.push(uevent);
            found.extend(platform_gpu(uevent));
        }
    }
    found
}

/// A GPU that is part of the chip, by its device tree's entry.
fn platform_gpu(uevent: &str) -> Option<Sighting<'_>> {
    let value = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let driver = value("DRIVER")?;
    // Those that only show a picture.
    if ["simple-framebuffer", "vkms", "efi-framebuffer", "vgem"].contains(&driver) {
        return None;
    }
    let compatible = value("OF_COMPATIBLE_0").unwrap_or(driver);
    let vendor = match compatible {
        name if name.starts_with("qcom,") => 0x5143,
        name if name.starts_with("apple,") => 0x106b,
        name if name.starts_with("nvidia,") => NVIDIA,
        _ => 0,
    };
    Some(Sighting {
        id: Some((vendor, 0)),
        name: Some(compatible.to_owned()),
        kind: Some(DeviceKind::IntegratedGpu),
        driver: Some(driver.to_owned()),
        driver_name: Some(driver),
        ..Sighting::default()
    })
}

struct Sysfs<'a> {
    answers: &'a DrmAnswers,
}

impl<'a> Sysfs<'a> {
    fn entry(&self, folder: &str, file: &str) -> Option<&'a SysfsEntry> {
        self.answers.files.get(&format!("{folder}/{file}"))
    }

    fn text(&self, folder: &str, file: &str) -> Option<&'a str> {
        match self.entry(folder, file)? {
            SysfsEntry::Text(text) => Some(text.trim()),
            _ => None,
        }
    }

    fn number(&self, folder: &str, file: &str) -> Option<u32> {
        pci::number(self.text(folder, file)?)
    }

    fn bytes(&self, folder: &str, file: &str) -> Option<Bytes> {
        self.text(folder, file)?.parse().ok().map(Bytes::new)
    }

    fn on_pci(&self, folder: &str, address: &str, vendor: Option<u32>) -> Sighting<'a> {
        let id = vendor.zip(self.number(folder, "device"));
        let driver_name = match self.entry(folder, "driver") {
            Some(SysfsEntry::Link { link }) => link.rsplit('/').next(),
            Some(SysfsEntry::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        let version = driver_name.and_then(|name| self.text(&format!("module/{name}"), "version"));
        let driver = driver_name.map(|name| match version {
            Some(version) => format!("{name} {version}"),
            None => name.to_owned(),
        });
        let integrated = match vendor {
            Some(INTEL) => Some(address.ends_with(":00:02.0")),
            Some(AMD) if self.is_in_processor(address, id) => Some(true),
            Some(NVIDIA) => Some(false),
            _ => None,
        };
        let total = self
            .bytes(folder, "mem_info_vram_total")
            .or_else(|| self.bytes(folder, "lmem_total_bytes"))
            .or_else(|| self.bytes(folder, "tile0/physical_vram_size_bytes"));
        let free = self
            .bytes(folder, "mem_info_vram_used")
            .and_then(|used| Some(total?.saturating_sub(used)))
            .or_else(|| self.bytes(folder, "lmem_avail_bytes"));
        let prefix = format!("{folder}/drm/");
        let nodes = self.answers.files.keys().filter_map(|path| path.strip_prefix(&prefix));
        Sighting {
            source: Source::Drm,
            bus: pci::normalize(address),
            id,
            uuid: self.text(folder, "unique_id").map(|unique| format!("GPU-{}", unique.trim_start_matches("0x"))),
            name: id.and_then(|(vendor, device)| self.answers.pci_names.get(&pci::id(vendor, device)).cloned()),
            kind: integrated.map(
                |integrated| {
                    if integrated { DeviceKind::IntegratedGpu } else { DeviceKind::DiscreteGpu }
                },
            ),
            total,
            free,
            shared: self.bytes(folder, "mem_info_gtt_total"),
            driver,
            driver_name,
            pcie: self.link(folder),
            nodes: nodes
                .filter(|name| name.starts_with("renderD") && !name.contains('/'))
                .map(|name| format!("dri/{name}"))
                .collect(),
            ..Sighting::default()
        }
    }

    /// AMD's processors have other functions of the processor (security processor, USB) in the place of their GPU.
    fn is_in_processor(&self, address: &str, id: Option<(u32, u32)>) -> bool {
        let place = address.rsplit_once('.').map_or(address, |(place, _)| place);
        let beside = (1..8).any(|function| {
            self.number(&format!("bus/pci/devices/{place}.{function}"), "vendor") == Some(AMD_PROCESSOR)
        });
        beside || id.is_some_and(|(_, device)| AMD_INTEGRATED.contains(&device))
    }

    fn link(&self, folder: &str) -> Option<PcieLink> {
        let generation = |file| generation_of(self.text(folder, file)?);
        let width = |file| self.text(folder, file)?.parse().ok().filter(|width| (1..=32).contains(width));
        let link = PcieLink {
            generation: generation("current_link_speed"),
            width: width("current_link_width"),
            generation_max: generation("max_link_speed"),
            width_max: width("max_link_width"),
        };
        (link != PcieLink::default()).then_some(link)
    }
}

/// PCI devices of GPUs in AMD's processors, for where nothing else tells: Raven to Strix Halo, from memory of `pci.ids`.
pub const AMD_INTEGRATED: [u32; 19] = [
    0x15dd, 0x15d8, 0x1636, 0x1638, 0x164c, 0x163f, 0x164d, 0x1681, 0x164e, 0x1506, 0x15bf, 0x15c8, 0x1900, 0x1901,
    0x150e, 0x1586, 0x13c0, 0x1114, 0x1435,
];

/// `16.0 GT/s PCIe` → 4.
fn generation_of(speed: &str) -> Option<u32> {
    match speed.split_whitespace().next()? {
        "2.5" => Some(1),
        "5" | "5.0" => Some(2),
        "8" | "8.0" => Some(3),
        "16" | "16.0" => Some(4),
        "32" | "32.0" => Some(5),
        "64" | "64.0" => Some(6),
        _ => None,
    }
}

/// NVIDIA's cards. Those whose processor and GPU share memory have no memory of their own in NVML's eyes.
pub fn nvml(answers: &NvmlAnswers) -> Vec<Sighting<'_>> {
    answers
        .devices
        .iter()
        .map(|card| {
            let name = card.name.clone();
            let unified = name.as_deref().is_some_and(shares_memory);
            Sighting {
                source: Source::Nvml,
                bus: card.pci_bus_id.as_deref().and_then(pci::normalize),
                id: card.pci_device_id.map(|id| (id & 0xffff, id >> 16)).or(Some((NVIDIA, 0))),
                uuid: card.uuid.clone(),
                name,
                kind: unified.then_some(DeviceKind::IntegratedGpu),
                total: card.memory.map(|memory| memory.total).filter(|total| *total > Bytes::ZERO),
                free: card.memory.map(|memory| memory.free),
                driver: answers.driver_version.as_ref().map(|version| format!("nvidia {version}")),
                pcie: link(card),
                nvml: Some(card),
                ..Sighting::default()
            }
        })
        .collect()
}

/// NVIDIA's chips with one memory for processor and GPU.
fn shares_memory(name: &str) -> bool {
    ["GB10", "Tegra", "Orin", "Thor", "Xavier", "N1X"]
        .iter()
        .any(|chip| name.split_whitespace().any(|word| word == *chip))
}

fn link(card: &NvmlDevice) -> Option<PcieLink> {
    let link = PcieLink {
        generation: card.pcie_generation,
        width: card.pcie_width,
        generation_max: card.pcie_generation_max,
        width_max: card.pcie_width_max,
    };
    (link != PcieLink::default()).then_some(link)
}

/// Whether an adapter computes on the processor.
pub fn is_software(adapter: &VulkanAdapter) -> bool {
    let name = adapter.name.to_ascii_lowercase();
    let real = matches!(adapter.kind, VulkanKind::Integrated | VulkanKind::Discrete);
    adapter.kind == VulkanKind::Cpu
        || (adapter.vendor_id == MESA && !real)
        || adapter.vendor_id == MICROSOFT
        || ["llvmpipe", "lavapipe", "softpipe", "swiftshader", "basic render"].iter().any(|word| name.contains(word))
}

/// Vulkan's adapters but software renderers.
pub fn vulkan(adapters: &[VulkanAdapter]) -> Vec<Sighting<'_>> {
    adapters.iter().filter(|adapter| !is_software(adapter)).map(vulkan_one).collect()
}

fn vulkan_one(adapter: &VulkanAdapter) -> Sighting<'_> {
    let integrated = adapter.kind == VulkanKind::Integrated;
    let local: Vec<_> = adapter.heaps.iter().filter(|heap| heap.device_local).collect();
    let largest = local.iter().max_by_key(|heap| heap.size);
    // AMD's drivers cut one memory into the part that the processor sees and the rest; others show a window into the same
    // memory as a heap of its own, which must not be counted twice.
    let own: Option<Bytes> = match adapter.vendor_id {
        AMD => Some(local.iter().map(|heap| heap.size).sum()).filter(|sum| *sum > Bytes::ZERO),
        _ => largest.map(|heap| heap.size),
    };
    let budget: Option<Bytes> = match adapter.vendor_id {
        AMD => local.iter().map(|heap| heap.budget).sum::<Option<Bytes>>().filter(|_| !local.is_empty()),
        _ => largest.and_then(|heap| heap.budget),
    };
    let driver = adapter.driver_info.as_ref().or(adapter.driver_name.as_ref());
    Sighting {
        source: Source::Vulkan,
        bus: adapter.pci_bus_id.as_deref().and_then(pci::normalize),
        id: match adapter.driver_name.as_deref() {
            // A guest's window to the host's GPU, whose numbers it shows.
            Some("venus") => Some(VIRTIO_GPU),
            _ if adapter.vendor_id == 0 || adapter.vendor_id > 0xffff => None,
            _ => Some((adapter.vendor_id, adapter.device_id)),
        },
        uuid: adapter.device_uuid.clone(),
        luid: adapter.luid.as_deref(),
        name: Some(adapter.name.clone()).filter(|name| !name.is_empty()),
        kind: match adapter.kind {
            VulkanKind::Integrated => Some(DeviceKind::IntegratedGpu),
            VulkanKind::Discrete => Some(DeviceKind::DiscreteGpu),
            _ => None,
        },
        total: own.filter(|_| !integrated),
        free: budget.zip(own).map(|(budget, own)| budget.min(own)).filter(|_| !integrated),
        shared: if integrated { adapter.heaps.iter().map(|heap| heap.size).max() } else { None },
        driver: driver.cloned(),
        driver_name: adapter.driver_name.as_deref(),
        ..Sighting::default()
    }
}

/// DXGI's adapters but software renderers and those that show a remote desktop.
pub fn dxgi(adapters: &[DxgiAdapter]) -> Vec<Sighting<'_>> {
    let shown =
        adapters.iter().filter(|adapter| !adapter.software && !adapter.remote && adapter.vendor_id != MICROSOFT);
    shown
        .map(|adapter| {
            // A chip without memory of its own says so with almost none.
            let unified = adapter.uma.unwrap_or(adapter.vendor_id != NVIDIA && adapter.dedicated_video < SMALL);
            Sighting {
                source: Source::Dxgi,
                bus: adapter.pci_bus_id.as_deref().and_then(pci::normalize),
                id: Some((adapter.vendor_id, adapter.device_id)),
                luid: adapter.luid.as_deref(),
                name: Some(adapter.description.trim().to_owned()).filter(|name| !name.is_empty()),
                kind: adapter
                    .uma
                    .map(|uma| if uma { DeviceKind::IntegratedGpu } else { DeviceKind::DiscreteGpu })
                    .or((unified && adapter.vendor_id == INTEL).then_some(DeviceKind::IntegratedGpu)),
                total: Some(adapter.dedicated_video).filter(|size| *size > Bytes::ZERO),
                free: adapter
                    .local_budget
                    .map(|budget| budget.saturating_sub(adapter.local_usage.unwrap_or_default()))
                    .filter(|_| !unified)
                    .map(|free| free.min(adapter.dedicated_video)),
                shared: Some(adapter.shared_system).filter(|size| *size > Bytes::ZERO),
                driver: adapter.driver_version.clone(),
                ..Sighting::default()
            }
        })
        .collect()
}

/// Below this, memory of its own is what firmware set aside for a picture.
const SMALL: Bytes = Bytes::from_mib(1025);

/// The registry's adapters that are on PCI.
pub fn registry(adapters: &[RegistryAdapter]) -> Vec<Sighting<'_>> {
    adapters
        .iter()
        .filter_map(|adapter| {
            let id = id_of(adapter.matching_device_id.as_deref()?)?;
            Some(Sighting {
                source: Source::Registry,
                bus: adapter.location.as_deref().and_then(location),
                id: Some(id),
                // The basic driver's name for everything is no name.
                name: adapter.description.clone().filter(|name| !name.contains("Basic Display")),
                // Only the 64-bit size: the other ends at 4 GiB.
                total: adapter.qw_memory_size.filter(|size| *size > 0).map(Bytes::new),
                driver: adapter.driver_version.clone(),
                registry: Some(adapter),
                ..Sighting::default()
            })
        })
        .collect()
}

/// `pci\ven_10de&dev_2684&…` → vendor and device.
fn id_of(text: &str) -> Option<(u32, u32)> {
    let text = text.to_ascii_lowercase();
    let number = |key: &str| {
        let rest = text.split_once(key)?.1;
        u32::from_str_radix(rest.get(..4)?, 16).ok()
    };
    text.starts_with("pci\\").then_some(())?;
    Some((number("ven_")?, number("dev_")?))
}

/// `PCI bus 1, device 0, function 0` → `0000:01:00.0`; the numbers are decimal. Other languages of Windows write other
/// words in the same order.
fn location(text: &str) -> Option<String> {
    let numbers: Vec<u32> =
        text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [bus, device, function] if bus < 256 && device < 32 && function < 8 => {
            Some(format!("0000:{bus:02x}:{device:02x}.{function:x}"))
        }
        _ => None,
    }
}

/// Metal's devices.
pub fn metal<'a>(devices: &'a [MetalDevice], raw: &RawMachine) -> Vec<Sighting<'a>> {
    let apple = raw.system.platform.ends_with("aarch64");
    devices
        .iter()
        .map(|device| {
            let starts = |word: &str| device.name.starts_with(word);
            let vendor = match () {
                () if starts("AMD") || starts("ATI") => AMD,
                // `Intel(R) UHD Graphics 630`.
                () if starts("Intel") => INTEL,
                () if starts("NVIDIA") => NVIDIA,
                () => 0x106b,
            };
            let integrated = device.unified_memory || device.low_power || (apple && !device.removable);
            let working_set = Some(device.recommended_max_working_set).filter(|size| *size > Bytes::ZERO);
            Sighting {
                source: Source::Metal,
                id: Some((vendor, 0)),
                name: Some(device.name.clone()),
                kind: Some(if integrated { DeviceKind::IntegratedGpu } else { DeviceKind::DiscreteGpu }),
                total: working_set.filter(|_| !integrated),
                shared: working_set.filter(|_| integrated),
                ..Sighting::default()
            }
        })
        .collect()
}

/// What a probe sighted; nothing where it did not answer.
pub fn of<'a, T, F>(answer: &'a ProbeResult<T>, sight: F) -> Vec<Sighting<'a>>
where
    F: FnOnce(&'a T) -> Vec<Sighting<'a>>,
{
    answer.ok().map(sight).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_locations_and_ids_read() {
        assert_eq!(location("PCI bus 10, device 0, function 1").as_deref(), Some("0000:0a:00.1"));
        assert_eq!(location("PCI-Bus 1, Gerät 0, Funktion 0").as_deref(), Some("0000:01:00.0"));
        assert_eq!(location("Internal"), None);
        assert_eq!(id_of("PCI\\VEN_10DE&DEV_2684&SUBSYS_1"), Some((0x10de, 0x2684)));
        assert_eq!(id_of("root\\basicdisplay"), None);
    }

    #[test]
    fn link_speeds_are_generations() {
        assert_eq!(generation_of("16.0 GT/s PCIe"), Some(4));
        assert_eq!(generation_of("2.5 GT/s PCIe"), Some(1));
        assert_eq!(generation_of("Unknown"), None);
    }

    #[test]
    fn chips_with_one_memory_are_known_by_name() {
        assert!(shares_memory("NVIDIA GB10") && shares_memory("Orin (nvgpu)"));
        assert!(!shares_memory("NVIDIA GeForce RTX 4090"));
    }
}
