//! [`Backoff`]: how long to wait before trying again. Pure: clock and chance are arguments.

use std::time::{Duration, Instant};

/// Shortest wait.
const FLOOR: Duration = Duration::from_secs(1);
/// Longest wait while the failure is young: a desk is back within half a minute of its controller.
const CEILING: Duration = Duration::from_secs(30);
/// Longest wait once it has lasted for [`LONG`].
const LONG_CEILING: Duration = Duration::from_mins(5);
/// A failure this old is an outage that somebody works on, or nobody: no need to hurry.
const LONG: Duration = Duration::from_hours(1);

/// Exponential backoff with full jitter: a fleet that lost its controller does not come back all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// Forgets all failures.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Notes a failure at `now`; says how long to wait: uniformly from 1 s up to a ceiling that doubles from 2 s to
    /// 30 s, and is 5 min after an hour. `chance` is uniform in 0..1.
    pub fn failed(&mut self, now: Instant, chance: f64) -> Duration {
        let since = *self.since.get_or_insert(now);
        self.failures = self.failures.saturating_add(1);
        let ceiling = if now.saturating_duration_since(since) >= LONG {
            LONG_CEILING
        } else {
            FLOOR.saturating_mul(1 << self.failures.min(5)).min(CEILING)
        };
        jitter(ceiling, chance)
    }

    /// How long to wait after a failure that only a person can mend: as after an hour.
    pub fn without_hope(chance: f64) -> Duration {
        jitter(LONG_CEILING, chance)
    }

    /// How many failures there were since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

fn jitter(ceiling: Duration, chance: f64) -> Duration {
    FLOOR + ceiling.saturating_sub(FLOOR).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ceiling_doubles_to_half_a_minute_and_rises_after_an_hour() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let ceilings: Vec<u64> = (0..7).map(|_| backoff.failed(start, 1.0).as_secs()).collect();
        assert_eq!(ceilings, [2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(backoff.failed(start + Duration::from_secs(3599), 1.0), CEILING);
        assert_eq!(backoff.failed(start + Duration::from_hours(1), 1.0), LONG_CEILING);
        backoff.succeeded();
        assert_eq!(backoff.failed(start + Duration::from_hours(2), 1.0).as_secs(), 2);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_below_a_second_nor_above_the_ceiling(failures in 0_u32..100, chance in 0.0_f64..1.0) {
            let now = Instant::now();
            let mut backoff = Backoff { failures, since: Some(now) };
            let wait = backoff.failed(now, chance);
            prop_assert!((FLOOR..=CEILING).contains(&wait));
        }
    }
}
