//! [`WorkerError`]: every way in which a worker fails, and what is known then.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a worker did not do its job. Holds nothing of any prompt or answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WorkerError {
    /// The process could not be started.
    #[error("cannot start the engine worker {}", program.display())]
    Spawn {
        /// The program that was tried.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: std::sync::Arc<io::Error>,
    },
    /// The worker lives and says no, in llama.cpp's own words where it has some.
    #[error("{reason}")]
    Refused {
        /// Its words, one line.
        reason: String,
    },
    /// The worker died.
    #[error("the engine worker died: {status}{}", assertion.as_ref().map(|place| format!(" at {place}")).unwrap_or_default())]
    Died {
        /// `exit code 1` or a signal's name, e.g. `SIGKILL`.
        status: String,
        /// Where in llama.cpp an assertion failed, e.g. `ggml.c:1234`.
        assertion: Option<String>,
        /// The last lines that it logged before the first generate request; none of a later time.
        log_tail: Vec<String>,
    },
    /// It took too long and was killed.
    #[error("the engine worker gave no answer for {} s and was stopped", after.as_secs())]
    TimedOut {
        /// How long it was waited for.
        after: Duration,
        /// The last lines that it logged before the first generate request; none of a later time.
        log_tail: Vec<String>,
    },
    /// It said something that makes no sense.
    #[error("the engine worker broke the protocol: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
    /// It was stopped on purpose.
    #[error("the engine worker was stopped")]
    Stopped,
}

impl WorkerError {
    /// What it logged last before the first generate request; empty where that says nothing of the failure.
    pub fn log_tail(&self) -> &[String] {
        match self {
            Self::Died { log_tail, .. } | Self::TimedOut { log_tail, .. } => log_tail,
            _ => &[],
        }
    }
}
