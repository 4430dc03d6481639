//! Importing models: a file comes in, is checked, sized and quantized, and each artifact enters the catalog whole or not
//! at all.
//!
//! Owns: the order of the steps and the rules of names. A file is looked at in safe Rust first and then by llama.cpp in a
//! worker; a malformed one kills nothing but that worker. It does not know of the wire.
//!
//! Entry point: [`Catalog::import`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes as RawBytes;
use futures_util::{Stream, StreamExt as _};
use muster_engine::bundled;
use muster_engine::gguf::{GgufError, GgufFiles, GgufHeader};
use muster_engine::maker::Quantization;
use muster_engine::worker::{self, QualityProgress, QuantizeProgress, QuantizeRequest, WorkerCommand, WorkerError};
use muster_proto::{Artifact, ArtifactSource, Bytes, EngineSettings, Model, ModelDigest, Quality};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;

use crate::blobs::{BlobError, Blobs, Staged};
use crate::catalog_quality::{self, ImatrixFile};
use crate::clock::Clock;
use crate::replan::ReplanHandle;
use crate::sizing;
use crate::store::{Actor, ArtifactRecord, ModelFacts, NewArtifact, PutArtifact, SizingOutcome, Store, StoreError};

/// Bytes between two messages of progress while a file comes in.
const PROGRESS_STEP: u64 = 4 << 20;

/// Why an import, or a part of it, failed. What entered the catalog before stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The name cannot be used.
    #[error("{0:?} is no model name: write 1 to 96 letters, digits or . _ - : /, the first a letter or digit")]
    Name(String),
    /// Neither the operator nor the file names it.
    #[error("the file names no model: give it one with --name NAME")]
    Nameless,
    /// Nothing of that name.
    #[error("no model {0:?}: see muster models list")]
    NoModel(String),
    /// It has nothing to quantize from.
    #[error(
        "model {0} has no F32, BF16 or F16 file to quantize from: import it, or take what there is with --requantize"
    )]
    NoSource(String),
    /// It would fail after all of the file had come.
    #[error("{0} needs an importance matrix: give one with --imatrix FILE, as llama.cpp's llama-imatrix makes it")]
    NeedsImatrix(&'static str),
    /// The importance matrix could not be kept.
    #[error("cannot take the importance matrix")]
    Imatrix(#[source] std::io::Error),
    /// Not one of llama.cpp's.
    #[error("{0:?} is no quantization: write for example Q8_0 or Q4_K_M")]
    Quantization(String),
    /// The file is not a model that llama.cpp takes.
    #[error("bad model file: {0}")]
    BadModel(String),
    /// The name belongs to another model.
    #[error("the catalog has another model named {name}: {difference}; give this one another name with --name NAME")]
    Conflict {
        /// The name.
        name: String,
        /// How they differ.
        difference: String,
    },
    /// The file is there under another name.
    #[error("the catalog has this file as {there}, not as {wanted}")]
    OtherName {
        /// Its name in the catalog.
        there: String,
        /// The name that was given.
        wanted: String,
    },
    /// llama.cpp could not quantize it.
    #[error("cannot quantize to {quantization}")]
    Quantize {
        /// To what.
        quantization: String,
        /// Why not.
        #[source]
        source: WorkerError,
    },
    /// A worker could not be used.
    #[error("cannot check the model file")]
    Worker(#[source] WorkerError),
    /// The file could not be stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The catalog could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sender broke off.
    #[error("the transfer broke off: {0}")]
    Transfer(String),
}

/// What is to be imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportRequest {
    /// Size of the file that comes.
    pub size: Bytes,
    /// Name in the catalog; `None` takes the file's own.
    pub name: Option<String>,
    /// Quantizations to make from it.
    pub quantize: Vec<String>,
    /// The bundled model instead of a file that comes.
    pub bundled: bool,
    /// Leave the quality of what is quantized unmeasured.
    pub no_quality: bool,
    /// Quantize from what is quantized already, where there is no other source.
    pub requantize: bool,
}

/// What is to be made of one artifact, and how.
#[derive(Debug)]
struct Making {
    quantizations: Vec<&'static str>,
    imatrix: Option<Staged>,
    quality: bool,
    requantize: bool,
}

impl Making {
    fn check(request: &ImportRequest, imatrix: Option<Staged>) -> Result<Self, ImportError> {
        let mut quantizations = Vec::new();
        for name in &request.quantize {
            let name = check_quantization(name, imatrix.is_some())?;
            if !quantizations.contains(&name) {
                quantizations.push(name);
            }
        }
        Ok(Self { quantizations, imatrix, quality: !request.no_quality, requantize: request.requantize })
    }
}

/// How far an import is.
#[derive(Clone, Debug, PartialEq)]
pub enum ImportProgress {
    /// Received so far.
    Received(Bytes),
    /// Doing something.
    Step {
        /// What, e.g. `quantizing`.
        what: &'static str,
        /// Which quantization or model.
        subject: String,
        /// 0 to 1.
        fraction: f64,
    },
}

/// Checks the name of a model.
///
/// # Errors
/// [`ImportError::Name`].
pub fn check_name(name: &str) -> Result<(), ImportError> {
    let fits = (1..=96).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte))
        && !name.contains("..");
    if fits { Ok(()) } else { Err(ImportError::Name(name.chars().take(120).collect())) }
}

/// The name, as llama.cpp writes it, of a quantization that can be made with or without an importance matrix.
///
/// # Errors
/// [`ImportError::Quantization`] and [`ImportError::NeedsImatrix`].
pub fn check_quantization(name: &str, imatrix: bool) -> Result<&'static str, ImportError> {
    let known =
        Quantization::from_name(name).ok_or_else(|| ImportError::Quantization(name.chars().take(32).collect()))?;
    if known.needs_importance() && !imatrix {
        return Err(ImportError::NeedsImatrix(known.name()));
    }
    Ok(known.name())
}

/// A name that may be used, made of what a file calls itself: `Llama 3.2 1B (Instruct)` → `Llama-3.2-1B-Instruct`.
pub fn name_from(words: &str) -> Option<String> {
    let mut name = String::new();
    for part in words.split(|c: char| !(c.is_ascii_alphanumeric() || "._-:/".contains(c))).filter(|p| !p.is_empty()) {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
    }
    let name: String = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).chars().take(96).collect();
    check_name(&name).is_ok().then_some(name)
}

/// What the header of a file says of it.
#[derive(Clone, Debug)]
struct FileFacts {
    name: Option<String>,
    model: ModelFacts,
    quantization: String,
    bits_per_weight: f64,
    bytes_per_token: Bytes,
    parameters_per_token: u64,
    quality: Option<Quality>,
}

fn facts_of(header: &GgufHeader) -> FileFacts {
    FileFacts {
        name: header.name().and_then(name_from),
        model: ModelFacts {
            name: String::new(),
            architecture: short(header.architecture()),
            parameters: header.parameters(),
            context_train: header.context_length(),
            licence: header.licence().map(short),
        },
        quantization: header.file_type().map_or_else(|| "unknown".to_owned(), |name| short(&name)),
        bits_per_weight: header.bits_per_weight(),
        bytes_per_token: header.bytes_per_token(),
        parameters_per_token: header.parameters_per_token(),
        quality: None,
    }
}

/// The words of a file, cut to what belongs in a catalog.
fn short(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Imports models; clones share it.
#[derive(Clone, Debug)]
pub struct Catalog {
    store: Store,
    blobs: Blobs,
    worker: WorkerCommand,
    clock: Clock,
    replan: ReplanHandle,
    /// One quantization at a time: each takes all cores.
    quantizing: Arc<Semaphore>,
    /// One file at a time gets its place and its row, so that nobody removes a file that another's row names.
    entering: Arc<Semaphore>,
}

/// Where progress goes. A listener that left does not stop anything.
pub type Progress = mpsc::Sender<ImportProgress>;

async fn say(progress: &Progress, what: &'static str, subject: &str, fraction: f64) {
    let _ = progress.send(ImportProgress::Step { what, subject: subject.to_owned(), fraction }).await;
}

impl Catalog {
    /// A catalog over these.
    pub fn new(store: Store, blobs: Blobs, worker: WorkerCommand, clock: Clock, replan: ReplanHandle) -> Self {
        let [quantizing, entering] = [0; 2].map(|_| Arc::new(Semaphore::new(1)));
        Self { store, blobs, worker, clock, replan, quantizing, entering }
    }

    /// Takes a file into the catalog and makes quantizations from it. Importing the same file again changes nothing.
    /// Dropping the future stops at once and keeps nothing unfinished.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub async fn import(
        &self,
        request: ImportRequest,
        imatrix: Option<Staged>,
        chunks: impl Stream<Item = Result<RawBytes, String>> + Send,
        progress: &Progress,
        actor: Actor,
    ) -> Result<Model, ImportError> {
        let mut request = request;
        if request.bundled {
            request.size = Bytes::new(bundled::MUSTER_TINY_F16.len() as u64);
            request.name.get_or_insert_with(|| bundled::NAME.to_owned());
        }
        if let Some(name) = &request.name {
            check_name(name)?;
        }
        let making = Making::check(&request, imatrix)?;
        let (staged, digest) = if request.bundled {
            let bytes = RawBytes::from_static(bundled::MUSTER_TINY_F16);
            self.receive(request.size, futures_util::stream::iter([Ok(bytes)]), progress).await?
        } else {
            self.receive(request.size, chunks, progress).await?
        };
        let model = match self.store.model_of(digest).await? {
            Some(there) => {
                if let Some(wanted) = request.name.filter(|wanted| *wanted != there) {
                    return Err(ImportError::OtherName { there, wanted });
                }
                say(progress, "already in the catalog", &there, 1.0).await;
                // The file that is there may be damaged or gone, and this one is whole.
                self.blobs.keep(staged, digest).await?;
                there
            }
            None => self.take(staged, digest, &request, progress, actor.clone()).await?,
        };
        self.make(&model, digest, &making, progress, actor).await
    }

    /// Makes quantizations of a model that is in the catalog, from its file with the most bits per weight that is not
    /// quantized.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub async fn quantize_model(
        &self,
        request: ImportRequest,
        imatrix: Option<Staged>,
        progress: &Progress,
        actor: Actor,
    ) -> Result<Model, ImportError> {
        let making = Making::check(&request, imatrix)?;
        let name = request.name.unwrap_or_default();
        let model = self.store.model(&name).await?.ok_or_else(|| ImportError::NoModel(name.clone()))?;
        let whole = |artifact: &&Artifact| self.blobs.path(artifact.digest).exists();
        let trained = |artifact: &&Artifact| ["F32", "BF16", "F16"].contains(&artifact.quantization.as_str());
        // The catalog gives them by bits per weight.
        let mut there = model.artifacts.iter().filter(whole);
        let source = there.clone().find(trained).or_else(|| there.next().filter(|_| making.requantize));
        let source = source.ok_or_else(|| ImportError::NoSource(name.clone()))?;
        self.make(&name, source.digest, &making, progress, actor).await
    }

    /// A place for an importance matrix that comes in.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn imatrix_file(&self) -> Result<ImatrixFile, ImportError> {
        ImatrixFile::create(self.blobs.stage()).await.map_err(ImportError::Imatrix)
    }

    async fn make(
        &self,
        model: &str,
        source: ModelDigest,
        making: &Making,
        progress: &Progress,
        actor: Actor,
    ) -> Result<Model, ImportError> {
        for quantization in &making.quantizations {
            self.quantize(model, source, quantization, making, progress, actor.clone()).await?;
            self.replan.request();
        }
        self.replan.request();
        let done = self.store.model(model).await?;
        done.ok_or_else(|| ImportError::Transfer(format!("model {model} was removed meanwhile")))
    }

    /// Measures an artifact. One that cannot be measured is as good as any other: it is said, and nothing fails.
    async fn measure(
        &self,
        source: ModelDigest,
        candidate: &Path,
        subject: &str,
        progress: &Progress,
    ) -> Option<Quality> {
        say(progress, "measuring", subject, 0.0).await;
        let mut told = 0.0;
        let measuring = catalog_quality::measure(
            &self.worker,
            (source, self.blobs.path(source)),
            candidate.to_owned(),
            |QualityProgress { fraction, .. }| {
                if fraction - told >= 0.01 {
                    told = fraction;
                    let (subject, fraction) = (subject.to_owned(), f64::from(fraction));
                    let _ = progress.try_send(ImportProgress::Step { what: "measuring", subject, fraction });
                }
            },
        );
        match measuring.await {
            Ok(quality) => Some(quality),
            Err(error) => {
                let error = one_line(&crate::error_chain(&error));
                tracing::warn!(%error, quantization = subject, "the quality of an artifact was not measured");
                say(progress, "not measured:", &error, 1.0).await;
                None
            }
        }
    }

    async fn receive(
        &self,
        size: Bytes,
        chunks: impl Stream<Item = Result<RawBytes, String>> + Send,
        progress: &Progress,
    ) -> Result<(Staged, ModelDigest), ImportError> {
        let mut receiving = self.blobs.receive(size).await?;
        let mut chunks = std::pin::pin!(chunks);
        let came: Result<(), ImportError> = async {
            let mut told = 0;
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(ImportError::Transfer)?;
                let received = receiving.push(chunk).await?;
                if receiving.failed() {
                    break;
                }
                if received.get() - told >= PROGRESS_STEP || received == size {
                    told = received.get();
                    let _ = progress.send(ImportProgress::Received(received)).await;
                }
            }
            Ok(())
        }
        .await;
        // Finished in any case: only then is what was written kept or removed.
        let finished = receiving.finish().await;
        came?;
        Ok(finished?)
    }

    /// Checks a file that is new, and moves it and its row into place.
    async fn take(
        &self,
        staged: Staged,
        digest: ModelDigest,
        request: &ImportRequest,
        progress: &Progress,
        actor: Actor,
    ) -> Result<String, ImportError> {
        let subject = request.name.clone().unwrap_or_else(|| "the file".to_owned());
        say(progress, "checking", &subject, 0.0).await;
        let mut facts = self.check(staged.path(), digest).await?;
        let name = request.name.clone().or(facts.name.take()).ok_or(ImportError::Nameless)?;
        say(progress, "checking", &name, 1.0).await;
        facts.model.name.clone_from(&name);
        self.enter(staged, digest, facts, request.size, ArtifactSource::Imported, actor).await?;
        // Known now, so that a failing quantization does not hide it from the planner.
        self.replan.request();
        Ok(name)
    }

    /// The gate: safe Rust first, then llama.cpp's own dry run in a worker.
    async fn check(&self, path: &Path, digest: ModelDigest) -> Result<FileFacts, ImportError> {
        let owned = path.to_owned();
        let read = spawn_blocking(move || GgufFiles::open(&owned).map(|files| facts_of(&files.into_header())));
        let facts = match read.await {
            Ok(Ok(facts)) => facts,
            Ok(Err(error)) => return Err(ImportError::BadModel(one_line(&crate::error_chain::<GgufError>(&error)))),
            Err(_) => return Err(ImportError::BadModel("its header cannot be read".to_owned())),
        };
        let settings = EngineSettings::default();
        let outcome = sizing::ask(&self.worker, path.to_owned(), settings.clone(), Vec::new()).await;
        match outcome.map_err(ImportError::Worker)? {
            SizingOutcome::Refused(words) => Err(ImportError::BadModel(one_line(&words))),
            outcome @ SizingOutcome::Needs(_) => {
                self.store.put_sizing(digest, &sizing::key(&settings, &[]), &outcome).await?;
                Ok(facts)
            }
        }
    }

    /// Moves a checked file and its row into place; without the row, the file does not stay. Goes through to its end even
    /// if nobody waits for it any more: half of it would be a file that no row names.
    async fn enter(
        &self,
        staged: Staged,
        digest: ModelDigest,
        facts: FileFacts,
        size: Bytes,
        source: ArtifactSource,
        actor: Actor,
    ) -> Result<(), ImportError> {
        let catalog = self.clone();
        let entering =
            tokio::spawn(async move { catalog.enter_whole(staged, digest, facts, size, source, actor).await });
        entering.await.expect("no panic in it, and nobody aborts it")
    }

    async fn enter_whole(
        &self,
        staged: Staged,
        digest: ModelDigest,
        facts: FileFacts,
        size: Bytes,
        source: ArtifactSource,
        actor: Actor,
    ) -> Result<(), ImportError> {
        let _turn = self.entering.acquire().await.expect("never closed");
        let name = facts.model.name.clone();
        let moved = self.blobs.keep(staged, digest).await?;
        let FileFacts { quantization, bits_per_weight, quality, .. } = facts;
        let artifact = Artifact { digest, quantization, size, bits_per_weight, source, quality };
        let record = ArtifactRecord {
            artifact,
            bytes_per_token: facts.bytes_per_token,
            parameters_per_token: facts.parameters_per_token,
        };
        let new = NewArtifact { model: facts.model, record, at: self.clock.now(), actor };
        let put = self.store.put_artifact(new).await;
        if moved && !matches!(put, Ok(PutArtifact::Added | PutArtifact::AlreadyThere { .. })) {
            self.blobs.remove(digest);
        }
        match put? {
            PutArtifact::Added => Ok(()),
            // The same file came in twice at the same time.
            PutArtifact::AlreadyThere { model } if model == name => Ok(()),
            PutArtifact::AlreadyThere { model } => Err(ImportError::OtherName { there: model, wanted: name }),
            PutArtifact::OtherModel { difference } => Err(ImportError::Conflict { name, difference }),
        }
    }

    async fn quantize(
        &self,
        model: &str,
        source: ModelDigest,
        quantization: &'static str,
        making: &Making,
        progress: &Progress,
        actor: Actor,
    ) -> Result<(), ImportError> {
        let _turn = self.quantizing.acquire().await.expect("never closed");
        let there = self.store.model(model).await?;
        let same = |artifact: &&Artifact| artifact.quantization == quantization;
        // One whose file is missing, e.g. after a restore, is made again.
        let whole = |artifact: &Artifact| self.blobs.path(artifact.digest).exists();
        if let Some(artifact) = there.iter().flat_map(|model| &model.artifacts).filter(same).find(|a| whole(a)) {
            if making.quality && artifact.quality.is_none() && artifact.digest != source {
                let path = self.blobs.path(artifact.digest);
                if let Some(quality) = self.measure(source, &path, quantization, progress).await {
                    self.store.set_quality(artifact.digest, quality).await?;
                }
            }
            say(progress, "already in the catalog", quantization, 1.0).await;
            return Ok(());
        }
        say(progress, "quantizing", quantization, 0.0).await;
        let path = self.blobs.path(source);
        // The result is at most as large as the source, but for one of more bits; the worker knows exactly.
        let size = std::fs::metadata(&path).map_or(Bytes::ZERO, |file| Bytes::new(file.len()));
        self.blobs.check_room(size)?;
        let staged = self.blobs.stage();
        let target: PathBuf = staged.path().to_owned();
        let request = QuantizeRequest {
            source: path,
            target,
            quantization: quantization.to_owned(),
            imatrix: making.imatrix.as_ref().map(|staged| staged.path().to_owned()),
            requantize: making.requantize,
            ..QuantizeRequest::default()
        };
        let mut told = 0.0;
        worker::quantize(&self.worker, request, |QuantizeProgress { fraction, .. }| {
            // Told only if there is room: the worker waits for nobody.
            if fraction - told >= 0.01 {
                told = fraction;
                let subject = quantization.to_owned();
                let fraction = f64::from(fraction);
                let _ = progress.try_send(ImportProgress::Step { what: "quantizing", subject, fraction });
            }
        })
        .await
        .map_err(|source| ImportError::Quantize { quantization: quantization.to_owned(), source })?;
        say(progress, "checking", quantization, 0.0).await;
        let (digest, size) = self.blobs.hash(staged.path().to_owned()).await?;
        let mut facts = self.check(staged.path(), digest).await?;
        model.clone_into(&mut facts.model.name);
        // What was asked for is what it is called, whatever the header says of mixtures.
        quantization.clone_into(&mut facts.quantization);
        if making.quality {
            facts.quality = self.measure(source, staged.path(), quantization, progress).await;
        }
        self.enter(staged, digest, facts, size, ArtifactSource::QuantizedFrom { digest: source }, actor).await?;
        say(progress, "checking", quantization, 1.0).await;
        Ok(())
    }
}

fn one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_what_files_call_themselves() {
        assert_eq!(name_from("Llama 3.2 1B (Instruct)").as_deref(), Some("Llama-3.2-1B-Instruct"));
        assert_eq!(name_from("../../etc/passwd").as_deref(), Some("etc/passwd"));
        assert_eq!(name_from("模型"), None);
        assert_eq!(name_from(""), None);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for good in ["a", "tiny:1", "org/model-Q4_K_M", "muster-tiny"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "-a", "a b", "a\n", "../a", "a/../b", &"a".repeat(97)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(check_quantization("q4_k_m", false).ok(), Some("Q4_K_M"));
        assert_eq!(check_quantization("iq3_xs", true).ok(), Some("IQ3_XS"));
        assert!(matches!(check_quantization("iq3_xs", false), Err(ImportError::NeedsImatrix("IQ3_XS"))));
        assert!(matches!(check_quantization("Q4", true), Err(ImportError::Quantization(_))));
    }
}
