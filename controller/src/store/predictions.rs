//! The prediction ledger: what was expected of an assignment beside what its machine measured, for ever.

use muster_proto::{AssignmentId, DesiredAssignment, MachineId, Measured, ModelDigest, Prediction, Timestamp};
use rusqlite::{Connection, params};

use super::{Fault, Store, StoreError, from_json, parsed, time, to_json};

/// One prediction, and the newest measurement that came after it.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerEntry {
    /// The decision.
    pub assignment: AssignmentId,
    /// The model's name then.
    pub model: String,
    /// Its quantization.
    pub quantization: String,
    /// The file.
    pub digest: ModelDigest,
    /// What was expected.
    pub prediction: Prediction,
    /// Since when.
    pub predicted_at: Timestamp,
    /// What was measured.
    pub measured: Option<Measured>,
    /// When the controller heard of it.
    pub measured_at: Option<Timestamp>,
}

/// Enters a prediction unless the ledger's newest for this assignment says the same.
pub(super) fn predicted(
    connection: &Connection,
    machine: MachineId,
    assignment: &DesiredAssignment,
    at: Timestamp,
) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO predictions (assignment, machine, model, quantization, digest, settings, prediction, predicted_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE ?7 IS NOT (
                 SELECT prediction FROM predictions WHERE assignment = ?1 ORDER BY predicted_at DESC LIMIT 1
             )
             ON CONFLICT DO UPDATE SET prediction = excluded.prediction",
        )?
        .execute(params![
            assignment.id.to_string(),
            machine.to_string(),
            assignment.model,
            assignment.quantization,
            assignment.digest.to_string(),
            to_json(&assignment.settings),
            to_json(&assignment.prediction),
            at.unix_millis(),
        ])?;
    Ok(())
}

/// Enters a measurement beside the newest prediction for its assignment.
pub(super) fn measured(
    connection: &Connection,
    machine: MachineId,
    assignment: AssignmentId,
    measured: &Measured,
    at: Timestamp,
) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "UPDATE predictions SET measured = ?3, measured_at = ?4 WHERE assignment = ?1 AND machine = ?2
             AND predicted_at = (SELECT max(predicted_at) FROM predictions WHERE assignment = ?1)",
        )?
        .execute(params![assignment.to_string(), machine.to_string(), to_json(measured), at.unix_millis()])?;
    Ok(())
}

impl Store {
    /// Everything that was ever predicted for a machine, in order.
    pub async fn ledger(&self, machine: MachineId) -> Result<Vec<LedgerEntry>, StoreError> {
        self.read("read the prediction ledger", move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT assignment, model, quantization, digest, prediction, predicted_at, measured, measured_at
                 FROM predictions WHERE machine = ?1 ORDER BY predicted_at",
            )?;
            let mut rows = statement.query([machine.to_string()])?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                let measured: Option<String> = row.get(6)?;
                entries.push(LedgerEntry {
                    assignment: parsed(0, row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?,
                    model: row.get(1)?,
                    quantization: row.get(2)?,
                    digest: parsed(3, row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?,
                    prediction: from_json("a prediction", row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)?,
                    predicted_at: time(row.get(5)?),
                    measured: measured.map(|text| from_json("a measurement", &text)).transpose()?,
                    measured_at: row.get::<_, Option<i64>>(7)?.map(time),
                });
            }
            Ok(entries)
        })
        .await
    }
}
