//! What llama.cpp's dry runs said: each (file, settings, devices) is sized once.

use std::collections::BTreeMap;

use muster_proto::{EngineSettings, MemoryNeed, ModelDigest};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, from_json, parsed, to_json};

/// What a dry run depends on, but for the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SizingKey {
    /// The llama.cpp build that says so.
    pub engine_build: String,
    /// How the model would run.
    pub settings: EngineSettings,
    /// Name, backend, and memory of each GPU, where that decides; empty for the CPU alone.
    pub devices: Vec<(String, String, u64)>,
}

/// What it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizingOutcome {
    /// So much.
    Needs(MemoryNeed),
    /// llama.cpp does not take it, in its words.
    Refused(String),
}

impl Store {
    /// Keeps what a dry run said.
    pub async fn put_sizing(
        &self,
        digest: ModelDigest,
        key: &SizingKey,
        outcome: &SizingOutcome,
    ) -> Result<(), StoreError> {
        let (key, outcome) = (to_json(key), to_json(outcome));
        self.write("keep a sizing", move |connection| {
            connection.execute(
                "INSERT INTO sizings (digest, request, outcome) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET outcome = excluded.outcome",
                params![digest.to_string(), key, outcome],
            )?;
            Ok(())
        })
        .await
    }

    /// Everything that is known.
    pub async fn sizings(&self) -> Result<BTreeMap<(ModelDigest, SizingKey), SizingOutcome>, StoreError> {
        self.read("read the sizings", |connection| {
            let mut statement = connection.prepare_cached("SELECT digest, request, outcome FROM sizings")?;
            let mut rows = statement.query([])?;
            let mut all = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let digest: ModelDigest = parsed(0, &row.get::<_, String>(0)?)?;
                let key = from_json("the request of a sizing", &row.get::<_, String>(1)?)?;
                all.insert((digest, key), from_json("a sizing", &row.get::<_, String>(2)?)?);
            }
            Ok(all)
        })
        .await
    }
}
