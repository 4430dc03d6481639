//! [`Pace`]: how often somebody may do something, refilled with time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A bucket of allowances.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    at_once: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Below zero: what was charged ahead.
    left: f64,
    at: Instant,
}

impl Pace {
    /// A full bucket.
    pub fn new(per_second: f64, at_once: f64) -> Self {
        let state = State { left: at_once, at: Instant::now() };
        Self { per_second, at_once, state: Mutex::new(state) }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = now.duration_since(state.at).as_secs_f64() * self.per_second;
        state.left = (state.left + earned).min(self.at_once);
        state.at = now;
        look(&mut state)
    }

    /// Takes so many allowances; false, and none taken, if they are not there.
    pub fn take(&self, cost: f64) -> bool {
        self.with(|state| {
            let there = state.left >= cost;
            if there {
                state.left -= cost;
            }
            there
        })
    }

    /// Takes so many allowances, there or not; says how long to do nothing more, so that they are earned again.
    pub fn charge(&self, cost: f64) -> Duration {
        self.with(|state| {
            state.left -= cost;
            Duration::from_secs_f64((-state.left / self.per_second).max(0.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_spent_comes_back_with_time() {
        let pace = Pace::new(10.0, 3.0);
        assert!(pace.take(2.0) && pace.take(1.0) && !pace.take(1.0));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(pace.take(1.0) && !pace.take(1.0));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(pace.take(3.0) && !pace.take(1.0), "more was saved up than fits");
        assert_eq!(pace.charge(5.0), Duration::from_millis(500));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(pace.charge(0.0), Duration::ZERO);
    }
}
