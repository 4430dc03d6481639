//! Bandwidth of main memory: the triad of STREAM (McCalpin, "Memory Bandwidth and Machine Balance", 1995), over threads.
//!
//! `a[i] = b[i] + s · c[i]` in 64-bit floats, counted as STREAM counts it: 24 bytes an element, although most processors
//! also read `a` before they write it. Each thread first touches its own part, so that it lies near it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use muster_proto::Bytes;

/// Bytes that STREAM counts for an element.
const BYTES_PER_ELEMENT: f64 = 24.0;
/// Each array; three of them are beyond the caches of a desk's processor. STREAM wants four times its last-level cache.
const ARRAY: usize = 256 << 20;
/// The same where there is little time.
const ARRAY_QUICK: usize = 64 << 20;
/// Of the free memory, so much at most for all three.
const MOST_OF_FREE: u64 = 4;
/// Fewest passes, and most.
const PASSES: std::ops::Range<usize> = 3..20;

/// Bytes a second of each pass, after one to warm up; empty where there is too little memory.
pub fn bandwidth(threads: usize, time: Duration, quick: bool, available: Bytes) -> Vec<f64> {
    let threads = threads.max(1);
    let array = if quick { ARRAY_QUICK } else { ARRAY };
    let most = usize::try_from(available.get() / MOST_OF_FREE / 3).unwrap_or(usize::MAX);
    let elements = array.min(most) / size_of::<f64>() / threads;
    if elements < 1 << 16 {
        return Vec::new();
    }
    let (barrier, more) = (Barrier::new(threads), AtomicBool::new(true));
    let deadline = Instant::now() + time;
    let times: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| passes(elements, &barrier, &more, deadline))).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let passes = times.iter().map(Vec::len).min().unwrap_or(0);
    let bytes = elements as f64 * threads as f64 * BYTES_PER_ELEMENT;
    // From the first start to the last end, as STREAM times its parallel loop.
    (1..passes)
        .filter_map(|pass| {
            let start = times.iter().map(|thread| thread[pass].0).min()?;
            let end = times.iter().map(|thread| thread[pass].1).max()?;
            Some(bytes / (end - start).as_secs_f64().max(1e-9))
        })
        .collect()
}

/// One thread's part. All do the same number of passes: the barrier's leader decides whether another follows.
fn passes(elements: usize, barrier: &Barrier, more: &AtomicBool, deadline: Instant) -> Vec<(Instant, Instant)> {
    // Filled by loops, not allocated as zeros, which may be pages that are not there yet.
    let filled = |value: f64| -> Vec<f64> { (0..elements).map(|_| std::hint::black_box(value)).collect() };
    let (mut a, b, c) = (filled(1.0), filled(2.0), filled(0.5));
    let factor = std::hint::black_box(3.0);
    let mut times = Vec::new();
    while more.load(Ordering::SeqCst) {
        barrier.wait();
        let start = Instant::now();
        for ((a, b), c) in a.iter_mut().zip(&b).zip(&c) {
            *a = b + factor * c;
        }
        std::hint::black_box(&mut a);
        times.push((start, Instant::now()));
        if barrier.wait().is_leader() {
            let enough = times.len() > PASSES.start && Instant::now() > deadline;
            more.store(!enough && times.len() < PASSES.end, Ordering::SeqCst);
        }
        // Nobody asks before it is decided.
        barrier.wait();
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_is_a_rate_and_threads_agree_on_their_number() {
        for threads in [1, 3] {
            let rates = bandwidth(threads, Duration::from_millis(1), true, Bytes::from_mib(96));
            assert!(rates.len() >= PASSES.start, "{}", rates.len());
            assert!(rates.iter().all(|rate| rate.is_finite() && *rate > 1e6));
        }
        assert!(bandwidth(2, Duration::ZERO, true, Bytes::from_mib(1)).is_empty());
    }
}
