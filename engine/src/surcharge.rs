//! What a GPU's driver takes beyond the buffers that llama.cpp counts: its context, loaded kernels, pools for temporary
//! results. It is stated beside an estimate and is no part of the estimate's figures.
//!
//! Pure. Owns: the ranges before anything is measured ([`surcharge`]) and what replaces them once a machine has
//! ([`Surcharge::observed`]). It does not know how memory in use is read.
//!
//! Where the ranges come from: of the public logs in `tests/data/memory_logs.jsonl` one shows the memory of a whole process
//! under CUDA beside its buffers (m228: 154 MiB more, a 12B model on one GPU), and one the memory of an APU under Vulkan
//! (m218: 448 MiB more, but that counter holds pinned main memory of llama.cpp and of others, so nothing is learnt from it).
//! The collection that these logs are a part of puts CUDA at 160 to 750 MiB and Vulkan at 10 to 30. None of it separates
//! generations of GPUs, and nothing was measured under ROCm or Metal: [`Basis`] says so of each.

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
    /// Public logs of the same backend; the expected value is the middle of their range.
    Logs,
    /// Nothing was measured: the range of a backend that works alike.
    Assumed,
}

/// What to reckon with before a machine was measured. `capability` is that of
/// [`PhantomDevice`](crate::worker::PhantomDevice::capability); the logs do not separate generations yet, so that all of a
/// backend have one range.
pub fn surcharge(backend: PhantomBackend, capability: Option<u32>) -> Surcharge {
    let range = |low, high, basis| Surcharge {
        low: Bytes::from_mib(low),
        expected: Bytes::from_mib(u64::midpoint(low, high)),
        high: Bytes::from_mib(high),
        basis,
    };
    match (backend, capability) {
        (PhantomBackend::Cuda, _) => range(154, 750, Basis::Logs),
        (PhantomBackend::Vulkan, _) => range(10, 30, Basis::Logs),
        // The same source as CUDA's, and a runtime of the same making.
        (PhantomBackend::Rocm, _) => range(154, 750, Basis::Assumed),
        // Kernels are compiled into the process, memory is the system's: like Vulkan's.
        (PhantomBackend::Metal, _) => range(10, 30, Basis::Assumed),
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
            let range = surcharge(backend, None);
            assert!(range.low < range.expected && range.expected < range.high, "{backend:?}");
        }
        assert_eq!(surcharge(PhantomBackend::Cuda, Some(890)).basis, Basis::Logs);
        assert_eq!(surcharge(PhantomBackend::Rocm, None).basis, Basis::Assumed);
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
