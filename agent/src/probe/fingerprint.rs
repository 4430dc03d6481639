//! The hardware's fingerprint: changes when parts do, not when a driver or a name does.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use muster_proto::{Cpu, Device, DeviceKind, Memory, Os};
use ring::digest::{SHA256, digest};

/// Memory is rounded to this, because firmware and kernel keep a little more or less of it from start to start.
const MEMORY_STEP: u64 = 1 << 30;

/// SHA-256 over the stable facts, hexadecimal.
pub fn of(os: &Os, cpu: &Cpu, memory: Memory, devices: &[Device]) -> String {
    let mut facts = String::new();
    // The platform is a fact because speeds measured on another one say nothing.
    let _ = writeln!(facts, "platform={}", os.platform);
    let _ = writeln!(facts, "cpu={:?} cores={:?}", cpu.brand, cpu.physical_cores);
    let _ = writeln!(facts, "memory={}", (memory.total.get() + MEMORY_STEP / 2) / MEMORY_STEP);
    let mut cards: Vec<String> = devices
        .iter()
        .filter(|device| device.kind != DeviceKind::Cpu)
        .map(|device| format!("device={:?} bus={:?} kind={}", device.description, device.pci_bus_id, device.kind))
        .collect();
    cards.sort();
    for card in cards {
        let _ = writeln!(facts, "{card}");
    }
    HEXLOWER.encode(digest(&SHA256, facts.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use muster_proto::Bytes;

    use super::*;

    fn device(description: &str, driver: &str) -> Device {
        Device {
            name: "CUDA0".into(),
            description: description.into(),
            kind: DeviceKind::DiscreteGpu,
            backend: "CUDA".into(),
            memory_total: Some(Bytes::from_gib(24)),
            memory_free: None,
            pci_bus_id: Some("0000:01:00.0".into()),
            uuid: None,
            driver: Some(driver.into()),
        }
    }

    #[test]
    fn parts_change_it_and_drivers_do_not() {
        let os = Os { platform: "linux-x86_64".into(), name: None, kernel: None };
        let cpu = Cpu { brand: Some("Xeon".into()), physical_cores: Some(8), threads: 16, features: vec![] };
        let memory = |mib| Memory { total: Bytes::from_mib(mib), available: Bytes::ZERO };
        let base = of(&os, &cpu, memory(32_000), &[device("RTX 3090", "1")]);
        assert_eq!(base, of(&os, &cpu, memory(31_990), &[device("RTX 3090", "2")]));
        assert_ne!(base, of(&os, &cpu, memory(32_000), &[device("RTX 4090", "1")]));
        assert_ne!(base, of(&os, &cpu, memory(64_000), &[device("RTX 3090", "1")]));
        assert_ne!(base, of(&os, &cpu, memory(32_000), &[]));
    }
}
