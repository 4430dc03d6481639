//! What of an inventory is news: worth storing, sending, and planning anew for. Pure.

use std::time::Duration;

use muster_proto::{Bytes, Inventory, PcieLink, TypicalUse};

/// Free memory and disk that differ by less than this share of the total are no news.
const NEWS_SHARE: u64 = 20;
/// A summary of memory use that is older than the new one by so much is replaced, though it says the same: that it still
/// holds is news too.
const STALE: Duration = Duration::from_hours(24);

fn far(old: Bytes, new: Bytes, total: Bytes) -> bool {
    old.get().abs_diff(new.get()) > total.get() / NEWS_SHARE
}

fn far_or_gone(old: Option<Bytes>, new: Option<Bytes>, total: Option<Bytes>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => far(old, new, total.unwrap_or(new)),
        (old, new) => old.is_some() != new.is_some(),
    }
}

/// Whether an inventory says something that the old one did not.
pub fn is_news(old: &Inventory, new: &Inventory) -> bool {
    let free_memory_moved = far(old.memory.available, new.memory.available, new.memory.total);
    let disk_moved = match (old.store_disk, new.store_disk) {
        (Some(old), Some(new)) => far(old.free, new.free, new.total),
        (old, new) => old.is_some() != new.is_some(),
    };
    let device_moved = old
        .devices
        .iter()
        .zip(&new.devices)
        .any(|(old, new)| far_or_gone(old.memory_free, new.memory_free, new.memory_total));
    let gpus = old.hardware.gpus.iter().zip(&new.hardware.gpus);
    let gpu_moved = gpus.into_iter().any(|(old, new)| far_or_gone(old.memory_free, new.memory_free, new.memory_total));
    free_memory_moved
        || disk_moved
        || device_moved
        || gpu_moved
        || use_is_news(old.hardware.typical.as_ref(), new.hardware.typical.as_ref(), new)
        || still(old) != still(new)
}

/// Whether another summary of memory use is worth telling.
pub fn use_is_news(old: Option<&TypicalUse>, new: Option<&TypicalUse>, inventory: &Inventory) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old.is_some() != new.is_some() };
    let total = |name: &str| inventory.devices.iter().find(|device| device.name == name)?.memory_total;
    let devices = old.devices.iter().zip(&new.devices);
    far(old.memory_available, new.memory_available, inventory.memory.total)
        || old.devices.len() != new.devices.len()
        || devices.into_iter().any(|(old, new)| {
            old.device != new.device || far(old.free, new.free, total(&new.device).unwrap_or(new.free))
        })
        || new.until.since(old.until) > STALE
}

/// Everything but what moves all the time.
fn still(inventory: &Inventory) -> Inventory {
    let mut inventory = inventory.clone();
    inventory.collected_at = muster_proto::Timestamp::from_unix_millis(0);
    inventory.memory.available = Bytes::ZERO;
    inventory.store_disk = None;
    for device in &mut inventory.devices {
        device.memory_free = None;
    }
    inventory.hardware.typical = None;
    for gpu in &mut inventory.hardware.gpus {
        gpu.memory_free = None;
        gpu.temperature_celsius = None;
        gpu.throttle_reasons.clear();
        gpu.power_limit_watts = None;
        gpu.used_by.clear();
        // An idle card slows its link down, and speeds it up for whoever looks.
        gpu.pcie = gpu.pcie.map(|link| PcieLink { generation: None, width: None, ..link });
    }
    inventory
}

#[cfg(test)]
pub(crate) mod tests {
    use muster_proto::{Cpu, Disk, Memory, Os, Timestamp, TypicalFree};

    use super::*;

    pub(crate) fn inventory(available: Bytes, free: Bytes) -> Inventory {
        Inventory {
            collected_at: Timestamp::from_unix_millis(1),
            hostname: "desk".into(),
            hardware_fingerprint: "f".into(),
            os: Os { platform: "linux-x86_64".into(), name: None, kernel: None },
            cpu: Cpu { brand: None, physical_cores: None, threads: 2, features: vec![] },
            memory: Memory { total: Bytes::from_gib(16), available },
            devices: vec![],
            store_disk: Some(Disk { total: Bytes::from_gib(100), free }),
            engine_build: "b".into(),
            failures: vec![],
            hardware: muster_proto::Hardware::default(),
        }
    }

    #[test]
    fn small_movements_are_no_news() {
        let old = inventory(Bytes::from_gib(8), Bytes::from_gib(50));
        let mut same = inventory(Bytes::from_mib(8 * 1024 - 700), Bytes::from_gib(46));
        same.collected_at = Timestamp::from_unix_millis(99);
        assert!(!is_news(&old, &same));
        assert!(is_news(&old, &inventory(Bytes::from_gib(6), Bytes::from_gib(50))));
        assert!(is_news(&old, &inventory(Bytes::from_gib(8), Bytes::from_gib(40))));
        let mut renamed = old.clone();
        renamed.hostname = "other".into();
        assert!(is_news(&old, &renamed));
    }

    #[test]
    fn the_charger_is_news() {
        let mut old = inventory(Bytes::from_gib(8), Bytes::from_gib(50));
        old.hardware.chassis.on_mains = Some(true);
        let mut unplugged = old.clone();
        unplugged.hardware.chassis.on_mains = Some(false);
        assert!(is_news(&old, &unplugged));
    }

    #[test]
    fn typical_use_is_news_when_it_moved_or_aged() {
        let with = |available: u64, free: u64, until: i64| {
            let mut inventory = inventory(Bytes::from_gib(8), Bytes::from_gib(50));
            inventory.hardware.typical = Some(TypicalUse {
                since: Timestamp::from_unix_millis(0),
                until: Timestamp::from_unix_millis(until),
                samples: 500,
                memory_available: Bytes::from_mib(available),
                devices: vec![TypicalFree { device: "CUDA0".into(), free: Bytes::from_mib(free) }],
            });
            inventory
        };
        let old = with(8000, 10_000, 0);
        assert!(is_news(&inventory(Bytes::from_gib(8), Bytes::from_gib(50)), &old), "the first one");
        assert!(!is_news(&old, &with(8100, 10_100, 3_600_000)));
        assert!(is_news(&old, &with(7000, 10_000, 0)));
        assert!(is_news(&old, &with(8000, 5000, 0)));
        assert!(is_news(&old, &with(8000, 10_000, 25 * 3_600_000)));
    }

    #[test]
    fn a_warm_card_is_no_news_and_a_full_one_is() {
        let gpu = r#"{"name": "RTX 3090", "vendor": "nvidia", "kind": "discrete_gpu", "unified_memory": false,
            "memory_total": 25769803776, "memory_free": 24000000000, "temperature_celsius": 40.0,
            "pcie": {"generation": 1, "width": 16, "generation_max": 4, "width_max": 16}}"#;
        let mut old = inventory(Bytes::from_gib(8), Bytes::from_gib(50));
        old.hardware.gpus = vec![serde_json::from_str(gpu).expect("a GPU")];
        let mut warm = old.clone();
        let card = &mut warm.hardware.gpus[0];
        card.temperature_celsius = Some(83.0);
        card.throttle_reasons = vec!["sw_thermal_slowdown".into()];
        card.pcie = card.pcie.map(|link| PcieLink { generation: Some(4), ..link });
        card.memory_free = Some(Bytes::new(23_500_000_000));
        assert!(!is_news(&old, &warm));
        warm.hardware.gpus[0].memory_free = Some(Bytes::from_gib(2));
        assert!(is_news(&old, &warm));
        let mut unplugged = old.clone();
        unplugged.hardware.chassis.on_mains = Some(false);
        assert!(is_news(&old, &unplugged));
    }
}
