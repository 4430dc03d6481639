//! The fleet in a few numbers, counted by SQLite: nobody has to read every inventory for them.

use std::collections::BTreeMap;

use muster_proto::{EnrolmentState, Timestamp};

use super::{Store, StoreError};

/// What [`Store::fleet_counts`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// Machines by enrolment.
    pub machines: BTreeMap<EnrolmentState, u64>,
    /// Deployments of accepted machines by their state's word.
    pub deployments: BTreeMap<String, u64>,
    /// Models in the catalog.
    pub models: u64,
    /// When the inventories of accepted machines were collected, the oldest first.
    pub inventories: Vec<Timestamp>,
}

impl Store {
    /// Counts machines, deployments and models.
    pub async fn fleet_counts(&self) -> Result<FleetCounts, StoreError> {
        self.read("count the fleet", |connection| {
            let mut counts = FleetCounts::default();
            let mut statement = connection.prepare_cached("SELECT state, count(*) FROM machines GROUP BY state")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
            for row in rows {
                let (state, count) = row?;
                counts.machines.insert(EnrolmentState::from_number(state), super::amount(count));
            }
            let accepted = EnrolmentState::Accepted.number();
            let mut statement = connection.prepare_cached(
                "SELECT coalesce(json_extract(one.value, '$.state'), 'unknown'), count(*)
                 FROM machines, json_each(machines.observed, '$.deployments') AS one
                 WHERE machines.state = ?1 AND machines.observed IS NOT NULL GROUP BY 1",
            )?;
            let rows = statement.query_map([accepted], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
            for row in rows {
                let (state, count) = row?;
                counts.deployments.insert(state, super::amount(count));
            }
            let models: i64 = connection.query_row("SELECT count(*) FROM models", [], |row| row.get(0))?;
            counts.models = super::amount(models);
            let mut statement = connection.prepare_cached(
                "SELECT unixepoch(json_extract(inventory, '$.collected_at')) FROM machines
                 WHERE state = ?1 AND inventory IS NOT NULL ORDER BY 1",
            )?;
            let rows = statement.query_map([accepted], |row| row.get::<_, Option<i64>>(0))?;
            for row in rows {
                let moment = |seconds: i64| Timestamp::from_unix_millis(seconds.saturating_mul(1000));
                counts.inventories.extend(row?.map(moment));
            }
            Ok(counts)
        })
        .await
    }
}
