//! [`CpuTime`]: the processor time that small recurring work takes, so that its cost can be shown and watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A sum; clones share it.
#[derive(Clone, Debug, Default)]
pub struct CpuTime(Arc<AtomicU64>);

/// Counts until it is dropped. Must not be held over an await: it is this thread's time.
#[derive(Debug)]
pub struct Counting<'a> {
    sum: &'a CpuTime,
    began: Option<u64>,
    // Neither sent nor held where a task may change its thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl CpuTime {
    /// Counts from now on.
    pub fn count(&self) -> Counting<'_> {
        Counting { sum: self, began: on_cpu(), _here: std::marker::PhantomData }
    }

    /// What was counted so far; nothing where the system does not say.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if let (Some(began), Some(ended)) = (self.began, on_cpu()) {
            self.sum.0.fetch_add(ended.saturating_sub(began), Ordering::Relaxed);
        }
    }
}

/// Nanoseconds that this thread has run, as the kernel's scheduler counts them: right over many counts, coarse in one.
fn on_cpu() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn work_is_counted() {
        let time = CpuTime::default();
        // The kernel adds up at its ticks: short work is seen now and then, and whole.
        while time.total() == Duration::ZERO {
            let _counting = time.count();
            std::hint::black_box((0..100_000_u64).fold(0, |sum, number| std::hint::black_box(sum ^ number)));
        }
    }
}
