//! Desired states and their generations.

use std::collections::BTreeMap;

use muster_proto::{DesiredAssignment, DesiredState, MachineId, ModelDigest, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::audit::{self, Actor, Event};
use super::{Fault, Store, StoreError, amount, from_json, integer, predictions, to_json};
use crate::desired::same_intent;

/// A machine's desired state as the store has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// The newest generation that this machine is known to hold or to be meant to hold; 0 before the first.
    pub generation: u64,
    /// What was decided; `None` before anything was.
    pub assignments: Option<Vec<DesiredAssignment>>,
}

impl Desired {
    /// What is sent, once something was decided.
    pub fn state(&self) -> Option<DesiredState> {
        let assignments = self.assignments.clone()?;
        Some(DesiredState { generation: self.generation, assignments })
    }
}

/// What a machine says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The generation on its ledger.
    pub generation: u64,
    /// Whether the content that it holds under the controller's own generation is another.
    pub other_content: bool,
}

/// What came of comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldOutcome {
    /// The controller is at or ahead of the machine.
    Known,
    /// The machine was ahead (this store came from a backup): the controller went on after it.
    WentOn {
        /// The controller's generation before.
        from: u64,
        /// Its generation now.
        to: u64,
    },
}

fn read(connection: &Connection, machine: MachineId) -> Result<Desired, Fault> {
    let row: Option<(i64, Option<String>)> = connection
        .prepare_cached("SELECT generation, assignments FROM desired WHERE machine = ?1")?
        .query_row([machine.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((generation, assignments)) = row else { return Ok(Desired::default()) };
    let what = format!("the desired state of machine {machine}");
    let assignments = assignments.map(|text| from_json(&what, &text)).transpose()?;
    Ok(Desired { generation: amount(generation), assignments })
}

fn write(connection: &Connection, machine: MachineId, desired: &Desired) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO desired (machine, generation, assignments) VALUES (?1, ?2, ?3)
             ON CONFLICT (machine) DO UPDATE SET generation = excluded.generation, assignments = excluded.assignments",
        )?
        .execute(params![
            machine.to_string(),
            integer(desired.generation),
            desired.assignments.as_ref().map(to_json)
        ])?;
    Ok(())
}

impl Store {
    /// A machine's desired state.
    pub async fn desired(&self, machine: MachineId) -> Result<Desired, StoreError> {
        self.read("read a desired state", move |connection| read(connection, machine)).await
    }

    /// Every machine's current assignments, for planning.
    pub async fn all_desired(&self) -> Result<BTreeMap<MachineId, Vec<DesiredAssignment>>, StoreError> {
        self.read("read the desired states", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT machine, assignments FROM desired WHERE assignments IS NOT NULL")?;
            let mut rows = statement.query([])?;
            let mut all = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let machine: MachineId = super::parsed(0, &row.get::<_, String>(0)?)?;
                let what = format!("the desired state of machine {machine}");
                all.insert(machine, from_json(&what, &row.get::<_, String>(1)?)?);
            }
            Ok(all)
        })
        .await
    }

    /// Whether a machine's own desired state names this file.
    pub async fn is_desired(&self, machine: MachineId, digest: ModelDigest) -> Result<bool, StoreError> {
        let desired = self.desired(machine).await?;
        Ok(desired.assignments.iter().flatten().any(|assignment| assignment.digest == digest))
    }

    /// Decides what machines should run, in one transaction. A machine whose content stays the same keeps its generation.
    /// Returns the machines that got a new one.
    pub async fn decide(
        &self,
        decisions: Vec<(MachineId, Vec<DesiredAssignment>)>,
        at: Timestamp,
    ) -> Result<Vec<MachineId>, StoreError> {
        self.write("write desired states", move |connection| {
            let mut changed = Vec::new();
            for (machine, assignments) in &decisions {
                let before = read(connection, *machine)?;
                if before.assignments.as_ref().is_some_and(|before| same_intent(before, assignments)) {
                    continue;
                }
                let generation = before.generation + 1;
                let after = Desired { generation, assignments: Some(assignments.clone()) };
                write(connection, *machine, &after)?;
                for assignment in assignments {
                    predictions::predicted(connection, *machine, assignment, at)?;
                }
                let detail = match &assignments[..] {
                    [] => format!("generation {generation}: nothing"),
                    some => {
                        let names: Vec<_> = some.iter().map(|a| format!("{} {}", a.model, a.quantization)).collect();
                        format!("generation {generation}: {}", names.join(", "))
                    }
                };
                audit::record(connection, &Event::new(at, Actor::Controller, "desired.changed", machine, detail))?;
                changed.push(*machine);
            }
            Ok(changed)
        })
        .await
    }

    /// Compares with what a machine holds; where the machine is ahead, goes on after it and says so in the audit log.
    pub async fn go_on(&self, machine: MachineId, held: Held, at: Timestamp) -> Result<HeldOutcome, StoreError> {
        self.write("go on after a machine's generation", move |connection| {
            let before = read(connection, machine)?;
            let ahead = held.generation > before.generation;
            let differs = held.generation == before.generation && held.other_content;
            // Generations stay within what SQLite counts; a machine that claims more harms nobody but itself.
            if !(ahead || differs) || held.generation >= integer(u64::MAX).unsigned_abs() {
                return Ok(HeldOutcome::Known);
            }
            // Nothing decided yet: the next decision comes after what the machine holds, and until then it keeps that.
            let to = if before.assignments.is_some() { held.generation + 1 } else { held.generation };
            write(connection, machine, &Desired { generation: to, assignments: before.assignments })?;
            let detail = format!(
                "the machine holds generation {} and this controller had {}: going on with {to}; was the database restored from a backup?",
                held.generation, before.generation
            );
            audit::record(connection, &Event::new(at, Actor::Controller, "generation.went_on", machine, detail))?;
            Ok(HeldOutcome::WentOn { from: before.generation, to })
        })
        .await
    }
}
