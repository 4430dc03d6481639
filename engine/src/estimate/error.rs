//! [`EstimateError`]: why there is no estimate.

use std::path::PathBuf;

use crate::gguf::GgufError;
use crate::worker::WorkerError;

/// Why a question has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EstimateError {
    /// The file is not one that llama.cpp may see.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: GgufError,
    },
    /// llama.cpp does not take it.
    #[error("{}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What llama.cpp says.
        #[source]
        source: WorkerError,
    },
    /// The worker did not do its job, which says nothing of the file.
    #[error("cannot size {}", path.display())]
    Worker {
        /// The file.
        path: PathBuf,
        /// What happened to it.
        #[source]
        source: WorkerError,
    },
}

impl EstimateError {
    /// Whether it is the model file that is at fault.
    pub fn is_about_the_file(&self) -> bool {
        match self {
            Self::File { .. } | Self::Refused { .. } => true,
            Self::Worker { .. } => false,
        }
    }

    /// What a worker's end says of the file that it was sizing.
    pub(super) fn of_worker(path: PathBuf, source: WorkerError) -> Self {
        let about_the_file = match &source {
            WorkerError::Refused { .. } => true,
            // One that was killed tells of this host: of somebody's hand, or of memory.
            WorkerError::Died { status, .. } => {
                !["SIGKILL", "SIGTERM", "SIGINT"].iter().any(|hand| status.contains(hand))
            }
            _ => false,
        };
        if about_the_file { Self::Refused { path, source } } else { Self::Worker { path, source } }
    }
}
