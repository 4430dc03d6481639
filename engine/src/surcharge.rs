//! What a GPU's driver takes beyond the buffers that llama.cpp counts: its context, loaded kernels, pools for temporary
//! results. It is stated beside an estimate and is no part of the estimate's figures.
//!
//! Pure. Owns: the ranges before anything is measured ([`surcharge`]) and what replaces them once a machine has
//! ([`Surcharge::observed`]). It does not know how memory in use is read.
//!
//! Where the ranges come from: [`SEEN`], all that the public logs in `tests/data/memory_logs.jsonl` show of it, and for the
//! upper ends the collection that these logs are a part of (CUDA 160 to 750 MiB, Vulkan 10 to 30). Left out, because they hold
//! other programs' memory: the counters of an A40 and two A6000 that were in use (m089, m184), and of an APU, which has pinned
//! main memory in it too (m218: 448 MiB). Five devices do not separate generations of GPUs, and nothing is known of ROCm.

use muster_proto::Bytes;

use crate::worker::PhantomBackend;

/// A range of memory beyond the buffers, for one device and one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surcharge {
    /// The least that was seen.
    pub low: Bytes,
    /// What to reckon with.
    pub expected: Bytes,
    /// The most that was seen: who must not run out of memory leaves this free.
    pub high: Bytes,
    /// What it rests on.
    pub basis: Basis,
}

/// What a [`Surcharge`] rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// This machine, measured so many times.
    Observed(u32),
    /// So many devices in public logs of the same backend; the expected value is their median. The upper end is what is
    /// known in the field.
    Logs(u32),
    /// No log shows it: the range that is known in the field, or that of a backend that works alike.
    Assumed,
}

/// What one log shows of one device, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The log, and the device.
    pub log: &'static str,
    /// Its backend.
    pub backend: PhantomBackend,
    /// Its generation, as [`PhantomDevice::capability`](crate::worker::PhantomDevice::capability).
    pub capability: Option<u32>,
    /// From, to: figures that a log rounds give a range.
    pub mib: (u64, u64),
}

/// All of them. But for m228, where the memory of a whole process is known beside its buffers, it is the device's memory less
/// what was free once the process had started its driver and loaded nothing: kernels and pools come on top.
pub const SEEN: [Seen; 8] = [
    seen("m184 CUDA0", PhantomBackend::Cuda, Some(860), (285, 285)),
    seen("m184 CUDA2", PhantomBackend::Cuda, Some(860), (285, 285)),
    // The total of the same card is m089's.
    seen("m100 CUDA0", PhantomBackend::Cuda, Some(860), (271, 271)),
    // 31.7 GiB in all, 32,182 MiB free.
    seen("m107 CUDA0", PhantomBackend::Cuda, Some(700), (228, 330)),
    seen("m228", PhantomBackend::Cuda, None, (154, 154)),
    seen("m052 MTL0", PhantomBackend::Metal, Some(9), (1, 2)),
    seen("m088 Metal", PhantomBackend::Metal, Some(8), (1, 2)),
    seen("m120 Metal", PhantomBackend::Metal, Some(7), (2, 3)),
];

const fn seen(log: &'static str, backend: PhantomBackend, capability: Option<u32>, mib: (u64, u64)) -> Seen {
    Seen { log, backend, capability, mib }
}

/// What to reckon with before a machine was measured.
pub fn surcharge(backend: PhantomBackend) -> Surcharge {
    // What is known in the field; ROCm's runtime is of the same making as CUDA's, and a Metal process keeps its kernels as a
    // Vulkan one does.
    let (field_low, field_high) = match backend {
        PhantomBackend::Cuda | PhantomBackend::Rocm => (160, 750),
        PhantomBackend::Vulkan | PhantomBackend::Metal => (10, 30),
    };
    let of_backend = |seen: &&Seen| seen.backend == backend;
    let mut middles: Vec<u64> =
        SEEN.iter().filter(of_backend).map(|seen| u64::midpoint(seen.mib.0, seen.mib.1)).collect();
    middles.sort_unstable();
    let low = SEEN.iter().filter(of_backend).map(|seen| seen.mib.0).min().unwrap_or(field_low);
    let (expected, basis) = match middles.get(middles.len() / 2) {
        Some(middle) => (*middle, Basis::Logs(u32::try_from(middles.len()).unwrap_or(u32::MAX))),
        None => (u64::midpoint(field_low, field_high), Basis::Assumed),
    };
    Surcharge {
        low: Bytes::from_mib(low.min(field_low)),
        expected: Bytes::from_mib(expected),
        high: Bytes::from_mib(field_high),
        basis,
    }
}

impl Surcharge {
    /// From a machine's own observations: memory that a device had in use with a model loaded, less what it had in use
    /// before, less llama.cpp's buffers on it. `None` without any.
    pub fn observed(beyond_buffers: &[Bytes]) -> Option<Self> {
        let mut sorted = beyond_buffers.to_vec();
        sorted.sort_unstable();
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let count = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
        Some(Self { low, expected: sorted[sorted.len() / 2], high, basis: Basis::Observed(count) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_ordered_and_say_what_they_rest_on() {
        for backend in [PhantomBackend::Cuda, PhantomBackend::Vulkan, PhantomBackend::Metal, PhantomBackend::Rocm] {
            let range = surcharge(backend);
            assert!(range.low <= range.expected && range.expected < range.high, "{backend:?}");
        }
        let cuda = surcharge(PhantomBackend::Cuda);
        assert_eq!((cuda.low, cuda.expected), (Bytes::from_mib(154), Bytes::from_mib(279)));
        assert_eq!(cuda.basis, Basis::Logs(5));
        assert_eq!(surcharge(PhantomBackend::Metal).basis, Basis::Logs(3));
        assert_eq!(surcharge(PhantomBackend::Rocm).basis, Basis::Assumed);
    }

    #[test]
    fn what_was_seen_is_in_the_logs() {
        let logs: Vec<serde_json::Value> = include_str!("../tests/data/memory_logs.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).expect("the data of this repository"))
            .collect();
        let log = |id: &str| logs.iter().find(|log| log["id"] == id).expect(id);
        let said = |id: &str| log(id)["gpus_logged"].as_array().expect(id).iter().filter_map(|line| line.as_str());
        let after = |line: &str, start: &str| -> f64 {
            let rest = &line[line.find(start).expect(start) + start.len()..];
            rest.split_whitespace().next().expect("a number").parse().expect("a number")
        };
        let free = |id: &str, device: &str| {
            let line = said(id).find(|line| line.contains(&format!("using device {device} "))).expect(id);
            after(line, ") - ")
        };
        for seen in &SEEN {
            let (id, device) = seen.log.split_once(' ').unwrap_or((seen.log, ""));
            let found = match (id, device) {
                ("m228", _) => log(id)["observed_usage"]["residual_mib"].as_f64().expect("a number"),
                ("m184", device) => {
                    let number = device.trim_start_matches("CUDA");
                    let line = said(id).find(|line| line.starts_with(&format!("Device {number}:"))).expect(device);
                    after(line, "VRAM: ") - free(id, device)
                }
                ("m100", _) => {
                    let table = log("m089")["memory_breakdown"].as_array().expect("a table");
                    after(table[1].as_str().expect("a line"), "(A40) | ") - free(id, device)
                }
                ("m107", _) => {
                    let line = said(id).find(|line| line.starts_with("ollama:")).expect(id);
                    let total = line.split("total=").nth(1).and_then(|text| text.split("GiB").next()).expect("a total");
                    total.trim().parse::<f64>().expect("a number") * 1024.0 - free(id, device)
                }
                _ => {
                    let line = said(id).find(|line| line.starts_with("recommendedMax")).expect(id);
                    after(line, "= ") * 1e6 / f64::from(1 << 20) - free(id, device)
                }
            };
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let within = seen.mib.0 as f64 - 0.5 <= found && found <= seen.mib.1 as f64 + 0.5;
            assert!(within, "{}: {found}", seen.log);
        }
    }

    #[test]
    fn what_a_machine_showed_replaces_the_range() {
        let mib = Bytes::from_mib;
        let own = Surcharge::observed(&[mib(310), mib(290), mib(300)]).expect("there are three");
        assert_eq!((own.low, own.expected, own.high), (mib(290), mib(300), mib(310)));
        assert_eq!(own.basis, Basis::Observed(3));
        assert_eq!(Surcharge::observed(&[]), None);
    }
}
