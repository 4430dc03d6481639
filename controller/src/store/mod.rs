//! The embedded store: SQLite in WAL mode with full synchronisation.
//!
//! Owns: the database file, its migrations, one writer thread that commits queued writes in groups, and one reader thread
//! beside it. It does not know of networks, certificates or planning. Each write is answered only after its group was
//! committed, so that what was answered is never lost.
//!
//! Entry point: [`Store`]; what can be asked is in one file for each concept.

mod admins;
mod audit;
mod bench_orders;
mod desired;
mod fleet;
mod machines;
mod models;
mod policy;
mod predictions;
mod queue;
mod schema;
mod sizings;
mod tokens;

use std::path::Path;
use std::sync::Arc;

use muster_proto::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Type;

pub use admins::AdminStanding;
pub use audit::{Actor, Event};
pub use desired::{Desired, Held, HeldOutcome};
pub use fleet::FleetCounts;
pub use machines::{Found, HelloFacts, MachineKey, Standing};
pub use models::{ArtifactRecord, ModelFacts, NewArtifact, PutArtifact};
pub use predictions::LedgerEntry;
pub use sizings::{SizingKey, SizingOutcome};
pub use tokens::{EnrolFacts, EnrolOutcome};

use queue::Queue;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database file cannot be opened or prepared.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: String,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer build wrote it.
    #[error("the database has version {found}, this build knows up to {known}: use the newer build again")]
    Newer {
        /// What the database has.
        found: u32,
        /// What this build knows.
        known: u32,
    },
    /// A migration failed; the database is as it was.
    #[error("cannot bring the database to version {to}")]
    Migrate {
        /// The version that could not be reached.
        to: u32,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// A thread of the store could not be started.
    #[error("cannot start the store's thread")]
    Thread(#[source] std::io::Error),
    /// One step failed; nothing of it was kept.
    #[error("cannot {step} in the database")]
    Step {
        /// What was tried.
        step: &'static str,
        /// Why not.
        #[source]
        source: Fault,
    },
    /// The group that the write was in could not be committed; nothing of it was kept.
    #[error("cannot commit to the database")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The store is shut down.
    #[error("the store is shut down")]
    Closed,
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// SQLite says no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A stored value cannot be read.
    #[error("{what} is damaged: {detail}")]
    Damaged {
        /// Which.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// A handle on the store; clones share its threads.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Queue,
    reader: Queue,
}

impl Store {
    /// Opens the database file, creating or migrating it, and starts the threads.
    ///
    /// # Errors
    /// A newer database is refused; everything else is SQLite's.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = schema::connect(path)?;
        schema::migrate(&mut connection, schema::MIGRATIONS)?;
        let reading = schema::connect(path)?;
        reading
            .pragma_update(None, "query_only", true)
            .map_err(|source| StoreError::Open { path: path.display().to_string(), source })?;
        Ok(Self { writer: Queue::writer(connection)?, reader: Queue::reader(reading)? })
    }

    /// Runs `job` in the writer's next transaction; the answer comes after its commit. A job that fails leaves nothing.
    async fn write<T: Send + 'static>(
        &self,
        step: &'static str,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.run(step, job).await
    }

    /// Runs `job` on the reader's connection, in one snapshot.
    async fn read<T: Send + 'static>(
        &self,
        step: &'static str,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reader.run(step, job).await
    }

    /// Does what is queued, writes the log back into the database file, and ends the threads.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// A domain type as it lies in a column.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("domain types have text keys and serialize without errors of their own")
}

/// Reads what [`to_json`] wrote.
fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Damaged { what: what.to_owned(), detail: error.to_string() })
}

/// Reads a column that holds the print of an identifier or digest.
fn parsed<T: std::str::FromStr>(column: usize, text: &str) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}

/// Reads a column of milliseconds since 1970.
fn time(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

/// An amount as SQLite keeps it; nothing that Muster counts comes near the limit.
fn integer(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Reads what [`integer`] wrote.
fn amount(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}
