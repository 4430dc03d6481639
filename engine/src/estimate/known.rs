//! What a known device is to llama.cpp: the backend that drives it, its generation, and how much of its memory models get.

use muster_proto::Bytes;

use crate::device_table::{KnownDevice, Vendor};
use crate::speed;
use crate::worker::PhantomBackend;

/// The phantom of the backend that a device is taken to run with where none is named; `None` for a CPU.
pub fn default_backend(device: &KnownDevice) -> Option<PhantomBackend> {
    match speed::default_backend(device) {
        speed::Backend::Cuda => Some(PhantomBackend::Cuda),
        speed::Backend::Rocm => Some(PhantomBackend::Rocm),
        speed::Backend::Vulkan => Some(PhantomBackend::Vulkan),
        speed::Backend::Metal => Some(PhantomBackend::Metal),
        speed::Backend::Cpu => None,
    }
}

/// Whether a backend drives a device.
pub(super) fn runs(device: &KnownDevice, backend: PhantomBackend) -> bool {
    !device.is_cpu()
        && match backend {
            PhantomBackend::Cuda => device.vendor == Vendor::Nvidia,
            PhantomBackend::Rocm => device.vendor == Vendor::Amd,
            PhantomBackend::Metal => device.vendor == Vendor::Apple,
            PhantomBackend::Vulkan => true,
        }
}

/// What models can have of a device's memory; `None` where it is not fixed.
///
/// A graphics card's own memory, all of it. Of memory that is shared with the processor, what the system lets its GPU use:
/// Apple's Metal two thirds below 36 GiB and three quarters from there on (`recommendedMaxWorkingSetSize`, as llama.cpp
/// prints it in public logs), CUDA all of it, and others one half, which is the limit of Linux's drivers (amdgpu's GTT)
/// and of Windows.
pub fn usable_memory(device: &KnownDevice) -> Option<Bytes> {
    let memory = device.memory.or_else(|| largest_memory(device))?;
    if !device.unified {
        return Some(memory);
    }
    Some(match device.vendor {
        Vendor::Apple if memory < Bytes::from_gib(36) => Bytes::new(memory.get() / 3 * 2),
        Vendor::Apple => Bytes::new(memory.get() / 4 * 3),
        Vendor::Nvidia => memory,
        Vendor::Amd | Vendor::Intel | Vendor::Other => Bytes::new(memory.get() / 2),
    })
}

/// What a chip is sold with at most, in GiB, where it is sold with several sizes: the beginning of its key, the longest that
/// fits. From Apple's technical specifications of the Macs with it; of chips that have none yet, as their predecessors.
const LARGEST_MEMORY: [(&str, u64); 28] = [
    ("m1", 16),
    ("m1-pro", 32),
    ("m1-max", 64),
    ("m1-ultra", 128),
    ("m2", 24),
    ("m2-pro", 32),
    ("m2-max", 96),
    ("m2-max-30c", 64),
    ("m2-ultra", 192),
    ("m3", 24),
    ("m3-pro", 36),
    ("m3-max", 128),
    ("m3-max-30c", 96),
    ("m3-ultra", 512),
    ("m3-ultra-60c", 256),
    ("m4", 32),
    ("m4-pro", 64),
    ("m4-pro-16c", 48),
    ("m4-max", 128),
    ("m4-max-32c", 36),
    ("m5", 32),
    ("m5-pro", 64),
    ("m5-max", 128),
    ("m5-max-32c", 36),
    ("m5-ultra", 512),
    ("m6", 32),
    // NVIDIA's data sheet.
    ("h100-nvl", 94),
    // Integrated graphics have the memory of their machine: two usual modules.
    ("", 32),
];

/// The largest memory that a device is sold with, where the table has no size for it.
fn largest_memory(device: &KnownDevice) -> Option<Bytes> {
    let names = LARGEST_MEMORY.iter().filter(|(name, _)| device.key.starts_with(name));
    let (_, gib) = names.max_by_key(|(name, _)| name.len()).filter(|(name, _)| !name.is_empty() || device.unified)?;
    Some(Bytes::from_gib(*gib))
}

/// What should be said of a memory size that nobody gave: that the device is sold with others too.
pub fn memory_note(device: &KnownDevice) -> Option<String> {
    let memory = if device.memory.is_none() { largest_memory(device) } else { None }.filter(|_| device.unified)?;
    Some(format!(
        "{} is sold with several sizes of memory: {memory} are taken, of which its GPU gets {}; say another with --device",
        device.name,
        usable_memory(device)?
    ))
}

/// A device's generation as [`PhantomDevice::capability`](crate::worker::PhantomDevice::capability) has it; `None` where
/// the table does not tell.
pub(super) fn capability(device: &KnownDevice, backend: PhantomBackend) -> Option<u32> {
    let architecture = device.architecture.as_str();
    match backend {
        PhantomBackend::Cuda => cuda(device),
        // GCN 4 is gfx803, Vega 10 and 20 gfx900 and gfx906, CDNA gfx908, gfx90a and gfx942.
        PhantomBackend::Rocm => Some(match architecture {
            "GCN4" => 0x803,
            "GCN5" => 0x900,
            "GCN5.1" => 0x906,
            "CDNA1" => 0x908,
            "CDNA2" => 0x90a,
            "CDNA3" => 0x942,
            "RDNA1" => 0x1010,
            "RDNA2" => 0x1030,
            "RDNA3" => 0x1100,
            "RDNA3.5" => 0x1151,
            "RDNA4" => 0x1201,
            _ => return None,
        }),
        // Metal's families of Apple GPUs: M1 is Apple7, M2 Apple8, M3 and M4 Apple9, M5 Apple10.
        PhantomBackend::Metal => Some(match architecture {
            "M1" => 7,
            "M2" => 8,
            "M3" | "M4" => 9,
            _ => 10,
        }),
        // The PCI id of the vendor.
        PhantomBackend::Vulkan => match device.vendor {
            Vendor::Nvidia => Some(0x10DE),
            Vendor::Amd => Some(0x1002),
            Vendor::Intel => Some(0x8086),
            Vendor::Apple => Some(0x106B),
            Vendor::Other => None,
        },
    }
}

/// CUDA's compute capability, times a hundred (NVIDIA's table of GPUs).
fn cuda(device: &KnownDevice) -> Option<u32> {
    let is = |words: &[&str]| words.iter().any(|word| device.key.contains(word));
    Some(match device.architecture.as_str() {
        "Pascal" if is(&["p100"]) => 600,
        "Pascal" => 610,
        "Volta" => 700,
        architecture if architecture.starts_with("Turing") => 750,
        "Ampere" if is(&["a100", "a800", "a30"]) && !is(&["a3000"]) => 800,
        "Ampere" if device.unified => 870,
        "Ampere" => 860,
        "Ada" => 890,
        "Hopper" => 900,
        "Blackwell" if is(&["gb10"]) => 1210,
        "Blackwell" if is(&["thor"]) => 1100,
        "Blackwell" if is(&["b100", "b200", "b300"]) => 1000,
        "Blackwell" => 1200,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_table::{all, by_key, find};

    #[test]
    fn every_gpu_runs_on_its_default_backend_and_has_a_generation() {
        for device in all().iter().filter(|device| !device.is_cpu()) {
            assert!(usable_memory(device).is_some_and(|memory| memory >= Bytes::from_gib(2)), "{}", device.key);
            let backend = default_backend(device).expect("a backend");
            assert!(runs(device, backend), "{}", device.key);
            assert!(capability(device, backend).is_some(), "{} {}", device.key, device.architecture);
        }
    }

    #[test]
    fn generations_are_the_makers() {
        let cuda = |key: &str| capability(by_key(key).expect(key), PhantomBackend::Cuda);
        for (key, expected) in [
            ("rtx-4090", 890),
            ("rtx-3090", 860),
            ("a100-80gb-sxm", 800),
            ("a30", 800),
            ("a10", 860),
            ("h100-sxm", 900),
            ("rtx-5090", 1200),
            ("gb10", 1210),
            ("tesla-p40", 610),
            ("jetson-agx-orin", 870),
        ] {
            assert_eq!(cuda(key), Some(expected), "{key}");
        }
        assert_eq!(capability(by_key("mi300x").expect("known"), PhantomBackend::Rocm), Some(0x942));
        assert_eq!(capability(find("Apple M4 Max 40c").expect("known"), PhantomBackend::Metal), Some(9));
    }

    #[test]
    fn shared_memory_is_not_all_for_models() {
        let of = |vendor, gib| {
            let device = KnownDevice {
                vendor,
                unified: true,
                memory: Some(Bytes::from_gib(gib)),
                ..by_key("gb10").expect("known").clone()
            };
            usable_memory(&device)
        };
        assert_eq!(of(Vendor::Apple, 24), Some(Bytes::from_gib(16)));
        assert_eq!(of(Vendor::Apple, 64), Some(Bytes::from_gib(48)));
        assert_eq!(of(Vendor::Nvidia, 128), Some(Bytes::from_gib(128)));
        assert_eq!(of(Vendor::Amd, 128), Some(Bytes::from_gib(64)));
        assert_eq!(usable_memory(by_key("rtx-4090").expect("known")), Some(Bytes::from_gib(24)));
        assert_eq!(memory_note(by_key("rtx-4090").expect("known")), None);
        let m4_max = by_key("m4-max-40c").expect("known");
        assert_eq!(usable_memory(m4_max), Some(Bytes::from_gib(96)));
        assert!(memory_note(m4_max).is_some_and(|note| note.contains("128.0 GiB") && note.contains("96.0 GiB")));
    }
}
