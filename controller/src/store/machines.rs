//! Machines: who is enrolled, and the newest that is known of each.

use std::collections::BTreeMap;

use muster_proto::{Benchmark, EnrolmentState, Inventory, Machine, MachineId, Observed, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::audit::{self, Actor, Event};
use super::{Fault, Store, StoreError, amount, from_json, parsed, predictions, time, to_json};

/// What decides whether a machine is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may take part.
    pub state: EnrolmentState,
    /// When the newest certificate that it was given ends.
    pub certificate_expires: Option<Timestamp>,
}

/// A machine by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineKey {
    /// Its standing.
    pub standing: Standing,
    /// The point of the key that it enrolled with.
    pub public_key: Vec<u8>,
}

/// What a hello changes.
#[derive(Clone, Debug)]
pub struct HelloFacts {
    /// The machine.
    pub machine: MachineId,
    /// What it calls itself now.
    pub hostname: String,
    /// Version of its agent.
    pub agent_version: String,
    /// The controller's clock.
    pub at: Timestamp,
}

/// What an operator's word for a machine comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This one.
    One(MachineId),
    /// None.
    None,
    /// Several: their ids.
    Many(Vec<MachineId>),
}

/// Changes of deployments that one observed state brings into the audit log: what more a machine says is kept and not told.
const TOLD: usize = 32;

const COLUMNS: &str =
    "machines.id, machines.hostname, state, enrolled_at, last_seen, agent_version, inventory, benchmark,
    observed, coalesce(desired.generation, 0)";

/// A machine but for its JSON columns, which are parsed outside of SQLite's callback.
struct Raw {
    machine: Machine,
    inventory: Option<String>,
    benchmark: Option<String>,
    observed: Option<String>,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        machine: Machine {
            id: parsed(0, row.get_ref(0)?.as_str()?)?,
            hostname: row.get(1)?,
            enrolment: EnrolmentState::from_number(row.get(2)?),
            enrolled_at: time(row.get(3)?),
            last_seen: row.get::<_, Option<i64>>(4)?.map(time),
            online: false,
            agent_version: row.get(5)?,
            inventory: None,
            benchmark: None,
            desired_generation: amount(row.get(9)?),
            observed: None,
            bench_order: None,
        },
        inventory: row.get(6)?,
        benchmark: row.get(7)?,
        observed: row.get(8)?,
    })
}

impl Raw {
    fn whole(self) -> Result<Machine, Fault> {
        fn read<T: serde::de::DeserializeOwned>(
            machine: MachineId,
            what: &str,
            text: Option<String>,
        ) -> Result<Option<T>, Fault> {
            text.map(|text| from_json(&format!("{what} of machine {machine}"), &text)).transpose()
        }
        let id = self.machine.id;
        Ok(Machine {
            inventory: read::<Inventory>(id, "the inventory", self.inventory)?,
            benchmark: read::<Benchmark>(id, "the benchmark", self.benchmark)?,
            observed: read::<Observed>(id, "the observed state", self.observed)?,
            ..self.machine
        })
    }
}

fn observed_of(connection: &Connection, machine: MachineId) -> Result<Option<Observed>, Fault> {
    let text: Option<Option<String>> = connection
        .prepare_cached("SELECT observed FROM machines WHERE id = ?1")?
        .query_row([machine.to_string()], |row| row.get(0))
        .optional()?;
    text.flatten().map(|text| from_json(&format!("the observed state of machine {machine}"), &text)).transpose()
}

/// Notes the newest certificate; an older one never replaces it.
pub(super) fn note_certificate(connection: &Connection, machine: MachineId, expires: Timestamp) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "UPDATE machines SET certificate_expires = max(coalesce(certificate_expires, 0), ?2) WHERE id = ?1",
        )?
        .execute(params![machine.to_string(), expires.unix_millis()])?;
    Ok(())
}

impl Store {
    /// Every machine, in the order of their ids; `online` is for the caller to fill in.
    pub async fn machines(&self) -> Result<Vec<Machine>, StoreError> {
        self.read("list machines", |connection| {
            let sql =
                format!("SELECT {COLUMNS} FROM machines LEFT JOIN desired ON desired.machine = machines.id ORDER BY 1");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], raw)?.collect::<rusqlite::Result<Vec<_>>>()?;
            rows.into_iter().map(Raw::whole).collect()
        })
        .await
    }

    /// One machine.
    pub async fn machine(&self, machine: MachineId) -> Result<Option<Machine>, StoreError> {
        self.read("read a machine", move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM machines LEFT JOIN desired ON desired.machine = machines.id WHERE id = ?1"
            );
            let row = connection.prepare_cached(&sql)?.query_row([machine.to_string()], raw).optional()?;
            row.map(Raw::whole).transpose()
        })
        .await
    }

    /// What decides whether a machine is let in.
    pub async fn standing(&self, machine: MachineId) -> Result<Option<Standing>, StoreError> {
        Ok(self.machine_key(machine).await?.map(|key| key.standing))
    }

    /// The same, with its key.
    pub async fn machine_key(&self, machine: MachineId) -> Result<Option<MachineKey>, StoreError> {
        self.read("check a machine", move |connection| {
            Ok(connection
                .prepare_cached("SELECT state, certificate_expires, public_key FROM machines WHERE id = ?1")?
                .query_row([machine.to_string()], |row| {
                    Ok(MachineKey {
                        standing: Standing {
                            state: EnrolmentState::from_number(row.get(0)?),
                            certificate_expires: row.get::<_, Option<i64>>(1)?.map(time),
                        },
                        public_key: row.get(2)?,
                    })
                })
                .optional()?)
        })
        .await
    }

    /// What an operator means: an id, a hostname that is unique, or a prefix of an id that is. A machine calls itself what
    /// it likes: no hostname stands before an id, and one that could be either is neither.
    pub async fn find_machine(&self, word: String) -> Result<Found, StoreError> {
        self.read("find a machine", move |connection| {
            let ids = |sql: &str, parameter: &str| {
                let mut statement = connection.prepare_cached(sql)?;
                let rows = statement.query_map([parameter], |row| parsed(0, row.get_ref(0)?.as_str()?))?;
                rows.collect::<rusqlite::Result<Vec<MachineId>>>()
            };
            if let Ok(id) = word.parse::<MachineId>() {
                let found = ids("SELECT id FROM machines WHERE id = ?1", &id.to_string())?;
                return Ok(found.first().map_or(Found::None, |id| Found::One(*id)));
            }
            let mut found = ids("SELECT id FROM machines WHERE hostname = ?1 LIMIT 20", &word)?;
            let is_prefix = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
            if is_prefix {
                found.extend(ids(
                    "SELECT id FROM machines WHERE id GLOB ?1 || '*' LIMIT 20",
                    &word.to_ascii_lowercase(),
                )?);
                found.sort_unstable();
                found.dedup();
            }
            Ok(match found[..] {
                [] => Found::None,
                [one] => Found::One(one),
                _ => Found::Many(found),
            })
        })
        .await
    }

    /// Moves a machine from one of the states `from` to `to` and records it. False, and nothing changed, if it is in
    /// another state.
    pub async fn set_enrolment(
        &self,
        machine: MachineId,
        from: &'static [EnrolmentState],
        to: EnrolmentState,
        event: Event,
    ) -> Result<bool, StoreError> {
        self.write("change a machine's enrolment", move |connection| {
            let mut changed = 0;
            for state in from {
                changed += connection
                    .prepare_cached("UPDATE machines SET state = ?3 WHERE id = ?1 AND state = ?2")?
                    .execute(params![machine.to_string(), state.number(), to.number()])?;
                if changed > 0 {
                    break;
                }
            }
            if changed > 0 {
                audit::record(connection, &event)?;
            }
            Ok(changed > 0)
        })
        .await
    }

    /// Notes that a machine said hello.
    pub async fn note_hello(&self, facts: HelloFacts) -> Result<(), StoreError> {
        self.write("note a hello", move |connection| {
            connection
                .prepare_cached("UPDATE machines SET hostname = ?2, agent_version = ?3, last_seen = ?4 WHERE id = ?1")?
                .execute(params![
                    facts.machine.to_string(),
                    facts.hostname,
                    facts.agent_version,
                    facts.at.unix_millis()
                ])?;
            let detail = format!("{} with agent {}", facts.hostname, facts.agent_version);
            let actor = Actor::Machine(facts.machine);
            audit::record(connection, &Event::new(facts.at, actor, "machine.connected", facts.machine, detail))
        })
        .await
    }

    /// Notes that a machine's stream ended, and why.
    pub async fn note_goodbye(&self, machine: MachineId, at: Timestamp, why: String) -> Result<(), StoreError> {
        self.write("note a goodbye", move |connection| {
            connection
                .prepare_cached("UPDATE machines SET last_seen = max(coalesce(last_seen, 0), ?2) WHERE id = ?1")?
                .execute(params![machine.to_string(), at.unix_millis()])?;
            audit::record(connection, &Event::new(at, Actor::Machine(machine), "machine.disconnected", machine, why))
        })
        .await
    }

    /// Notes a renewed certificate.
    pub async fn note_renewal(&self, machine: MachineId, expires: Timestamp, event: Event) -> Result<(), StoreError> {
        self.write("note a certificate", move |connection| {
            note_certificate(connection, machine, expires)?;
            audit::record(connection, &event)
        })
        .await
    }

    /// Replaces a machine's inventory.
    pub async fn put_inventory(&self, machine: MachineId, inventory: &Inventory) -> Result<(), StoreError> {
        let json = to_json(inventory);
        self.write("keep an inventory", move |connection| {
            connection
                .prepare_cached("UPDATE machines SET inventory = ?2 WHERE id = ?1")?
                .execute(params![machine.to_string(), json])?;
            Ok(())
        })
        .await
    }

    /// Replaces a machine's benchmark.
    pub async fn put_benchmark(
        &self,
        machine: MachineId,
        benchmark: &Benchmark,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let json = to_json(benchmark);
        let detail = format!("{} points in {} ms", benchmark.points.len(), benchmark.took_ms);
        self.write("keep a benchmark", move |connection| {
            connection
                .prepare_cached("UPDATE machines SET benchmark = ?2 WHERE id = ?1")?
                .execute(params![machine.to_string(), json])?;
            audit::record(connection, &Event::new(at, Actor::Machine(machine), "benchmark.received", machine, detail))
        })
        .await
    }

    /// Replaces what a machine was seen to run; changes of a deployment's state go into the audit log and what was
    /// measured beside its prediction.
    pub async fn put_observed(&self, machine: MachineId, observed: Observed, at: Timestamp) -> Result<(), StoreError> {
        let json = to_json(&observed);
        self.write("keep an observed state", move |connection| {
            let before = observed_of(connection, machine)?;
            connection
                .prepare_cached("UPDATE machines SET observed = ?2 WHERE id = ?1")?
                .execute(params![machine.to_string(), json])?;
            let earlier: BTreeMap<_, _> = before
                .iter()
                .flat_map(|before| &before.deployments)
                .map(|deployment| (deployment.assignment, deployment))
                .collect();
            for deployment in observed.deployments.iter().take(TOLD) {
                let was = earlier.get(&deployment.assignment);
                if was.is_none_or(|was| was.state != deployment.state) {
                    let detail = match &deployment.reason {
                        Some(reason) => format!("{} of {}: {reason}", deployment.state, deployment.model),
                        None => format!("{} of {}", deployment.state, deployment.model),
                    };
                    let actor = Actor::Machine(machine);
                    audit::record(connection, &Event::new(at, actor, "deployment.changed", machine, detail))?;
                }
                if let Some(measured) = deployment.measured.as_ref()
                    && was.and_then(|was| was.measured.as_ref()) != Some(measured)
                {
                    predictions::measured(connection, machine, deployment.assignment, measured, at)?;
                }
            }
            Ok(())
        })
        .await
    }
}
