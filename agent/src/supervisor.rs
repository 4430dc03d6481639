//! [`Supervisor`]: one loaded model, kept running.
//!
//! Owns one engine worker at a time: loads, measures, restarts it with growing pauses when it dies, gives up on a crash
//! loop. It tells the reconciler what happens and decides nothing else.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_engine::worker::{Generator, Layout, LoadRequest, Loaded, WorkerCommand, WorkerError};
use muster_proto::Measured;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::reconcile::{Message, RunKey};

/// That many crashes within [`CRASH_WINDOW`] are a crash loop.
const CRASHES: usize = 5;
/// See [`CRASHES`].
const CRASH_WINDOW: Duration = Duration::from_mins(2);
/// Longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Length of the measurement after loading: enough for a figure, over in a second or two on a slow desk.
const MEASURE_PREFILL: u32 = 128;
/// See [`MEASURE_PREFILL`].
const MEASURE_DECODE: u32 = 32;
/// Log lines of a failed load that are told.
const LOG_LINES: usize = 6;

/// One model to keep running.
#[derive(Debug)]
pub struct Supervisor {
    /// Which file with which settings.
    pub key: RunKey,
    /// The file.
    pub path: PathBuf,
    /// How workers are started.
    pub command: WorkerCommand,
    /// CPU threads.
    pub threads: Option<u32>,
    /// Held while something is measured or loaded, so that no measurement disturbs another.
    pub quiet: Arc<Mutex<()>>,
    /// Hears what happens.
    pub reports: mpsc::Sender<Message>,
}

/// What happens to a model.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// A worker is loading it.
    Loading,
    /// It answers from now on.
    Loaded(Generator, Box<Loaded>),
    /// What it takes and does was measured.
    Measured(Box<Measured>),
    /// Its worker died, and another one starts soon.
    Restarting {
        /// How it died.
        reason: String,
    },
    /// It does not run, and no other attempt is made.
    Failed {
        /// Why.
        reason: String,
        /// Whether llama.cpp said no to the file, rather than the worker dying.
        refused: bool,
    },
    /// The supervisor has ended; nothing of it runs any more.
    Ended,
}

impl Supervisor {
    /// Keeps the model running until `cancel`, or until it fails for good. Ends with [`RunEvent::Ended`].
    pub async fn run(self, cancel: CancellationToken) {
        self.keep_running(&cancel).await;
        self.tell(RunEvent::Ended).await;
    }

    async fn keep_running(&self, cancel: &CancellationToken) {
        let mut crashes = Crashes::default();
        while !cancel.is_cancelled() {
            self.tell(RunEvent::Loading).await;
            // Cancel-safe: a worker that is still loading is killed when its future is dropped.
            let started = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                started = self.start() => started,
            };
            let error = match started {
                Ok(generator) => {
                    // Cancel-safe: waiting for an exit changes nothing.
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return generator.stop().await,
                        error = generator.exited() => error,
                    }
                }
                Err(error @ WorkerError::Refused { .. }) => {
                    return self.tell(RunEvent::Failed { reason: error.to_string(), refused: true }).await;
                }
                Err(error) => error,
            };
            let reason = describe(&error);
            let Some(pause) = crashes.crashed(Instant::now()) else {
                let reason = format!("{reason}; gave up after {CRASHES} times in {} s", CRASH_WINDOW.as_secs());
                return self.tell(RunEvent::Failed { reason, refused: false }).await;
            };
            self.tell(RunEvent::Restarting { reason }).await;
            // Cancel-safe: a timer.
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn start(&self) -> Result<Generator, WorkerError> {
        let _quiet = self.quiet.lock().await;
        let request = LoadRequest {
            path: self.path.clone(),
            settings: self.key.settings.clone(),
            threads: self.threads,
            layout: Layout::default(),
        };
        let (generator, loaded) = Generator::start(&self.command, request, |_| {}).await?;
        self.tell(RunEvent::Loaded(generator.clone(), Box::new(loaded.clone()))).await;
        let context = loaded.context_per_sequence;
        let speeds = generator.measure(MEASURE_PREFILL.min(context / 2), MEASURE_DECODE.min(context / 4)).await;
        if let Err(error) = &speeds {
            tracing::warn!(model = %self.key.digest, %error, "the loaded model could not be measured");
        }
        let (prefill, decode) = speeds.ok().unzip();
        let Loaded { memory, load_time, resident, .. } = loaded;
        let load_ms = u64::try_from(load_time.as_millis()).unwrap_or(u64::MAX);
        self.tell(RunEvent::Measured(Box::new(Measured { memory, resident, load_ms, prefill, decode }))).await;
        Ok(generator)
    }

    async fn tell(&self, event: RunEvent) {
        // A reconciler that is gone is about to drop this task too.
        let _ = self.reports.send(Message::Run(self.key.clone(), event)).await;
    }
}

/// The error with what the worker logged while loading.
fn describe(error: &WorkerError) -> String {
    let mut reason = crate::error_chain(error);
    let log_tail = error.log_tail();
    if !log_tail.is_empty() {
        let tail = &log_tail[log_tail.len().saturating_sub(LOG_LINES)..];
        reason.push_str("; it last said: ");
        reason.push_str(&tail.join(" | "));
    }
    reason
}

/// The crashes of late.
#[derive(Debug, Default)]
struct Crashes {
    times: VecDeque<Instant>,
}

impl Crashes {
    /// Notes a crash; says how long to pause, 1, 2, 4… s, or `None` for a crash loop.
    fn crashed(&mut self, now: Instant) -> Option<Duration> {
        self.times.retain(|time| now.saturating_duration_since(*time) < CRASH_WINDOW);
        self.times.push_back(now);
        if self.times.len() >= CRASHES {
            return None;
        }
        Some(Duration::from_secs(1 << (self.times.len() - 1)).min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_five_crashes_are_a_loop() {
        let start = Instant::now();
        let mut crashes = Crashes::default();
        let pauses: Vec<_> = (0..5).map(|i| crashes.crashed(start + Duration::from_secs(i))).collect();
        assert_eq!(pauses[..4], [1, 2, 4, 8].map(|seconds| Some(Duration::from_secs(seconds))));
        assert_eq!(pauses[4], None);
    }

    #[test]
    fn a_crash_now_and_then_is_none() {
        let start = Instant::now();
        let mut crashes = Crashes::default();
        for i in 0..20 {
            assert_eq!(crashes.crashed(start + CRASH_WINDOW * i), Some(Duration::from_secs(1)));
        }
    }

    #[test]
    fn the_end_of_the_log_is_told() {
        let log_tail = (0..20).map(|i| format!("line {i}")).collect();
        let error = WorkerError::Died { status: "SIGABRT".into(), assertion: Some("ggml.c:1".into()), log_tail };
        let reason = describe(&error);
        assert!(reason.contains("SIGABRT at ggml.c:1") && reason.ends_with("line 18 | line 19"), "{reason}");
    }
}
