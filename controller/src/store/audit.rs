//! The audit log: what happened, in order, for ever.

use std::fmt;

use muster_proto::{AdminName, AuditEvent, MachineId, Timestamp, TokenId};
use rusqlite::{Connection, params};

use super::{Fault, Store, StoreError, amount, integer, time};

/// Most events in one answer.
const LIMIT: u32 = 10_000;

/// Events in an answer to whoever names no limit.
const DEFAULT_LIMIT: u32 = 200;

/// Longest detail that is kept; peers' words come in here.
const LONGEST_DETAIL: usize = 1000;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The owner of the controller's socket.
    Local,
    /// An operator with a certificate.
    Admin(AdminName),
    /// An enrolled machine.
    Machine(MachineId),
    /// Whoever holds a token.
    Token(TokenId),
    /// The controller itself.
    Controller,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Admin(name) => write!(f, "admin:{name}"),
            Self::Machine(id) => write!(f, "machine:{id}"),
            Self::Token(id) => write!(f, "token:{id}"),
            Self::Controller => f.write_str("controller"),
        }
    }
}

/// An event that is to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What, as a dotted word.
    pub action: &'static str,
    /// To what.
    pub subject: String,
    /// The rest, in one sentence.
    pub detail: String,
}

impl Event {
    /// An event.
    pub fn new(
        at: Timestamp,
        actor: Actor,
        action: &'static str,
        subject: impl fmt::Display,
        detail: impl Into<String>,
    ) -> Self {
        Self { at, actor, action, subject: subject.to_string(), detail: detail.into() }
    }
}

/// Records an event in the transaction of what it tells of.
pub(super) fn record(connection: &Connection, event: &Event) -> Result<(), Fault> {
    let detail: String = event.detail.chars().filter(|c| !c.is_control()).take(LONGEST_DETAIL).collect();
    connection
        .prepare_cached("INSERT INTO audit (at, actor, action, subject, detail) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![event.at.unix_millis(), event.actor.to_string(), event.action, event.subject, detail])?;
    Ok(())
}

impl Store {
    /// Records an event by itself.
    pub async fn record(&self, event: Event) -> Result<(), StoreError> {
        self.write("record an event", move |connection| record(connection, &event)).await
    }

    /// Events after number `after`, at most the `limit` newest of them (0: as many as is usual), in order.
    pub async fn events(&self, after: u64, limit: u32) -> Result<Vec<AuditEvent>, StoreError> {
        let limit = if limit == 0 { DEFAULT_LIMIT } else { limit.min(LIMIT) };
        self.read("list events", move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT sequence, at, actor, action, subject, detail FROM audit WHERE sequence > ?1
                 ORDER BY sequence DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![integer(after), limit], |row| {
                Ok(AuditEvent {
                    sequence: amount(row.get(0)?),
                    at: time(row.get(1)?),
                    actor: row.get(2)?,
                    action: row.get(3)?,
                    subject: row.get(4)?,
                    detail: row.get(5)?,
                })
            })?;
            let mut events = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            events.reverse();
            Ok(events)
        })
        .await
    }
}
