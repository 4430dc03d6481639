//! [`Clock`]: the one place where the controller learns what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_proto::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// The system's clock, and for tests a shift that they change while the controller runs.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    shift_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        let system = Timestamp::from(SystemTime::now());
        Timestamp::from_unix_millis(system.unix_millis() + self.shift_ms.load(Ordering::Relaxed))
    }

    /// Lets time jump ahead, for every clone.
    pub fn jump(&self, ahead: Duration) {
        self.shift_ms.fetch_add(i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.now().unix_millis()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

/// A moment in whole seconds, as certificates have it.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_unix_millis(time.unix_millis().div_euclid(1000) * 1000)
}

/// The same moment for the standard library.
pub(crate) fn since_epoch(time: Timestamp) -> Duration {
    time.since(Timestamp::from(UNIX_EPOCH))
}
