//! The hardware's fingerprint: changes when parts do, not when a driver or a name does.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use muster_proto::{Cpu, Gpu, Memory, Os};
use ring::digest::{SHA256, digest};

/// Memory is rounded to this, because firmware and kernel keep a little more or less of it from start to start.
const MEMORY_STEP: u64 = 1 << 30;

/// SHA-256 over the stable facts, hexadecimal.
pub fn of(os: &Os, cpu: &Cpu, memory: Memory, gpus: &[Gpu]) -> String {
    let mut facts = String::new();
    // The platform is a fact because speeds measured on another one say nothing.
    let _ = writeln!(facts, "platform={}", os.platform);
    let _ = writeln!(facts, "cpu={:?} cores={:?}", cpu.brand, cpu.physical_cores);
    let _ = writeln!(facts, "memory={}", (memory.total.get() + MEMORY_STEP / 2) / MEMORY_STEP);
    let mut cards: Vec<String> = gpus.iter().map(card).collect();
    cards.sort();
    for card in cards {
        let _ = writeln!(facts, "{card}");
    }
    HEXLOWER.encode(digest(&SHA256, facts.as_bytes()).as_ref())
}

/// What a card is, whatever drives it. Its name only where nothing else tells: drivers name the same card differently.
fn card(gpu: &Gpu) -> String {
    let what = gpu.pci_id.as_deref().unwrap_or(&gpu.name);
    format!("gpu={what:?} uuid={:?} slice={}", gpu.uuid, gpu.slice_of.is_some())
}

#[cfg(test)]
mod tests {
    use muster_proto::{Bytes, DeviceKind, GpuVendor};

    use super::*;

    fn gpu(pci_id: &str, uuid: &str) -> Gpu {
        Gpu { pci_id: Some(pci_id.into()), uuid: Some(uuid.into()), ..blank() }
    }

    fn blank() -> Gpu {
        Gpu {
            name: "NVIDIA GeForce RTX 3090".into(),
            vendor: GpuVendor::Nvidia,
            kind: DeviceKind::DiscreteGpu,
            pci_bus_id: None,
            pci_id: None,
            uuid: None,
            driver: Some("nvidia 1".into()),
            memory_total: Some(Bytes::from_gib(24)),
            memory_free: None,
            memory_shared: None,
            unified_memory: false,
            compute_capability: None,
            cuda_version: None,
            pcie: None,
            power_limit_watts: None,
            temperature_celsius: None,
            throttle_reasons: vec![],
            ecc: None,
            mig: None,
            slice_of: None,
            used_by: vec![],
            engine_device: None,
            obstacle: None,
            sources: vec![],
        }
    }

    #[test]
    fn parts_change_it_and_drivers_do_not() {
        let os = Os { platform: "linux-x86_64".into(), name: None, kernel: None };
        let cpu = Cpu { brand: Some("Xeon".into()), physical_cores: Some(8), threads: 16, features: vec![] };
        let memory = |mib| Memory { total: Bytes::from_mib(mib), available: Bytes::ZERO };
        let (ours, another) = (gpu("10de:2204", "GPU-a"), gpu("10de:2684", "GPU-b"));
        let base = of(&os, &cpu, memory(32_000), std::slice::from_ref(&ours));
        let newer = Gpu {
            name: "GeForce RTX 3090".into(),
            driver: Some("nvidia 2".into()),
            engine_device: Some("CUDA0".into()),
            temperature_celsius: Some(60.0),
            ..ours.clone()
        };
        assert_eq!(base, of(&os, &cpu, memory(31_990), &[newer]));
        assert_ne!(base, of(&os, &cpu, memory(32_000), std::slice::from_ref(&another)));
        assert_ne!(base, of(&os, &cpu, memory(64_000), std::slice::from_ref(&ours)));
        assert_ne!(base, of(&os, &cpu, memory(32_000), &[]));
        let both = of(&os, &cpu, memory(32_000), &[ours.clone(), another.clone()]);
        assert_eq!(both, of(&os, &cpu, memory(32_000), &[another, ours]));
    }
}
