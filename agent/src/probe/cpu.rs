//! The processor.

use std::collections::BTreeMap;

use muster_proto::Cpu;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

/// Reads it.
pub fn read(errors: &mut BTreeMap<String, String>) -> Cpu {
    let brand = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()))
        .map_err(|error| errors.insert("cpu".to_owned(), error.to_string()))
        .ok()
        .and_then(|system| system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()));
    let physical_cores = System::physical_core_count().ok().and_then(|count| u32::try_from(count).ok());
    let threads =
        std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
    Cpu { brand: brand.filter(|brand| !brand.is_empty()), physical_cores, threads, features: features() }
}

/// Those that llama.cpp has code for.
fn features() -> Vec<String> {
    let mut features: Vec<String> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt),+) => {$(
                if std::arch::is_x86_feature_detected!($name) {
                    features.push($name.to_owned());
                }
            )+};
        }
        detect!(
            "sse3",
            "ssse3",
            "sse4.2",
            "avx",
            "avx2",
            "bmi2",
            "f16c",
            "fma",
            "avx512f",
            "avx512bw",
            "avx512vl",
            "avx512vbmi",
            "avx512vnni",
            "avx512bf16",
            "avxvnni"
        );
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! detect {
            ($($name:tt),+) => {$(
                if std::arch::is_aarch64_feature_detected!($name) {
                    features.push($name.to_owned());
                }
            )+};
        }
        detect!("neon", "dotprod", "i8mm", "fp16", "bf16", "sve", "sve2", "sme");
    }
    features.sort();
    features
}
