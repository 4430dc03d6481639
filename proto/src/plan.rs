//! [`Plan`]: what was decided for every machine, and why everything else was not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bytes, DesiredAssignment, MachineId, ModelDigest, TokensPerSecond};

/// What was decided for the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry for each accepted machine.
    pub machines: BTreeMap<MachineId, MachinePlan>,
}

/// What was decided for one machine: an assignment or none, and every candidate with its verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachinePlan {
    /// What it gets; `None` if nothing can run there.
    pub assignment: Option<Assignment>,
    /// Everything that was considered, the best first, the chosen one among them.
    pub candidates: Vec<Candidate>,
    /// Why nothing could be considered at all, e.g. no inventory yet.
    pub blocked: Option<String>,
}

/// What a machine gets.
pub type Assignment = DesiredAssignment;

/// One artifact that was considered for a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The model.
    pub model: String,
    /// The quantization.
    pub quantization: String,
    /// The file.
    pub digest: ModelDigest,
    /// Bits of tensor data per parameter.
    pub bits_per_weight: f64,
    /// What it takes in all, where that is known.
    pub needs: Option<Bytes>,
    /// Decode speed that is expected, where that is known.
    pub decode: Option<TokensPerSecond>,
    /// Why it lost; `None` for the one that was chosen.
    pub rejected: Option<Rejection>,
}

/// Why an artifact was not chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// The kind of reason, with its figures.
    #[serde(flatten)]
    pub reason: RejectionReason,
}

/// Mean KL divergences from one source, measured alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closeness {
    /// Of the artifact that won.
    pub winner: f64,
    /// Of the one that lost.
    pub this: f64,
}

/// The kinds of reason, each with the figures that decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum RejectionReason {
    /// A device or the host has too little free memory.
    MemoryShort {
        /// The device, or `Host`.
        device: String,
        /// What it would take there.
        needs: Bytes,
        /// What is free there less the reserve.
        free: Bytes,
        /// Whether that is what is typically free, because more is free at the moment.
        #[serde(default)]
        typical: bool,
    },
    /// The store's volume has too little room.
    DiskShort {
        /// Size of the file.
        needs: Bytes,
        /// What may be used.
        free: Bytes,
    },
    /// Slower than the policy wants.
    TooSlow {
        /// Expected decode speed.
        predicted: TokensPerSecond,
        /// What the policy wants.
        wanted: TokensPerSecond,
    },
    /// The model was trained with a shorter context than the policy wants.
    ContextShort {
        /// What the model has.
        has: u32,
        /// What the policy wants.
        wanted: u32,
    },
    /// llama.cpp could not size it, and said this.
    NotSized {
        /// llama.cpp's words.
        error: String,
    },
    /// It would run, but the chosen one is closer to its source, keeps more bits per weight, or is wanted more.
    Outranked {
        /// Quantization or model that won.
        by: String,
        /// How close to their source both are, where both were measured alike.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closeness: Option<Closeness>,
    },
    /// A reason of a newer peer, in its words.
    Other {
        /// The words.
        text: String,
    },
}

impl std::fmt::Display for Rejection {
    /// One short clause: `needs 11.2 GiB on CUDA0, 9.6 GiB is free`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            RejectionReason::MemoryShort { device, needs, free, typical } => {
                let when = if *typical { "typically " } else { "" };
                write!(f, "needs {needs} on {device}, {free} is {when}free")
            }
            RejectionReason::DiskShort { needs, free } => write!(f, "needs {needs} on disk, {free} may be used"),
            RejectionReason::TooSlow { predicted, wanted } => write!(f, "{predicted} predicted, policy wants {wanted}"),
            RejectionReason::ContextShort { has, wanted } => {
                write!(f, "trained with a context of {has} tokens, policy wants {wanted}")
            }
            RejectionReason::NotSized { error } => write!(f, "llama.cpp cannot size it: {error}"),
            RejectionReason::Outranked { by, closeness: None } => write!(f, "would run, but {by} is better"),
            RejectionReason::Outranked { by, closeness: Some(Closeness { winner, this }) } => {
                write!(f, "would run, but {by} is closer to the source: KLD {winner:.4} against {this:.4}")
            }
            RejectionReason::Other { text } => f.write_str(text),
        }
    }
}
