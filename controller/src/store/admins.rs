//! Operators with a certificate.

use muster_proto::{AdminName, AdminRecord, Timestamp};
use rusqlite::{OptionalExtension as _, Row, params};

use super::audit::{self, Actor, Event};
use super::{Store, StoreError, parsed, time};

/// What decides whether an admin's certificate counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminStanding {
    /// The serial number of the certificate that counts.
    pub serial: Vec<u8>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether it was taken back.
    pub revoked: bool,
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<AdminRecord> {
    Ok(AdminRecord {
        name: parsed(0, row.get_ref(0)?.as_str()?)?,
        created_at: time(row.get(1)?),
        expires_at: time(row.get(2)?),
        revoked: row.get(3)?,
    })
}

impl Store {
    /// Adds an admin, or one of that name again whose certificate was revoked or has ended. False, and nothing changed,
    /// if the name is in use.
    pub async fn put_admin(&self, record: AdminRecord, serial: Vec<u8>, actor: Actor) -> Result<bool, StoreError> {
        self.write("add an admin", move |connection| {
            let changed = connection.execute(
                "INSERT INTO admins (name, serial, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET serial = excluded.serial, created_at = excluded.created_at,
                 expires_at = excluded.expires_at, revoked = 0
                 WHERE admins.revoked = 1 OR admins.expires_at <= excluded.created_at",
                params![record.name.as_str(), serial, record.created_at.unix_millis(), record.expires_at.unix_millis()],
            )?;
            if changed > 0 {
                let detail = format!("until {}", record.expires_at);
                audit::record(connection, &Event::new(record.created_at, actor, "admin.added", &record.name, detail))?;
            }
            Ok(changed > 0)
        })
        .await
    }

    /// Every admin there ever was, by name.
    pub async fn admins(&self) -> Result<Vec<AdminRecord>, StoreError> {
        self.read("list admins", |connection| {
            let mut statement =
                connection.prepare("SELECT name, created_at, expires_at, revoked FROM admins ORDER BY name")?;
            Ok(statement.query_map([], record_of)?.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Takes an admin's certificate back; `None` if there is no such admin.
    pub async fn revoke_admin(
        &self,
        name: AdminName,
        at: Timestamp,
        actor: Actor,
    ) -> Result<Option<AdminRecord>, StoreError> {
        self.write("revoke an admin", move |connection| {
            let changed =
                connection.execute("UPDATE admins SET revoked = 1 WHERE name = ?1 AND revoked = 0", [name.as_str()])?;
            if changed > 0 {
                audit::record(connection, &Event::new(at, actor, "admin.revoked", &name, ""))?;
            }
            let sql = "SELECT name, created_at, expires_at, revoked FROM admins WHERE name = ?1";
            Ok(connection.query_row(sql, [name.as_str()], record_of).optional()?)
        })
        .await
    }

    /// What decides whether an admin's certificate counts.
    pub async fn admin_standing(&self, name: AdminName) -> Result<Option<AdminStanding>, StoreError> {
        self.read("check an admin", move |connection| {
            let sql = "SELECT serial, expires_at, revoked FROM admins WHERE name = ?1";
            Ok(connection
                .prepare_cached(sql)?
                .query_row([name.as_str()], |row| {
                    Ok(AdminStanding { serial: row.get(0)?, expires_at: time(row.get(1)?), revoked: row.get(2)? })
                })
                .optional()?)
        })
        .await
    }
}
