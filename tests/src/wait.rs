//! Waiting for states: the only place of the harness that lets time pass.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine of two cores. Only a failing test ever waits for all of it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks. Short against everything that is waited for, long against the cost of a look.
const INTERVAL: Duration = Duration::from_millis(25);

/// Looks until `look` gives `Ok` and returns it. Its `Err` says what was seen instead.
///
/// # Panics
/// When `deadline` passes: with `what` was waited for and what was seen last.
#[track_caller]
pub fn wait_for<T, E: Display>(what: &str, deadline: Duration, look: impl FnMut() -> Result<T, E>) -> T {
    try_wait_for(what, deadline, look).unwrap_or_else(|timeout| panic!("{timeout}"))
}

/// As [`wait_for`], for a program that goes on.
///
/// # Errors
/// When `deadline` passes: what was waited for and what was seen last.
pub fn try_wait_for<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, String> {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(last) if started.elapsed() >= deadline => {
                return Err(format!("waited {:.1} s for {what}; seen last: {last}", started.elapsed().as_secs_f64()));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}
