//! The catalog's rows: models and their artifacts.

use muster_proto::{Artifact, ArtifactSource, Bytes, ContextTokens, Model, ModelDigest, Quality, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::audit::{self, Actor, Event};
use super::{Fault, Store, StoreError, amount, from_json, integer, parsed, time, to_json};

/// What all artifacts of one model have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// Its name in the catalog.
    pub name: String,
    /// llama.cpp's architecture.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// The context it was trained with.
    pub context_train: Option<ContextTokens>,
    /// The licence as the file states it.
    pub licence: Option<String>,
}

/// An artifact with what predicts its speed.
#[derive(Clone, Debug, PartialEq)]
pub struct ArtifactRecord {
    /// The artifact.
    pub artifact: Artifact,
    /// Bytes of weights that each decoded token reads.
    pub bytes_per_token: Bytes,
    /// Parameters that each token is multiplied with.
    pub parameters_per_token: u64,
}

/// An artifact that comes into the catalog.
#[derive(Clone, Debug)]
pub struct NewArtifact {
    /// Its model, which is made if it is not there.
    pub model: ModelFacts,
    /// The artifact.
    pub record: ArtifactRecord,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: Actor,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutArtifact {
    /// It is in the catalog now.
    Added,
    /// The very file was there, under this model.
    AlreadyThere {
        /// The model.
        model: String,
    },
    /// Another model has this name.
    OtherModel {
        /// How they differ.
        difference: String,
    },
}

fn artifact_of(row: &Row<'_>) -> Result<ArtifactRecord, Fault> {
    let source: String = row.get(4)?;
    let quality: Option<String> = row.get(7)?;
    Ok(ArtifactRecord {
        artifact: Artifact {
            digest: parsed(0, row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?,
            quantization: row.get(1)?,
            size: Bytes::new(amount(row.get(2)?)),
            bits_per_weight: row.get(3)?,
            source: from_json::<ArtifactSource>("the source of an artifact", &source)?,
            quality: quality.map(|json| from_json::<Quality>("the quality of an artifact", &json)).transpose()?,
        },
        bytes_per_token: Bytes::new(amount(row.get(5)?)),
        parameters_per_token: amount(row.get(6)?),
    })
}

fn artifacts_of(connection: &Connection, model: &str) -> Result<Vec<ArtifactRecord>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT digest, quantization, size, bits_per_weight, source, bytes_per_token, parameters_per_token, quality
         FROM artifacts WHERE model = ?1 ORDER BY bits_per_weight DESC, digest",
    )?;
    let mut rows = statement.query([model])?;
    let mut artifacts = Vec::new();
    while let Some(row) = rows.next()? {
        artifacts.push(artifact_of(row)?);
    }
    Ok(artifacts)
}

fn facts_of(row: &Row<'_>) -> rusqlite::Result<(ModelFacts, Timestamp)> {
    let facts = ModelFacts {
        name: row.get(0)?,
        architecture: row.get(1)?,
        parameters: amount(row.get(2)?),
        context_train: row.get::<_, Option<u32>>(3)?.map(ContextTokens::new),
        licence: row.get(4)?,
    };
    Ok((facts, time(row.get(5)?)))
}

const COLUMNS: &str = "name, architecture, parameters, context_train, licence, imported_at";

fn put(connection: &Connection, new: &NewArtifact) -> Result<PutArtifact, Fault> {
    let digest = new.record.artifact.digest;
    let there: Option<String> = connection
        .query_row("SELECT model FROM artifacts WHERE digest = ?1", [digest.to_string()], |row| row.get(0))
        .optional()?;
    if let Some(model) = there {
        return Ok(PutArtifact::AlreadyThere { model });
    }
    let sql = format!("SELECT {COLUMNS} FROM models WHERE name = ?1");
    let facts = &new.model;
    match connection.query_row(&sql, [&facts.name], facts_of).optional()? {
        None => {
            connection.execute(
                "INSERT INTO models (name, architecture, parameters, context_train, licence, imported_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    facts.name,
                    facts.architecture,
                    integer(facts.parameters),
                    facts.context_train.map(ContextTokens::get),
                    facts.licence,
                    new.at.unix_millis()
                ],
            )?;
        }
        Some((old, _)) if (&old.architecture, old.parameters) != (&facts.architecture, facts.parameters) => {
            let difference = format!(
                "it is {} with {} parameters, the file {} with {}",
                old.architecture, old.parameters, facts.architecture, facts.parameters
            );
            return Ok(PutArtifact::OtherModel { difference });
        }
        Some(_) => {}
    }
    let artifact = &new.record.artifact;
    connection.execute(
        "INSERT INTO artifacts
         (digest, model, quantization, size, bits_per_weight, source, bytes_per_token, parameters_per_token, quality)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            digest.to_string(),
            facts.name,
            artifact.quantization,
            integer(artifact.size.get()),
            artifact.bits_per_weight,
            to_json(&artifact.source),
            integer(new.record.bytes_per_token.get()),
            integer(new.record.parameters_per_token),
            artifact.quality.as_ref().map(to_json)
        ],
    )?;
    let action = match artifact.source {
        ArtifactSource::Imported => "model.imported",
        ArtifactSource::QuantizedFrom { .. } => "model.quantized",
    };
    let detail = format!("{} of {}, {digest}", artifact.quantization, artifact.size);
    audit::record(connection, &Event::new(new.at, new.actor.clone(), action, &facts.name, detail))?;
    Ok(PutArtifact::Added)
}

impl Store {
    /// Brings an artifact into the catalog, unless the same file is there.
    pub async fn put_artifact(&self, new: NewArtifact) -> Result<PutArtifact, StoreError> {
        self.write("enter a model into the catalog", move |connection| put(connection, &new)).await
    }

    /// Keeps the quality of an artifact that is in the catalog; false where it is not.
    pub async fn set_quality(&self, digest: ModelDigest, quality: Quality) -> Result<bool, StoreError> {
        self.write("keep a quality", move |connection| {
            let changed = connection.execute(
                "UPDATE artifacts SET quality = ?2 WHERE digest = ?1",
                params![digest.to_string(), to_json(&quality)],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    /// Which model a file belongs to, if it is in the catalog.
    pub async fn model_of(&self, digest: ModelDigest) -> Result<Option<String>, StoreError> {
        self.read("look a file up in the catalog", move |connection| {
            Ok(connection
                .query_row("SELECT model FROM artifacts WHERE digest = ?1", [digest.to_string()], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// The catalog with what predicts speeds, by name.
    pub async fn catalog(&self) -> Result<Vec<(Model, Vec<ArtifactRecord>)>, StoreError> {
        self.read("list models", |connection| {
            let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM models ORDER BY name"))?;
            let all = statement.query_map([], facts_of)?.collect::<rusqlite::Result<Vec<_>>>()?;
            all.into_iter()
                .map(|(facts, imported_at)| {
                    let records = artifacts_of(connection, &facts.name)?;
                    let artifacts = records.iter().map(|record| record.artifact.clone()).collect();
                    let ModelFacts { name, architecture, parameters, context_train, licence } = facts;
                    let model =
                        Model { name, architecture, parameters, context_train, licence, imported_at, artifacts };
                    Ok((model, records))
                })
                .collect()
        })
        .await
    }

    /// The catalog, by name.
    pub async fn models(&self) -> Result<Vec<Model>, StoreError> {
        Ok(self.catalog().await?.into_iter().map(|(model, _)| model).collect())
    }

    /// One model of the catalog.
    pub async fn model(&self, name: &str) -> Result<Option<Model>, StoreError> {
        Ok(self.models().await?.into_iter().find(|model| model.name == name))
    }

    /// The digest of every file that the catalog names.
    pub async fn digests(&self) -> Result<Vec<ModelDigest>, StoreError> {
        self.read("list files", |connection| {
            let mut statement = connection.prepare("SELECT digest FROM artifacts")?;
            let rows = statement.query_map([], |row| parsed(0, row.get_ref(0)?.as_str()?))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}
