//! Known devices: what makers publish of graphics cards, systems on a chip and processors, and the finding of one by the
//! name that people write.
//!
//! Two data files: `devices.jsonl` as it was collected, and `device_additions.jsonl` with what it lacks (bandwidths,
//! arithmetic, cores of processors, a few devices more). It does not know of llama.cpp or of speed: that is
//! [`speed`](crate::speed). Entry points: [`find`], [`all`].

mod name;

use std::sync::LazyLock;

use muster_proto::Bytes;
use serde_json::{Map, Value};

pub use name::{FoundDevice, UnknownDevice};

/// Who made the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Apple.
    Apple,
    /// Intel.
    Intel,
    /// Anyone else: processors only.
    Other,
}

/// A CPU's arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuCores {
    /// Physical cores.
    pub cores: u32,
    /// Clock with all of them busy, in GHz.
    pub ghz: f64,
    /// The widest instructions that llama.cpp uses there: `avx2`, `avx512`, `amx`, `neon`.
    pub instructions: String,
    /// What the cores can take of the memory's bandwidth, in bytes a second, where it is less.
    pub bandwidth: Option<f64>,
}

/// One device, as its maker specifies it. What no source states is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownDevice {
    /// Its number in the data file, e.g. `d042`; of an added device its key.
    pub id: String,
    /// Its short name, e.g. `rtx-4090`.
    pub key: String,
    /// Its full name, e.g. `GeForce RTX 4090`.
    pub name: String,
    /// Who made it.
    pub vendor: Vendor,
    /// `consumer-desktop`, `workstation`, `datacentre`, `soc`, `cpu`, …
    pub class: String,
    /// The generation, e.g. `Ada`, `RDNA3`, `M4`; empty for a CPU.
    pub architecture: String,
    /// Its own memory; `None` also where it shares the host's and has no fixed size.
    pub memory: Option<Bytes>,
    /// Whether it shares the host's memory.
    pub unified: bool,
    /// Published memory bandwidth, in bytes a second.
    pub bandwidth: Option<f64>,
    /// Published FP32 arithmetic of the shaders, in operations a second; RDNA 3 and 4 count dual issue.
    pub fp32: Option<f64>,
    /// Published FP16 arithmetic of the shaders, in operations a second.
    pub fp16: Option<f64>,
    /// Published dense FP16 arithmetic of the matrix units, in operations a second.
    pub fp16_matrix: Option<f64>,
    /// Power limit, in watts.
    pub tdp_watts: Option<f64>,
    /// List price at launch, in US dollars, of the card or of the cheapest system.
    pub price_usd: Option<f64>,
    /// Generation and lanes of its bus.
    pub pcie: Option<(f64, u32)>,
    /// When it was launched, as the source writes it.
    pub launch: Option<String>,
    /// Its cores, of a CPU.
    pub cpu: Option<CpuCores>,
    /// Cores of an Apple GPU.
    pub gpu_cores: Option<u32>,
}

static DEVICES: LazyLock<Vec<KnownDevice>> = LazyLock::new(|| {
    let rows = |text: &str| -> Vec<Map<String, Value>> {
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).expect("the data files are part of the program and tested"))
            .collect()
    };
    let mut table = rows(include_str!("../data/devices.jsonl"));
    for addition in rows(include_str!("../data/device_additions.jsonl")) {
        let key = addition.get("device_key").cloned();
        match table.iter_mut().find(|row| row.get("device_key") == key.as_ref()) {
            Some(row) => {
                for (field, value) in addition {
                    if row.get(&field).is_none_or(Value::is_null) {
                        row.insert(field, value);
                    }
                }
            }
            None => table.push(addition),
        }
    }
    table.iter().map(KnownDevice::from_row).collect()
});

/// Every known device, in the order of the data files.
pub fn all() -> &'static [KnownDevice] {
    &DEVICES
}

/// The device that a person means: "RTX 4090", "NVIDIA GeForce RTX 4090", "4090", "Apple M4 Max 40c", "rtx-3060-12gb".
/// Case, vendors, hyphens, "(TM)" and a memory size that fits do not matter.
///
/// # Errors
/// [`UnknownDevice`] with the nearest names, where no product or more than one matches.
pub fn find(name: &str) -> Result<&'static KnownDevice, UnknownDevice> {
    find_variant(name, false).map(|found| found.device)
}

/// As [`find`], with the variants that the name could also mean. For the CPU backend (`cpu`), a processor of that name is
/// preferred to its graphics.
///
/// # Errors
/// [`UnknownDevice`] with the nearest names, where no product or more than one matches.
pub fn find_variant(name: &str, cpu: bool) -> Result<FoundDevice<'static>, UnknownDevice> {
    name::find_variant(name, cpu, all())
}

/// The device with exactly this key, e.g. `rtx-4090`.
pub fn by_key(key: &str) -> Option<&'static KnownDevice> {
    all().iter().find(|device| device.key == key)
}

impl KnownDevice {
    fn from_row(row: &Map<String, Value>) -> Self {
        let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |field: &str| row.get(field).and_then(Value::as_f64).filter(|number| *number > 0.0);
        let tera = |field: &str| number(field).map(|number| number * 1e12);
        let key = text("device_key");
        let cpu = number("cpu_cores").zip(number("cpu_ghz")).map(|(cores, ghz)| CpuCores {
            cores: whole(cores),
            ghz,
            instructions: text("cpu_isa"),
            bandwidth: number("cpu_bandwidth_gbps").map(|rate| rate * 1e9),
        });
        Self {
            id: Some(text("id")).filter(|id| !id.is_empty()).unwrap_or_else(|| key.clone()),
            name: text("device"),
            vendor: match text("vendor").as_str() {
                "NVIDIA" => Vendor::Nvidia,
                "AMD" => Vendor::Amd,
                "Apple" => Vendor::Apple,
                "Intel" => Vendor::Intel,
                _ => Vendor::Other,
            },
            class: text("class"),
            architecture: text("architecture"),
            memory: number("vram_gib").map(|gib| Bytes::new(mebibytes(gib) << 20)),
            unified: row.get("unified_memory").and_then(Value::as_bool).unwrap_or(false),
            bandwidth: number("bandwidth_gbps").or(number("measured_bandwidth_gbps")).map(|rate| rate * 1e9),
            fp32: tera("fp32_tflops"),
            fp16: tera("fp16_tflops"),
            fp16_matrix: tera("fp16_tensor_dense_tflops"),
            tdp_watts: number("tdp_w"),
            price_usd: number("msrp_usd").or(number("system_price_usd")),
            pcie: number("pcie_gen").map(|generation| (generation, number("pcie_lanes").map_or(16, whole))),
            launch: Some(text("launch")).filter(|launch| !launch.is_empty()),
            cpu,
            gpu_cores: key.rsplit('-').next().and_then(|part| part.strip_suffix('c')?.parse().ok()),
            key,
        }
    }

    /// Whether this is a CPU.
    pub fn is_cpu(&self) -> bool {
        self.class == "cpu"
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of the data files, all small")]
fn whole(number: f64) -> u32 {
    number as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of the data files, all small")]
fn mebibytes(gib: f64) -> u64 {
    (gib * 1024.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_files_are_whole() {
        assert!(all().len() >= 226);
        let mut keys: Vec<&str> = all().iter().map(|device| device.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all().len(), "keys are unique");
        for device in all() {
            assert!(!device.name.is_empty(), "{}", device.key);
            assert!(device.bandwidth.is_some(), "{} has no bandwidth", device.key);
        }
    }

    #[test]
    fn an_addition_fills_gaps_and_replaces_nothing() {
        let device = by_key("r9700").expect("known");
        assert_eq!((device.bandwidth, device.tdp_watts), (Some(640e9), Some(300.0)));
        assert_eq!(by_key("rtx-4090").expect("known").memory, Some(Bytes::new(24 << 30)));
    }
}
