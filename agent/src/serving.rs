//! [`Serving`]: which models this desk answers with, by the names that clients use. Written by the reconciler, read by the
//! endpoint and the status.

use std::collections::BTreeMap;

use muster_engine::worker::{Generator, Loaded};
use muster_proto::ModelDigest;

/// Every model by name.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// By the name that clients use.
    pub models: BTreeMap<String, Served>,
}

/// One model.
#[derive(Clone, Debug)]
pub struct Served {
    /// What it is for.
    pub role: String,
    /// Its quantization.
    pub quantization: String,
    /// Its file.
    pub digest: ModelDigest,
    /// Whether it answers.
    pub state: ServedState,
}

/// Whether a model answers.
#[derive(Clone, Debug)]
pub enum ServedState {
    /// It does.
    Ready(Running),
    /// Not yet.
    Loading {
        /// What is going on.
        what: String,
    },
    /// It does not.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A loaded model.
#[derive(Clone, Debug)]
pub struct Running {
    /// Answers.
    pub generator: Generator,
    /// What llama.cpp said when it was loaded.
    pub loaded: Box<Loaded>,
}

impl Serving {
    /// Every loaded model once, however many names it has.
    pub fn workers(&self) -> BTreeMap<u32, &Running> {
        self.models
            .values()
            .filter_map(|served| match &served.state {
                ServedState::Ready(running) => Some((running.loaded.pid, running)),
                _ => None,
            })
            .collect()
    }
}
