//! [`AgentStatus`]: what an agent says of itself to its own desk.

use serde::{Deserialize, Serialize};

use crate::{MachineId, Observed};

/// How one agent is doing: what `muster-agent status` shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Who it is; `None` before it enrolled.
    pub machine_id: Option<MachineId>,
    /// The controller it belongs to, as `HOST:PORT`.
    pub controller: Option<String>,
    /// Whether the stream to the controller is up.
    pub online: bool,
    /// Why the last attempt to reach the controller failed.
    pub last_error: Option<String>,
    /// The generation that it holds; 0 if none.
    pub generation: u64,
    /// Where the desk answers, e.g. `http://127.0.0.1:11435/v1`.
    pub endpoint: Option<String>,
    /// What it runs.
    pub observed: Option<Observed>,
}
