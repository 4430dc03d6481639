//! Enrolment tokens: only the hash of each, how often it may be and was used, and which key used it for which machine.

use std::hint::black_box;

use muster_proto::{EnrolmentState, MachineId, Timestamp, TokenId, TokenRecord};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::audit::{self, Actor, Event};
use super::machines::{join_groups, note_certificate};
use super::{Fault, Store, StoreError, parsed, time, to_json};

/// Bytes of a hash that a token is found by.
const PREFIX: usize = 4;

/// An attempt to enrol.
#[derive(Clone, Debug)]
pub struct EnrolFacts {
    /// SHA-256 of the token's secret.
    pub hash: [u8; 32],
    /// The point of the machine's key; whoever asks proved that it has the key.
    pub public_key: Vec<u8>,
    /// What the machine calls itself.
    pub hostname: String,
    /// The controller's clock.
    pub at: Timestamp,
    /// The id that the machine gets if it is new.
    pub new_id: MachineId,
    /// When the certificate ends that an accepted machine gets.
    pub expires: Timestamp,
    /// A machine whose last certificate ended before this does not come back with a token that it used before.
    pub gone_before: Timestamp,
}

/// What an attempt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolOutcome {
    /// This machine, new or the same again.
    Machine {
        /// Its id.
        id: MachineId,
        /// Accepted or pending.
        state: EnrolmentState,
    },
    /// The token is none of this controller's.
    UnknownToken,
    /// The token is worth nothing any more.
    Expired {
        /// Since when.
        at: Timestamp,
    },
    /// It was used as often as it may.
    UsedUp,
    /// An operator took it back.
    TokenRevoked,
    /// The key belongs to a machine that was rejected or revoked.
    MachineRefused {
        /// Which of both.
        state: EnrolmentState,
    },
    /// The machine enrolled with this token before and was then away for too long.
    GoneTooLong,
}

/// Compares in a time that does not depend on where the first difference is.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    one.len() == other.len() && difference == 0
}

const COLUMNS: &str = "id, created_at, expires_at, uses_allowed, uses, needs_acceptance, revoked, groups";

fn record_of(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    Ok(TokenRecord {
        id: parsed(0, row.get_ref(0)?.as_str()?)?,
        created_at: time(row.get(1)?),
        expires_at: time(row.get(2)?),
        uses_allowed: row.get(3)?,
        uses: row.get(4)?,
        needs_acceptance: row.get(5)?,
        revoked: row.get(6)?,
        groups: serde_json::from_str(row.get_ref(7)?.as_str()?)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(7, Type::Text, error.into()))?,
    })
}

fn find(connection: &Connection, hash: &[u8; 32]) -> Result<Option<TokenRecord>, Fault> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS}, hash FROM tokens WHERE hash_prefix = ?1"))?;
    let rows = statement.query_map([&hash[..PREFIX]], |row| Ok((record_of(row)?, row.get::<_, Vec<u8>>(8)?)))?;
    let mut found = None;
    for row in rows {
        let (record, stored) = row?;
        if equal(&stored, hash) {
            found = Some(record);
        }
    }
    Ok(found)
}

fn machine_by_key(
    connection: &Connection,
    public_key: &[u8],
) -> Result<Option<(MachineId, EnrolmentState, Option<Timestamp>)>, Fault> {
    Ok(connection
        .prepare_cached("SELECT id, state, certificate_expires FROM machines WHERE public_key = ?1")?
        .query_row([public_key], |row| {
            Ok((
                parsed(0, row.get_ref(0)?.as_str()?)?,
                EnrolmentState::from_number(row.get(1)?),
                row.get::<_, Option<i64>>(2)?.map(time),
            ))
        })
        .optional()?)
}

fn enrol(connection: &Connection, facts: &EnrolFacts) -> Result<EnrolOutcome, Fault> {
    let Some(token) = find(connection, &facts.hash)? else { return Ok(EnrolOutcome::UnknownToken) };
    let known = machine_by_key(connection, &facts.public_key)?;
    if let Some((_, state @ (EnrolmentState::Rejected | EnrolmentState::Revoked), _)) = known {
        return Ok(EnrolOutcome::MachineRefused { state });
    }
    let used_before: bool = connection
        .prepare_cached("SELECT count(*) FROM token_uses WHERE token = ?1 AND public_key = ?2")?
        .query_row(params![token.id.to_string(), facts.public_key], |row| row.get::<_, i64>(0))?
        > 0;
    let (id, state) = if let (true, Some((id, state, expired))) = (used_before, known) {
        // The machine repeats what it asked before it was killed, or asks whether it was accepted by now.
        if expired.is_some_and(|expired| expired < facts.gone_before) {
            return Ok(EnrolOutcome::GoneTooLong);
        }
        (id, state)
    } else {
        if token.revoked {
            return Ok(EnrolOutcome::TokenRevoked);
        }
        if token.expires_at <= facts.at {
            return Ok(EnrolOutcome::Expired { at: token.expires_at });
        }
        if token.uses >= token.uses_allowed {
            return Ok(EnrolOutcome::UsedUp);
        }
        let state = if token.needs_acceptance { EnrolmentState::Pending } else { EnrolmentState::Accepted };
        let (id, state) = known.map_or((facts.new_id, state), |(id, was, _)| (id, was));
        connection
            .prepare_cached(
                "INSERT INTO machines (id, hostname, state, public_key, enrolled_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname",
            )?
            .execute(params![
                id.to_string(),
                facts.hostname,
                state.number(),
                facts.public_key,
                facts.at.unix_millis()
            ])?;
        connection
            .prepare_cached("INSERT INTO token_uses (token, public_key, machine, at) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![token.id.to_string(), facts.public_key, id.to_string(), facts.at.unix_millis()])?;
        connection
            .prepare_cached("UPDATE tokens SET uses = uses + 1 WHERE id = ?1")?
            .execute([token.id.to_string()])?;
        join_groups(connection, id, &token.groups)?;
        let mut detail = format!("{} ({state})", facts.hostname);
        if !token.groups.is_empty() {
            detail += ", into ";
            detail += &token.groups.join(", ");
        }
        audit::record(connection, &Event::new(facts.at, Actor::Token(token.id), "machine.enrolled", id, detail))?;
        (id, state)
    };
    if state == EnrolmentState::Accepted {
        note_certificate(connection, id, facts.expires)?;
    }
    Ok(EnrolOutcome::Machine { id, state })
}

impl Store {
    /// Keeps a new token.
    pub async fn put_token(&self, hash: [u8; 32], record: TokenRecord, actor: Actor) -> Result<(), StoreError> {
        self.write("keep a token", move |connection| {
            connection.execute(
                "INSERT INTO tokens (id, hash_prefix, hash, created_at, expires_at, uses_allowed, needs_acceptance,
                    groups)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    record.id.to_string(),
                    &hash[..PREFIX],
                    &hash[..],
                    record.created_at.unix_millis(),
                    record.expires_at.unix_millis(),
                    record.uses_allowed,
                    record.needs_acceptance,
                    to_json(&record.groups),
                ],
            )?;
            let mut detail = format!("for {} uses until {}", record.uses_allowed, record.expires_at);
            if !record.groups.is_empty() {
                detail += ", into ";
                detail += &record.groups.join(", ");
            }
            audit::record(connection, &Event::new(record.created_at, actor, "token.created", record.id, detail))
        })
        .await
    }

    /// Every token, oldest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.read("list tokens", |connection| {
            let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM tokens ORDER BY created_at, id"))?;
            Ok(statement.query_map([], record_of)?.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Takes a token back; `None` if there is no such.
    pub async fn revoke_token(
        &self,
        token: TokenId,
        at: Timestamp,
        actor: Actor,
    ) -> Result<Option<TokenRecord>, StoreError> {
        self.write("revoke a token", move |connection| {
            let changed = connection
                .execute("UPDATE tokens SET revoked = 1 WHERE id = ?1 AND revoked = 0", [token.to_string()])?;
            if changed > 0 {
                audit::record(connection, &Event::new(at, actor, "token.revoked", token, ""))?;
            }
            let sql = format!("SELECT {COLUMNS} FROM tokens WHERE id = ?1");
            Ok(connection.query_row(&sql, [token.to_string()], record_of).optional()?)
        })
        .await
    }

    /// Enrols a machine with a token, all in one transaction. The same token with the same key gives the same machine
    /// and counts no second use.
    pub async fn enrol(&self, facts: EnrolFacts) -> Result<EnrolOutcome, StoreError> {
        self.write("enrol a machine", move |connection| enrol(connection, &facts)).await
    }
}
