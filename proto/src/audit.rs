//! [`AuditEvent`]: one line of what happened on the controller and who did it.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// One event. Kept for ever, in order, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Its number, rising by one.
    pub sequence: u64,
    /// When, by the controller's clock.
    pub at: Timestamp,
    /// Who: `local` (the socket's owner), `admin:NAME`, `machine:ID`, `token:ID` or `controller`.
    pub actor: String,
    /// What, as a dotted word, e.g. `machine.enrolled`, `generation.went_on`, `identity.cloned`.
    pub action: String,
    /// To what, e.g. a machine's id or a model's name.
    pub subject: String,
    /// The rest, in one sentence.
    pub detail: String,
}
