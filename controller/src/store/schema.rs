//! The tables, and how an older database becomes a newer one.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// Each brings the database one version further. Never changed once released, only added to.
pub(super) const MIGRATIONS: &[&str] = &[INITIAL, QUALITY, BENCH_ORDERS];

const INITIAL: &str = "
CREATE TABLE machines (
    id TEXT PRIMARY KEY,
    hostname TEXT NOT NULL,
    state INTEGER NOT NULL,
    -- The uncompressed point of its P-256 key.
    public_key BLOB NOT NULL UNIQUE,
    enrolled_at INTEGER NOT NULL,
    last_seen INTEGER,
    agent_version TEXT,
    -- Newest certificate.
    certificate_expires INTEGER,
    inventory TEXT,
    benchmark TEXT,
    observed TEXT
) STRICT;
CREATE INDEX machines_by_hostname ON machines(hostname);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    -- First four bytes of the hash, to find it by; compared whole in constant time.
    hash_prefix BLOB NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    uses_allowed INTEGER NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0,
    needs_acceptance INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX tokens_by_prefix ON tokens(hash_prefix);
CREATE TABLE token_uses (
    token TEXT NOT NULL REFERENCES tokens(id),
    public_key BLOB NOT NULL,
    machine TEXT NOT NULL REFERENCES machines(id),
    at INTEGER NOT NULL,
    PRIMARY KEY (token, public_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE desired (
    machine TEXT PRIMARY KEY REFERENCES machines(id),
    generation INTEGER NOT NULL,
    -- JSON of the assignments; null until something was decided for the machine.
    assignments TEXT
) STRICT, WITHOUT ROWID;

-- For ever: what was expected, and what came of it.
CREATE TABLE predictions (
    assignment TEXT NOT NULL,
    machine TEXT NOT NULL REFERENCES machines(id),
    model TEXT NOT NULL,
    quantization TEXT NOT NULL,
    digest TEXT NOT NULL,
    settings TEXT NOT NULL,
    prediction TEXT NOT NULL,
    predicted_at INTEGER NOT NULL,
    measured TEXT,
    measured_at INTEGER,
    PRIMARY KEY (assignment, predicted_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX predictions_by_machine ON predictions(machine, predicted_at);

CREATE TABLE models (
    name TEXT PRIMARY KEY,
    architecture TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    context_train INTEGER,
    licence TEXT,
    imported_at INTEGER NOT NULL
) STRICT;
CREATE TABLE artifacts (
    digest TEXT PRIMARY KEY,
    model TEXT NOT NULL REFERENCES models(name),
    quantization TEXT NOT NULL,
    size INTEGER NOT NULL,
    bits_per_weight REAL NOT NULL,
    source TEXT NOT NULL,
    bytes_per_token INTEGER NOT NULL,
    parameters_per_token INTEGER NOT NULL
) STRICT;
CREATE INDEX artifacts_by_model ON artifacts(model);
CREATE TABLE sizings (
    digest TEXT NOT NULL,
    -- JSON of the settings and the devices that it was sized with, and the llama.cpp build that said so.
    request TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (digest, request)
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    toml TEXT NOT NULL,
    applied_at INTEGER NOT NULL,
    applied_by TEXT NOT NULL
) STRICT;

CREATE TABLE admins (
    name TEXT PRIMARY KEY,
    -- The one certificate that counts.
    serial BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
";

/// How far an artifact is from what it was made from, as JSON; null where that was not measured.
const QUALITY: &str = "ALTER TABLE artifacts ADD COLUMN quality TEXT;";

/// The newest order to benchmark each machine, as JSON.
const BENCH_ORDERS: &str = "
CREATE TABLE bench_orders (
    machine TEXT PRIMARY KEY REFERENCES machines(id),
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// A connection with the settings that every connection has.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A commit that was answered survives power loss.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| StoreError::Open { path: path.display().to_string(), source })
}

/// Brings a database to the newest version, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let known = u32::try_from(migrations.len()).expect("few migrations");
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| StoreError::Migrate { to: known, source })?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (version, migration) in (1..).zip(migrations).skip(found as usize) {
        let mut step = || {
            let transaction = connection.transaction()?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", version)?;
            transaction.commit()
        };
        step().map_err(|source| StoreError::Migrate { to: version, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (7);";
    const SECOND: &str = "ALTER TABLE t ADD COLUMN b INTEGER NOT NULL DEFAULT 9;";

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("db");
        (directory, path)
    }

    #[test]
    fn an_older_database_is_brought_forward_and_keeps_its_rows() {
        let (_directory, path) = file();
        migrate(&mut connect(&path).expect("opens"), &[FIRST]).expect("new");
        let mut connection = connect(&path).expect("opens again");
        migrate(&mut connection, &[FIRST, SECOND]).expect("one step");
        let row: (i64, i64) =
            connection.query_row("SELECT a, b FROM t", [], |row| Ok((row.get(0)?, row.get(1)?))).expect("the row");
        assert_eq!(row, (7, 9));
    }

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let (_directory, path) = file();
        migrate(&mut connect(&path).expect("opens"), &[FIRST, SECOND]).expect("new");
        let refused = migrate(&mut connect(&path).expect("opens"), &[FIRST]);
        assert!(matches!(refused, Err(StoreError::Newer { found: 2, known: 1 })));
    }

    #[test]
    fn a_failed_step_leaves_the_version_before() {
        let (_directory, path) = file();
        let mut connection = connect(&path).expect("opens");
        let failed = migrate(&mut connection, &[FIRST, "CREATE TABLE u (a INTEGER); NONSENSE;"]);
        assert!(matches!(failed, Err(StoreError::Migrate { to: 2, .. })));
        let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a number");
        assert_eq!(version, 1);
        assert!(connection.prepare("SELECT * FROM u").is_err());
    }

    #[test]
    fn the_real_schema_is_valid_and_synchronous() {
        let (_directory, path) = file();
        let mut connection = connect(&path).expect("opens");
        migrate(&mut connection, MIGRATIONS).expect("valid");
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("a word");
        let sync: u32 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).expect("a number");
        assert_eq!((mode.as_str(), sync), ("wal", 2));
    }
}
