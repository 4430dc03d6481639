//! [`BenchOrder`]: an operator's order to benchmark one machine, and what became of it.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{BenchOrderId, BenchmarkKind, MachineId, Timestamp};

open_enum! {
    /// How far an order is.
    BenchOrderState {
        /// For the machine to come online, or for its agent to begin.
        Waiting = 1 => "waiting",
        /// The agent measures.
        Running = 2 => "running",
        /// The result is the machine's benchmark.
        Done = 3 => "done",
        /// The agent did not measure, or failed to.
        Refused = 4 => "refused",
        /// The machine did not come in time.
        Expired = 5 => "expired",
    }
}

impl BenchOrderState {
    /// Whether nothing more comes of it.
    pub const fn has_ended(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// One order. A machine has one at a time: asking again while it is open joins it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchOrder {
    /// Which.
    pub id: BenchOrderId,
    /// What is to be measured.
    pub machine: MachineId,
    /// The name that it called itself then.
    pub hostname: String,
    /// How thoroughly.
    pub kind: BenchmarkKind,
    /// How far it is.
    pub state: BenchOrderState,
    /// What is being done while it runs.
    pub step: Option<String>,
    /// Share of the steps that are done, 0 to 1.
    pub fraction: Option<f64>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// When it was given.
    pub ordered_at: Timestamp,
    /// By whom, as in the audit log.
    pub ordered_by: String,
    /// When it is given up if the machine does not come.
    pub expires_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}
