//! [`Machine`]: one enrolled desk, as the controller knows it.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{BenchOrder, Benchmark, Inventory, MachineId, Observed, Timestamp};

open_enum! {
    /// Whether a machine may take part.
    EnrolmentState {
        /// Its token asks for an operator's word first.
        Pending = 1 => "pending",
        /// It may.
        Accepted = 2 => "accepted",
        /// An operator said no.
        Rejected = 3 => "rejected",
        /// It may no longer.
        Revoked = 4 => "revoked",
    }
}

/// One desk, with the newest that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Random, kept for ever.
    pub id: MachineId,
    /// The name it enrolled with.
    pub hostname: String,
    /// Whether it may take part.
    pub enrolment: EnrolmentState,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// When the controller last heard of it.
    pub last_seen: Option<Timestamp>,
    /// Whether its stream is up now.
    pub online: bool,
    /// The agent's version, e.g. `0.1.0`.
    pub agent_version: Option<String>,
    /// Newest inventory.
    pub inventory: Option<Inventory>,
    /// Newest benchmark.
    pub benchmark: Option<Benchmark>,
    /// The generation that it should be at.
    pub desired_generation: u64,
    /// What it was last seen to run.
    pub observed: Option<Observed>,
    /// The newest order to benchmark it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench_order: Option<BenchOrder>,
}
