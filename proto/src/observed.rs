//! [`Observed`]: what a desk really runs. Success exists only here.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{AssignmentId, Bytes, BytesPerSecond, MemoryNeed, ModelDigest, Timestamp, TokensPerSecond};

/// What an agent saw on its machine at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// When, by the agent's clock.
    pub at: Timestamp,
    /// The generation that the agent works towards; 0 before it holds any.
    pub generation: u64,
    /// One for each assignment of that generation.
    pub deployments: Vec<Deployment>,
    /// Where the desk answers, e.g. `http://127.0.0.1:11435/v1`.
    pub endpoint: Option<String>,
    /// What the store of model files takes on disk.
    pub store_used: Bytes,
}

open_enum! {
    /// How far one assignment is on its machine.
    DeploymentState {
        /// The agent does not hold it yet.
        Pending = 1 => "pending",
        /// Held, not begun.
        Scheduled = 2 => "scheduled",
        /// The file is coming.
        Downloading = 3 => "downloading",
        /// The file is here and its digest is being checked.
        Verifying = 4 => "verifying",
        /// The engine is loading it.
        Installing = 5 => "installing",
        /// It answered, and what it takes was measured.
        Success = 6 => "success",
        /// It does not run; the reason is beside it.
        Failure = 7 => "failure",
        /// Nothing fits this machine.
        NoArtifact = 8 => "no_artifact",
        /// It was there before.
        AlreadyInstalled = 9 => "already_installed",
        /// Taken back before it finished.
        Aborted = 10 => "aborted",
    }
}

/// One assignment as the agent sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Which assignment.
    pub assignment: AssignmentId,
    /// Which file.
    pub digest: ModelDigest,
    /// The name that clients use.
    pub model: String,
    /// How far it is.
    pub state: DeploymentState,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
    /// The download, once begun.
    pub transfer: Option<Transfer>,
    /// What was measured once it ran.
    pub measured: Option<Measured>,
}

/// One download.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Size of the file.
    pub total: Bytes,
    /// Bytes on disk, those of earlier attempts included.
    pub done: Bytes,
    /// Bytes that were on disk already when this attempt began.
    pub resumed_from: Bytes,
    /// Speed over this attempt.
    pub speed: Option<BytesPerSecond>,
}

/// What a loaded model was measured to take and to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Buffers that llama.cpp allocated, by device.
    pub memory: MemoryNeed,
    /// Resident memory of the worker process.
    pub resident: Option<Bytes>,
    /// Time to load, in milliseconds.
    pub load_ms: u64,
    /// Prefill speed of a short run after loading.
    pub prefill: Option<TokensPerSecond>,
    /// Decode speed of a short run after loading.
    pub decode: Option<TokensPerSecond>,
}
