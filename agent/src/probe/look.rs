//! [`Looker`]: looks at the same machine again and again, and leaves a graphics card that sleeps alone unless somebody asked.
//!
//! A driver that is asked about its cards wakes them all, every time. So while a discrete one sleeps, no driver is asked: what
//! NVML, Vulkan and llama.cpp said at the last look still holds, because a card that sleeps is used by nobody, and only what
//! wakes nobody is read anew. A card, a driver or a version that is another one is looked at in full.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use muster_proto::{Bytes, DeviceKind, Inventory};

use super::raw::{DrmAnswers, ProbeResult, RawMachine, SysfsEntry};
use super::{Probe, add_own_memory, capture, inventory, sleep};
use crate::serving::Serving;

/// Where Linux lists PCI devices, below `/sys`.
const PCI: &str = "bus/pci/devices";

/// Remembers what the drivers said.
#[derive(Debug, Default)]
pub struct Looker {
    last: Option<Last>,
}

/// The last look in full.
#[derive(Debug)]
struct Last {
    raw: RawMachine,
    /// What this agent ran then: what it took was free to others.
    serving: Arc<Serving>,
    /// PCI addresses of the cards that may sleep.
    discrete: Vec<String>,
}

impl Looker {
    /// Looks at everything; with `wake` at cards that sleep too. The first look is always in full.
    pub async fn look(&mut self, probe: &Probe, wake: bool) -> Inventory {
        if let Some(last) = self.last.as_ref().filter(|last| !wake && last.sleeps(&probe.roots.sys)) {
            let fresh = capture::gently(probe).await;
            if let Some(raw) = joined(&last.raw, fresh) {
                tracing::debug!("a graphics card sleeps: its driver was not asked");
                return last.inventory(&raw, &probe.serving);
            }
        }
        let raw = capture::capture(probe).await;
        let mut inventory = inventory(&raw);
        let cards = inventory.hardware.gpus.iter().filter(|gpu| gpu.kind == DeviceKind::DiscreteGpu);
        let discrete = cards.filter_map(|gpu| gpu.pci_bus_id.clone()).collect();
        self.last = Some(Last { raw, serving: Arc::clone(&probe.serving), discrete });
        add_own_memory(&mut inventory.devices, &mut inventory.hardware.gpus, |_| &probe.serving);
        inventory
    }
}

impl Last {
    fn sleeps(&self, sys: &Path) -> bool {
        self.discrete.iter().any(|address| sleep::is_asleep(&sys.join(PCI).join(address)))
    }

    /// What the drivers said then, and what the kernel says now of the cards that are awake.
    fn inventory(&self, raw: &RawMachine, serving: &Serving) -> Inventory {
        let mut inventory = inventory(raw);
        let (devices, gpus) = (&mut inventory.devices, &mut inventory.hardware.gpus);
        let free = raw.drm.ok().map(|drm| self.free(drm)).unwrap_or_default();
        let now = |bus: Option<&str>| free.get(bus?).copied();
        for device in devices.iter_mut() {
            device.memory_free = now(device.pci_bus_id.as_deref()).or(device.memory_free);
        }
        for gpu in gpus.iter_mut() {
            gpu.memory_free = now(gpu.pci_bus_id.as_deref()).or(gpu.memory_free);
        }
        // What this agent took when it was read.
        add_own_memory(devices, gpus, |bus| if now(bus).is_some() { serving } else { &self.serving });
        inventory
    }

    /// What is free on discrete cards, where amdgpu's files say so.
    fn free(&self, drm: &DrmAnswers) -> BTreeMap<String, Bytes> {
        let bytes = |address: &str, file: &str| match drm.files.get(&format!("{PCI}/{address}/{file}"))? {
            SysfsEntry::Text(text) => text.parse().ok().map(Bytes::new),
            _ => None,
        };
        let free = |address: &String| {
            let total = bytes(address, "mem_info_vram_total")?;
            Some((address.clone(), total.saturating_sub(bytes(address, "mem_info_vram_used")?)))
        };
        self.discrete.iter().filter_map(free).collect()
    }
}

/// What the drivers said at the last look, beside what else was read now; `None` if there are other cards or drivers now.
fn joined(last: &RawMachine, fresh: RawMachine) -> Option<RawMachine> {
    let (before, mut drm) = (last.drm.ok()?, fresh.drm.ok()?.clone());
    if cards(before) != cards(&drm) {
        return None;
    }
    // What of a sleeping card was not read because reading wakes it.
    for (path, entry) in before.files.iter().filter(|(path, _)| path.starts_with(PCI)) {
        drm.files.entry(path.clone()).or_insert_with(|| entry.clone());
    }
    let RawMachine { nvml, vulkan, ggml, .. } = last.clone();
    Some(RawMachine { drm: ProbeResult::Ok(drm), nvml, vulkan, ggml, ..fresh })
}

/// Which cards there are, which drivers are bound to them, and of which version.
fn cards(drm: &DrmAnswers) -> BTreeMap<&str, &SysfsEntry> {
    let tells = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or_default();
        ["vendor", "device", "class", "driver", "version"].contains(&file)
    };
    drm.files.iter().filter(|(path, _)| tells(path)).map(|(path, entry)| (path.as_str(), entry)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use muster_engine::worker::WorkerCommand;
    use serde::Serialize;
    use tempfile::TempDir;

    use super::*;
    use crate::news::is_news;
    use crate::roots::Roots;

    /// Its card's address.
    const CARD: &str = "0000:01:00.0";

    /// The corpus' laptop with two GPUs, whose card was awake when all probes answered.
    fn laptop() -> RawMachine {
        let text = include_str!("../../../tests/hardware/optimus-laptop-on-mains.json");
        let mut captured: serde_json::Value = serde_json::from_str(text).expect("JSON");
        serde_json::from_value(captured["raw"].take()).expect("a machine")
    }

    /// What is read of it when its card sleeps and nobody is to wake it.
    fn read_gently(laptop: &RawMachine) -> RawMachine {
        let mut drm = laptop.drm.ok().expect("files").clone();
        drm.files.retain(|path, _| !path.contains("_link_"));
        drm.files.insert(format!("{PCI}/{CARD}/power/runtime_status"), SysfsEntry::Text("suspended".into()));
        let skipped = |raw: RawMachine| RawMachine {
            nvml: ProbeResult::Skipped,
            vulkan: ProbeResult::Skipped,
            ggml: ProbeResult::Skipped,
            ..raw
        };
        skipped(RawMachine { drm: ProbeResult::Ok(drm), ..laptop.clone() })
    }

    fn last(raw: RawMachine) -> Last {
        Last { raw, serving: Arc::default(), discrete: vec![CARD.into()] }
    }

    #[test]
    fn a_sleeping_card_is_what_it_was_and_the_rest_is_new() {
        stays(laptop());
        // The same where only the kernel tells of its link, as of AMD's cards.
        let mut awake = laptop();
        awake.nvml = ProbeResult::absent("not installed");
        let ProbeResult::Ok(drm) = &mut awake.drm else { panic!("files") };
        for (file, text) in [("max_link_speed", "16.0 GT/s PCIe"), ("max_link_width", "8")] {
            drm.files.insert(format!("{PCI}/{CARD}/{file}"), SysfsEntry::Text(text.into()));
        }
        stays(awake);
    }

    #[track_caller]
    fn stays(awake: RawMachine) {
        let before = inventory(&awake);
        let card = before.hardware.gpus.iter().find(|gpu| gpu.pci_bus_id.as_deref() == Some(CARD)).expect("the card");
        assert!(card.engine_device.is_some() && card.pcie.is_some(), "{card:?}");
        let mut fresh = read_gently(&awake);
        fresh.system.memory_available = Bytes::from_gib(1);
        let last = last(awake);
        let raw = joined(&last.raw, fresh).expect("the same cards");
        let mut after = last.inventory(&raw, &Serving::default());
        assert!(is_news(&before, &after), "main memory is read anew");
        assert_eq!(after.memory.available, Bytes::from_gib(1));
        after.memory = before.memory;
        after.collected_at = before.collected_at;
        assert_eq!(after, before);
        assert_eq!(after.hardware_fingerprint, before.hardware_fingerprint);
        assert_eq!(crate::survey::drivers(&after), crate::survey::drivers(&before), "it would be measured anew");
    }

    #[test]
    fn another_card_or_driver_is_looked_at_in_full() {
        let awake = laptop();
        let changed = |change: &dyn Fn(&mut BTreeMap<String, SysfsEntry>)| {
            let mut fresh = read_gently(&awake);
            let ProbeResult::Ok(drm) = &mut fresh.drm else { panic!("files") };
            change(&mut drm.files);
            joined(&awake, fresh)
        };
        assert!(changed(&|_| {}).is_some());
        let put = |file: &'static str, text: &'static str| {
            move |files: &mut BTreeMap<String, SysfsEntry>| {
                files.insert(file.into(), SysfsEntry::Text(text.into()));
            }
        };
        assert_eq!(changed(&put("module/nvidia/version", "999.1")), None, "a driver's version");
        assert_eq!(changed(&put("bus/pci/devices/0000:02:00.0/device", "0x2684")), None, "another card");
        assert_eq!(changed(&|files| files.retain(|path, _| !path.contains(CARD))), None, "the card is gone");
        let silent = RawMachine { drm: ProbeResult::TimedOut { after_ms: 8000 }, ..read_gently(&awake) };
        assert_eq!(joined(&awake, silent), None);
    }

    #[test]
    fn what_the_kernel_says_of_a_card_that_is_awake_is_new() {
        let mut raw = laptop();
        let ProbeResult::Ok(drm) = &mut raw.drm else { panic!("files") };
        for (file, bytes) in [("mem_info_vram_total", 8_u64 << 30), ("mem_info_vram_used", 4 << 30)] {
            drm.files.insert(format!("{PCI}/{CARD}/{file}"), SysfsEntry::Text(bytes.to_string()));
        }
        let found = last(raw.clone()).inventory(&raw, &Serving::default());
        let gpu = found.hardware.gpus.iter().find(|gpu| gpu.pci_bus_id.as_deref() == Some(CARD)).expect("the card");
        assert_eq!(gpu.memory_free, Some(Bytes::from_gib(4)));
        let device = found.devices.iter().find(|device| Some(&device.name) == gpu.engine_device.as_ref());
        assert_eq!(device.expect("its device").memory_free, Some(Bytes::from_gib(4)));
    }

    /// A laptop whose probes note that they were asked.
    struct Laptop {
        folder: TempDir,
        probe: Probe,
    }

    impl Laptop {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = |name: &str| folder.path().join(name);
            let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho \"$*\" >> asked\ncat \"$2.json\" 2>/dev/null\n";
            fs::write(path("agent"), script).expect("written");
            fs::set_permissions(path("agent"), fs::Permissions::from_mode(0o700)).expect("executable");
            fs::create_dir_all(path("sys").join(PCI).join(CARD).join("power")).expect("made");
            let roots = Roots { sys: path("sys"), dev: path("dev"), proc: path("proc") };
            let probe =
                Probe { roots, store: path("."), worker: WorkerCommand::new(path("agent")), serving: Arc::default() };
            let made = Self { folder, probe };
            let machine = laptop();
            made.answer("drm", &machine.drm);
            made.answer("drm-gently", &read_gently(&machine).drm);
            made.answer("nvml", &machine.nvml);
            made.answer("vulkan", &machine.vulkan);
            made
        }

        fn answer(&self, name: &str, answer: &impl Serialize) {
            let line = serde_json::to_string(answer).expect("serializes") + "\n";
            fs::write(self.folder.path().join(format!("{name}.json")), line).expect("written");
        }

        fn is(&self, status: &str) {
            let file = self.probe.roots.sys.join(PCI).join(CARD).join("power/runtime_status");
            fs::write(file, format!("{status}\n")).expect("written");
        }

        /// Who was asked since the last call, sorted.
        fn asked(&self) -> Vec<String> {
            let file = self.folder.path().join("asked");
            let mut asked: Vec<String> =
                fs::read_to_string(&file).unwrap_or_default().lines().map(str::to_owned).collect();
            let _ = fs::remove_file(file);
            asked.sort();
            asked
        }
    }

    #[tokio::test]
    async fn no_driver_is_asked_while_a_card_sleeps_unless_somebody_wants_it() {
        let laptop = Laptop::new();
        let mut looker = Looker::default();
        let drivers = |asked: &[String]| asked.iter().any(|name| name != "probe drm-gently");
        laptop.is("suspended");
        let first = looker.look(&laptop.probe, false).await;
        assert!(drivers(&laptop.asked()), "the first look is in full");
        let gently = looker.look(&laptop.probe, false).await;
        assert_eq!(laptop.asked(), ["probe drm-gently"]);
        assert_eq!(gently.hardware_fingerprint, first.hardware_fingerprint);
        assert_eq!(gently.hardware.gpus, first.hardware.gpus);
        assert_eq!((gently.devices, gently.failures), (first.devices, first.failures));
        looker.look(&laptop.probe, true).await;
        assert!(drivers(&laptop.asked()), "somebody asked");
        laptop.is("active");
        looker.look(&laptop.probe, false).await;
        assert!(drivers(&laptop.asked()), "it is awake anyway");
    }
}
