//! Policies: every one that was applied, the newest being in force.

use muster_proto::{PolicyRecord, Timestamp};
use rusqlite::{OptionalExtension as _, params};

use super::audit::{self, Actor, Event};
use super::{Store, StoreError, amount, time};

impl Store {
    /// Puts a policy in force. The same text again changes nothing.
    pub async fn apply_policy(&self, toml: String, at: Timestamp, actor: Actor) -> Result<PolicyRecord, StoreError> {
        let applied = self
            .write("apply a policy", move |connection| {
                let newest: Option<String> = connection
                    .query_row("SELECT toml FROM policies ORDER BY revision DESC LIMIT 1", [], |row| row.get(0))
                    .optional()?;
                if newest.as_ref() != Some(&toml) {
                    connection.execute(
                        "INSERT INTO policies (toml, applied_at, applied_by) VALUES (?1, ?2, ?3)",
                        params![toml, at.unix_millis(), actor.to_string()],
                    )?;
                    let revision = connection.last_insert_rowid();
                    audit::record(
                        connection,
                        &Event::new(at, actor, "policy.applied", "policy", format!("revision {revision}")),
                    )?;
                }
                Ok(())
            })
            .await;
        applied?;
        self.policy().await
    }

    /// The policy in force; empty, revision 0, if none was ever applied.
    pub async fn policy(&self) -> Result<PolicyRecord, StoreError> {
        self.read("read the policy", |connection| {
            let sql = "SELECT toml, revision, applied_at, applied_by FROM policies ORDER BY revision DESC LIMIT 1";
            let newest = connection
                .query_row(sql, [], |row| {
                    Ok(PolicyRecord {
                        toml: row.get(0)?,
                        revision: amount(row.get(1)?),
                        applied_at: time(row.get(2)?),
                        applied_by: row.get(3)?,
                    })
                })
                .optional()?;
            Ok(newest.unwrap_or_else(|| PolicyRecord {
                toml: String::new(),
                revision: 0,
                applied_at: time(0),
                applied_by: String::new(),
            }))
        })
        .await
    }
}
