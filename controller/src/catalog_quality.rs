//! Measuring the artifacts of the catalog: which text, how much of it, and an importance matrix on its way in.
//!
//! Owns: the basis on which one catalog's figures compare. The measuring itself is `muster_engine`'s.

use std::path::PathBuf;
use std::sync::LazyLock;

use bytes::Bytes as RawBytes;
use muster_engine::bundled;
use muster_engine::quality_text::QualityText;
use muster_engine::worker::{self, QualityProgress, QualityRequest, WorkerCommand, WorkerError};
use muster_proto::{Bytes, ModelDigest, Quality};
use tokio::io::AsyncWriteExt as _;

use crate::blobs::Staged;

/// Chunks of the text: the standard error of the mean is then some hundredths of it.
const CHUNKS: u32 = 32;
/// Files up to this size are computed on one thread: more would wait for each other longer than they compute.
const SMALL: Bytes = Bytes::from_mib(256);
/// Largest importance matrix that is taken.
const LARGEST_IMATRIX: Bytes = Bytes::from_gib(1);

/// The bundled model's own digest.
static BUNDLED: LazyLock<ModelDigest> = LazyLock::new(|| {
    let digest = ring::digest::digest(&ring::digest::SHA256, bundled::MUSTER_TINY_F16);
    ModelDigest::try_from(digest.as_ref()).expect("a SHA-256 has 32 bytes")
});

/// The text for artifacts that were made from this one.
fn text_for(source: ModelDigest) -> QualityText {
    if source == *BUNDLED { QualityText::bundled() } else { QualityText::built_in() }
}

/// Measures `candidate` against `source`.
///
/// # Errors
/// What the worker says, e.g. that the model writes no text.
pub(crate) async fn measure(
    worker: &WorkerCommand,
    (digest, source): (ModelDigest, PathBuf),
    candidate: PathBuf,
    progress: impl FnMut(QualityProgress) + Send,
) -> Result<Quality, WorkerError> {
    let text = text_for(digest);
    let name = text.name.clone();
    let size = std::fs::metadata(&source).map_or(0, |file| file.len());
    let threads = (size <= SMALL.get()).then_some(1);
    let request = QualityRequest { chunks: Some(CHUNKS), threads, ..QualityRequest::new(source, candidate, text) };
    let found = worker::quality(worker, request, progress).await?;
    Ok(Quality {
        source: digest,
        text: name,
        context: found.context,
        chunks: found.chunks,
        engine_build: muster_engine::BUILD.to_owned(),
        divergence: found.divergence,
    })
}

/// An importance matrix that comes in parts; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ImatrixFile {
    staged: Staged,
    file: tokio::fs::File,
    length: u64,
}

impl ImatrixFile {
    /// An empty one.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn create(staged: Staged) -> std::io::Result<Self> {
        let file = tokio::fs::File::create_new(staged.path()).await?;
        Ok(Self { staged, file, length: 0 })
    }

    /// Appends a part.
    ///
    /// # Errors
    /// It becomes too long, or what the file system says.
    pub async fn push(&mut self, part: RawBytes) -> std::io::Result<()> {
        self.length += part.len() as u64;
        if self.length > LARGEST_IMATRIX.get() {
            return Err(std::io::Error::other(format!("an importance matrix has at most {LARGEST_IMATRIX}")));
        }
        self.file.write_all(&part).await
    }

    /// The whole file.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn finish(mut self) -> std::io::Result<Staged> {
        self.file.flush().await?;
        Ok(self.staged)
    }
}
