//! [`Benchmark`]: how fast a desk is, measured with llama.cpp itself.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{Bytes, Timestamp, TokensPerSecond};

/// One run of the benchmark on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Benchmark {
    /// When it started, by the agent's clock.
    pub measured_at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The llama.cpp build that was measured.
    pub engine_build: String,
    /// The hardware that was measured; a benchmark of other hardware says nothing.
    pub hardware_fingerprint: String,
    /// One entry for each device, model and depth.
    pub points: Vec<BenchPoint>,
    /// In what state the machine was.
    #[serde(default)]
    pub conditions: Conditions,
    /// Speeds of the parts, measured without llama.cpp.
    #[serde(default)]
    pub parts: Vec<PartRate>,
    /// What battery power leaves of the speed, for each device; empty unless both were measured on this machine.
    #[serde(default)]
    pub on_battery: Vec<OnBattery>,
}

/// The speeds of a device on battery over those on mains, as medians over the points that both benchmarks have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnBattery {
    /// llama.cpp's name of the device.
    pub device: String,
    /// Of prefill; 1 where battery takes nothing.
    pub prefill: f64,
    /// Of decode.
    pub decode: f64,
    /// Points that both have.
    pub points: u32,
}

open_enum! {
    /// How thorough a benchmark is.
    BenchmarkKind {
        /// A few seconds.
        Quick = 1 => "quick",
        /// All models.
        Standard = 2 => "standard",
        /// With minutes of load.
        Full = 3 => "full",
    }
}

/// In what state a machine was measured; what an older agent does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// How thorough it was.
    pub kind: Option<BenchmarkKind>,
    /// Share of all cores that other programs took while it measured, 0 to 1.
    pub other_load: Option<f64>,
    /// Whether the machine was idle enough for the figures to be its own.
    pub idle: Option<bool>,
    /// Whether it was on mains power.
    pub on_mains: Option<bool>,
    /// The hottest of its sensors, in degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// Drivers of the GPUs, e.g. `nvidia 580.95.05`.
    pub drivers: Vec<String>,
    /// What ended it before its time, in words.
    pub stopped_by: Option<String>,
    /// Whether the machine has a battery of its own.
    #[serde(default)]
    pub has_battery: Option<bool>,
}

open_enum! {
    /// What of a part was measured.
    PartQuantity {
        /// Bytes a second between memory and processor.
        MemoryBandwidth = 1 => "memory_bandwidth",
        /// Bytes a second from the disk, past the page cache.
        DiskRead = 2 => "disk_read",
        /// Operations a second in 32-bit floating point.
        Fp32 = 3 => "fp32",
        /// Operations a second in 16-bit floating point.
        Fp16 = 4 => "fp16",
        /// Decode after minutes of load over decode at its start, 0 to 1: what heat takes.
        Sustained = 5 => "sustained",
    }
}

/// The speed of one part of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartRate {
    /// llama.cpp's name of the device, the adapter's name, or `store` for the volume of the model store.
    pub part: String,
    /// What was measured.
    pub quantity: PartQuantity,
    /// Its repeats, in the quantity's unit.
    pub rate: Spread,
}

/// A model with random weights, made on the spot: speed does not depend on the weights' values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchModel {
    /// Its name, e.g. `llama-33m`.
    pub name: String,
    /// Quantization of its matrices, e.g. `Q4_K_M`.
    pub quantization: String,
    /// Bytes of the weights that each decoded token reads.
    pub bytes_per_token: Bytes,
    /// Parameters that each token is multiplied with.
    pub parameters_per_token: u64,
    /// Transformer blocks.
    pub layers: u32,
}

/// Speeds of one model on one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchPoint {
    /// llama.cpp's name of the device.
    pub device: String,
    /// Threads that computed, where the device is a CPU.
    pub threads: Option<u32>,
    /// The model.
    pub model: BenchModel,
    /// Tokens in one prefill.
    pub prefill_tokens: u32,
    /// Tokens in one decode run.
    pub decode_tokens: u32,
    /// Prefill speed.
    pub prefill: Spread,
    /// Decode speed.
    pub decode: Spread,
    /// Tokens that were in the context before; both speeds are at this depth.
    #[serde(default)]
    pub depth: u32,
}

impl BenchPoint {
    /// Puts it among `points`, in place of one that says less of the same.
    pub fn put_into(self, points: &mut Vec<Self>) {
        let same = |known: &&mut Self| {
            (&known.device, &known.model.name, &known.model.quantization, known.depth)
                == (&self.device, &self.model.name, &self.model.quantization, self.depth)
        };
        match points.iter_mut().find(same) {
            Some(known) => *known = self,
            None => points.push(self),
        }
    }
}

/// Repeats of one measurement: tokens a second, or the unit of a [`PartQuantity`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Every sample, in the order of measuring.
    pub samples: Vec<f64>,
    /// Their median.
    pub median: TokensPerSecond,
    /// The median of their distances from it.
    pub median_absolute_deviation: f64,
}

impl Spread {
    /// Sums up the samples; `None` without any, or if one is no rate.
    pub fn of(samples: Vec<f64>) -> Option<Self> {
        let middle = |values: &mut Vec<f64>| {
            values.sort_by(f64::total_cmp);
            let half = values.len() / 2;
            if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
        };
        if samples.is_empty() || samples.iter().any(|rate| TokensPerSecond::new(*rate).is_none()) {
            return None;
        }
        let median = middle(&mut samples.clone());
        let deviation = middle(&mut samples.iter().map(|rate| (rate - median).abs()).collect());
        Some(Self { samples, median: TokensPerSecond::new(median)?, median_absolute_deviation: deviation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_takes_the_place_of_what_was_said_of_the_same_before() {
        let point = |quantization: &str, depth, rates: &[f64]| BenchPoint {
            device: "CPU".into(),
            threads: None,
            model: BenchModel {
                name: "m".into(),
                quantization: quantization.into(),
                bytes_per_token: Bytes::new(1),
                parameters_per_token: 1,
                layers: 1,
            },
            prefill_tokens: 1,
            decode_tokens: 1,
            prefill: Spread::of(rates.to_vec()).expect("rates"),
            decode: Spread::of(rates.to_vec()).expect("rates"),
            depth,
        };
        let mut points = Vec::new();
        for told in [point("Q8_0", 0, &[1.0]), point("Q4_K", 0, &[2.0]), point("Q8_0", 512, &[3.0])] {
            told.put_into(&mut points);
        }
        point("Q8_0", 0, &[1.0, 4.0]).put_into(&mut points);
        let samples: Vec<usize> = points.iter().map(|point| point.decode.samples.len()).collect();
        assert_eq!(samples, [2, 1, 1]);
    }

    #[test]
    fn spread_is_median_and_deviation() {
        let spread = Spread::of(vec![10.0, 30.0, 11.0, 12.0]).expect("four rates");
        assert!((spread.median.get() - 11.5).abs() < 1e-12);
        assert!((spread.median_absolute_deviation - 1.0).abs() < 1e-12);
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![f64::NAN]), None);
    }
}
