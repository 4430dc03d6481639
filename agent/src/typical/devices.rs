//! What is free on GPUs, read as cheaply as their drivers allow: NVML in a process that stays open, or amdgpu's files.
//!
//! A GPU that sleeps is not woken: nobody uses its memory. On a laptop an open handle would keep the card awake, so there
//! it is opened for a look, and less often. Of other drivers nothing cheap is known, and their devices are left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::{Bytes, DeviceKind, Inventory};

use super::Level;
use crate::bench::power;
use crate::probe::kept::KeptProbe;
use crate::probe::nvml_free::{self, Card, Free};
use crate::probe::sleep;

/// How long a driver may take; one that takes longer is not asked again before the next start.
const DEADLINE: Duration = Duration::from_secs(5);
/// On laptops one sample in so many looks at NVIDIA cards.
const LAPTOP_EVERY: u32 = 10;

/// Reads what is free on the devices of an inventory.
#[derive(Debug)]
pub(super) struct Devices {
    /// `/sys`.
    sys: PathBuf,
    /// This program, for the process that asks NVML.
    program: PathBuf,
    nvml: Option<KeptProbe>,
    laptop: bool,
    looks: u32,
    /// Whether NVML is not there, or hung.
    given_up: bool,
}

impl Devices {
    pub(super) fn new(sys: &Path, program: &Path) -> Self {
        Self {
            sys: sys.to_owned(),
            program: program.to_owned(),
            nvml: None,
            laptop: power::has_battery(sys) == Some(true),
            looks: 0,
            given_up: false,
        }
    }

    /// What is free now, before this agent's own models are added.
    pub(super) async fn read(&mut self, inventory: &Inventory) -> BTreeMap<String, Level> {
        let mut levels = BTreeMap::new();
        let mut nvidia = Vec::new();
        for device in inventory.devices.iter().filter(|device| device.kind == DeviceKind::DiscreteGpu) {
            let (Some(total), Some(bus)) = (device.memory_total, device.pci_bus_id.as_deref()) else { continue };
            let Some(folder) = self.folder(bus) else { continue };
            if sleep::is_asleep(&folder) {
                levels.insert(device.name.clone(), Level { total, free: total });
            } else if let Some(level) = amdgpu(&folder, total) {
                levels.insert(device.name.clone(), level);
            } else if text(&folder.join("vendor")).as_deref() == Some("0x10de") {
                let card = Card { name: device.name.clone(), bus: bus.to_owned(), uuid: device.uuid.clone() };
                nvidia.push((card, total));
            }
        }
        self.looks = self.looks.wrapping_add(1);
        let due = !self.laptop || self.looks % LAPTOP_EVERY == 1;
        if !nvidia.is_empty() && due && !self.given_up && sleep::nvidia(&self.sys) != sleep::Nvidia::SomeAsleep {
            levels.extend(self.ask_nvml(&nvidia).await);
        }
        levels
    }

    fn folder(&self, bus: &str) -> Option<PathBuf> {
        // It came from llama.cpp, and goes into a path.
        let plain = !bus.is_empty() && bus.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.');
        let bus = bus.to_ascii_lowercase();
        plain.then(|| self.sys.join("bus/pci/devices").join(bus)).filter(|folder| folder.exists())
    }

    async fn ask_nvml(&mut self, cards: &[(Card, Bytes)]) -> Vec<(String, Level)> {
        let asked: Vec<&Card> = cards.iter().map(|(card, _)| card).collect();
        if let Some(mut nvml) = self.nvml.take().or_else(|| KeptProbe::start(&self.program, nvml_free::NAME))
            && let Some(answer) = nvml.ask::<Vec<Free>>(&asked, DEADLINE).await
        {
            self.nvml = (!self.laptop).then_some(nvml);
            let level = |answer: Free| {
                let (_, total) = cards.iter().find(|(card, _)| card.name == answer.name)?;
                Some((answer.name, Level { total: *total, free: answer.free.min(*total) }))
            };
            return answer.into_iter().filter_map(level).collect();
        }
        tracing::info!("NVML does not say what is free on the GPUs: it is not asked again");
        self.given_up = true;
        Vec::new()
    }
}

fn text(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// `mem_info_vram_*` of amdgpu (kernel documentation, driver-api amdgpu).
fn amdgpu(folder: &Path, total: Bytes) -> Option<Level> {
    let bytes = |name: &str| text(&folder.join(name))?.parse().ok().map(Bytes::new);
    let (all, used) = (bytes("mem_info_vram_total")?, bytes("mem_info_vram_used")?);
    Some(Level { total, free: all.saturating_sub(used).min(total) })
}

#[cfg(test)]
mod tests {
    use muster_proto::Device;

    use super::*;

    fn put(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, content).expect("written");
    }

    fn device(name: &str, bus: &str, kind: DeviceKind) -> Device {
        Device {
            name: name.into(),
            description: name.into(),
            kind,
            backend: "Vulkan".into(),
            memory_total: Some(Bytes::from_gib(16)),
            memory_free: None,
            pci_bus_id: Some(bus.into()),
            uuid: None,
            driver: None,
        }
    }

    #[tokio::test]
    async fn amdgpu_says_what_is_used_and_a_sleeping_card_is_all_free() {
        let sys = tempfile::tempdir().expect("a temporary directory");
        let card =
            |bus: &str, file: &str, content: &str| put(sys.path(), &format!("bus/pci/devices/{bus}/{file}"), content);
        card("0000:03:00.0", "vendor", "0x1002\n");
        card("0000:03:00.0", "mem_info_vram_total", "17163091968\n");
        card("0000:03:00.0", "mem_info_vram_used", "2147483648\n");
        card("0000:03:00.0", "power/runtime_status", "active\n");
        card("0000:04:00.0", "power/runtime_status", "suspended\n");
        card("0000:05:00.0", "vendor", "0x8086\n");
        let mut inventory = crate::news::tests::inventory(Bytes::from_gib(8), Bytes::from_gib(50));
        inventory.devices = vec![
            device("Vulkan0", "0000:03:00.0", DeviceKind::DiscreteGpu),
            device("Vulkan1", "0000:04:00.0", DeviceKind::DiscreteGpu),
            device("Vulkan2", "0000:05:00.0", DeviceKind::DiscreteGpu),
            device("Vulkan3", "0000:03:00.0", DeviceKind::IntegratedGpu),
            device("Vulkan4", "../../secret", DeviceKind::DiscreteGpu),
        ];
        let levels = Devices::new(sys.path(), Path::new("no-such-program")).read(&inventory).await;
        let total = Bytes::from_gib(16);
        let used = Bytes::new(17_163_091_968 - 2_147_483_648);
        let wanted = [("Vulkan0", Level { total, free: used }), ("Vulkan1", Level { total, free: total })];
        assert_eq!(levels, wanted.map(|(name, level)| (name.to_owned(), level)).into());
    }

    /// This machine has no such card, so that NVIDIA's library is given up as soon as it is asked.
    #[tokio::test]
    async fn a_sleeping_card_of_nvidia_keeps_the_others_from_being_asked() {
        let sys = tempfile::tempdir().expect("a temporary directory");
        for (bus, status) in [("0000:03:00.0", "active"), ("0000:04:00.0", "suspended")] {
            for (file, content) in [("vendor", "0x10de"), ("class", "0x030200"), ("power/runtime_status", status)] {
                put(sys.path(), &format!("bus/pci/devices/{bus}/{file}"), content);
            }
        }
        let mut inventory = crate::news::tests::inventory(Bytes::from_gib(8), Bytes::from_gib(50));
        inventory.devices = vec![device("CUDA0", "0000:03:00.0", DeviceKind::DiscreteGpu)];
        let mut devices = Devices::new(sys.path(), Path::new("no-such-program"));
        assert!(devices.read(&inventory).await.is_empty() && !devices.given_up);
        put(sys.path(), "bus/pci/devices/0000:04:00.0/power/runtime_status", "active\n");
        devices.read(&inventory).await;
        assert!(devices.given_up, "awake ones are asked");
    }
}
