//! [`Bandwidth`]: a cap in bytes a second, shared by everything that moves bytes under it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_proto::Bytes;
use tokio::time::Instant;

/// A token bucket. Clones share it. Takers go into debt and wait it off, so that a chunk larger than the bucket passes.
#[derive(Clone, Debug)]
pub struct Bandwidth {
    bucket: Option<Arc<Mutex<Bucket>>>,
}

#[derive(Debug)]
struct Bucket {
    rate: f64,
    /// Most that may be saved up: a tenth of a second's worth, so that a pause is not made up for in one burst.
    burst: f64,
    /// Bytes that may go at once; negative while takers wait.
    level: f64,
    at: Instant,
}

impl Bucket {
    /// Takes `amount`; says how long to wait before it may be used.
    fn take(&mut self, amount: f64, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.level = (self.level + gained).min(self.burst) - amount;
        self.at = now;
        if self.level >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.level / self.rate) }
    }
}

impl Bandwidth {
    /// No cap.
    pub const UNLIMITED: Self = Self { bucket: None };

    /// At most that many bytes a second; no cap for `None` and for zero.
    pub fn limited(per_second: Option<Bytes>) -> Self {
        let Some(rate) = per_second.map(Bytes::get).filter(|rate| *rate > 0) else { return Self::UNLIMITED };
        let rate = rate as f64;
        let bucket = Bucket { rate, burst: rate / 10.0, level: 0.0, at: Instant::now() };
        Self { bucket: Some(Arc::new(Mutex::new(bucket))) }
    }

    /// Waits until `amount` bytes may pass.
    pub async fn take(&self, amount: usize) {
        let Some(bucket) = &self.bucket else { return };
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(amount as f64, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: Bytes, at: Instant) -> Bucket {
        let rate = rate.get() as f64;
        Bucket { rate, burst: rate / 10.0, level: 0.0, at }
    }

    /// Takes chunks one after another, as if each wait were slept; says when the last one may pass.
    fn drain(bucket: &mut Bucket, start: Instant, chunks: usize, size: usize) -> Duration {
        let mut now = start;
        for _ in 0..chunks {
            now += bucket.take(size as f64, now);
        }
        now - start
    }

    #[test]
    fn the_cap_holds() {
        let start = Instant::now();
        let took = drain(&mut bucket(Bytes::from_mib(8), start), start, 128, 256 * 1024).as_secs_f64();
        assert!((3.9..=4.1).contains(&took), "32 MiB at 8 MiB/s took {took} s");
    }

    #[test]
    fn takers_at_the_same_time_share_it() {
        let now = Instant::now();
        let mut bucket = bucket(Bytes::from_mib(1), now);
        let waits: Vec<f64> = (0..3).map(|_| bucket.take(1_048_576.0, now).as_secs_f64()).collect();
        assert!(waits.iter().zip([1.0, 2.0, 3.0]).all(|(wait, wanted)| (wait - wanted).abs() < 1e-6), "{waits:?}");
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut bucket = bucket(Bytes::from_mib(1), start);
        let took = drain(&mut bucket, start + Duration::from_secs(100), 4, 1 << 20);
        assert!(took.as_secs_f64() > 3.8, "{took:?}");
    }

    #[tokio::test]
    async fn without_a_cap_nothing_waits() {
        let start = Instant::now();
        Bandwidth::limited(None).take(usize::MAX).await;
        Bandwidth::limited(Some(Bytes::ZERO)).take(usize::MAX).await;
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
