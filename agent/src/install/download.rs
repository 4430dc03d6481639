//! [`Download`]: one file from the controller into the store: resumed, capped, verified, then there at once or not.
//!
//! It runs once and fails with a reason; when to try again is the reconciler's matter. A digest that is wrong leaves
//! nothing behind, every other failure leaves the partial file.

use std::fs;
use std::io;
use std::time::Duration;

use muster_engine::host::atomic_file::sync_dir;
use muster_proto::{Bytes, BytesPerSecond, ModelDigest, Transfer};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::writer::{self, Piece, Written};
use super::{Bandwidth, BlobError, Blobs, Store};

/// Pieces between network and disk: some MiB, so that neither waits for the other's hiccups.
const QUEUE: usize = 128;
/// No byte for that long: the connection is dead.
const STALL: Duration = Duration::from_mins(1);
/// Progress is told this often.
const PROGRESS: Duration = Duration::from_millis(250);

/// A file to get.
#[derive(Clone, Debug)]
pub struct Download {
    /// Where from.
    pub blobs: Blobs,
    /// Where to.
    pub store: Store,
    /// Which file.
    pub digest: ModelDigest,
    /// Its size.
    pub size: Bytes,
    /// What stays free on the volume.
    pub reserve: Bytes,
    /// The cap over everything.
    pub bandwidth: Bandwidth,
    /// The cap of this connection.
    pub link_bandwidth: Bandwidth,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Bytes come.
    Downloading(Transfer),
    /// All bytes are here; they go to disk and their digest is checked.
    Verifying(Transfer),
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The volume is too full.
    #[error("not enough disk space: {needs} needed with the reserve, {free} free on the volume of {}", store.display())]
    NoSpace {
        /// What must be free, the reserve included.
        needs: Bytes,
        /// What is.
        free: Bytes,
        /// Where.
        store: std::path::PathBuf,
    },
    /// The controller does not give it, or the connection broke.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Nothing came for a long time.
    #[error("no byte came for {} s", STALL.as_secs())]
    Stalled,
    /// The controller sent fewer or more bytes than the file has.
    #[error("the controller sent {got} of {expected} bytes")]
    Length {
        /// What came.
        got: u64,
        /// What should have come.
        expected: u64,
    },
    /// What came is another file.
    #[error("digest mismatch: expected {expected}, received {got}; nothing of it was kept")]
    Mismatch {
        /// What was assigned.
        expected: ModelDigest,
        /// What came.
        got: ModelDigest,
    },
    /// The store cannot be written.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// It is no longer wanted.
    #[error("the download was cancelled")]
    Cancelled,
}

impl Download {
    /// Gets the file. `report` hears of progress a few times a second.
    ///
    /// # Errors
    /// See [`DownloadError`].
    pub async fn run(
        &self,
        cancel: &CancellationToken,
        mut report: impl FnMut(Phase),
    ) -> Result<Transfer, DownloadError> {
        let part = self.store.part(&self.digest);
        let size = self.size.get();
        let mut prefix = fs::metadata(&part).map_or(0, |metadata| metadata.len());
        if prefix > size {
            fs::remove_file(&part).map_err(self.io("remove"))?;
            prefix = 0;
        }
        self.check_space(size - prefix)?;

        let (pieces, mut receiver) = mpsc::channel(QUEUE);
        let path = part.clone();
        let disk = tokio::task::spawn_blocking(move || writer::write(&path, prefix, &mut receiver));
        let mut progress = Progress::new(size, prefix);
        report(Phase::Downloading(progress.transfer()));
        // The writer is always waited for, so that no two ever write the same file.
        let network = async {
            // Cancel-safe: what was received is in the channel or in the partial file; the rest is asked for again.
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(DownloadError::Cancelled),
                result = self.receive(prefix, &pieces, &mut progress, &mut report) => result,
            }
        }
        .await;
        if network.is_ok() {
            report(Phase::Verifying(progress.transfer()));
            let _ = pieces.send(Piece::End).await;
        }
        drop(pieces);
        let written = disk.await.map_err(|error| self.io("write")(io::Error::other(error)))?;
        match (network, written) {
            (_, Err(error)) => Err(self.write_error(error, size)),
            (Err(error), Ok(_)) => Err(error),
            (Ok(()), Ok(Written::Partial)) => Err(DownloadError::Cancelled),
            (Ok(()), Ok(Written::Whole(sha256))) => {
                self.install(ModelDigest::new(sha256))?;
                Ok(progress.transfer())
            }
        }
    }

    /// Brings the bytes from `prefix` on into the channel.
    async fn receive(
        &self,
        prefix: u64,
        pieces: &mpsc::Sender<Piece>,
        progress: &mut Progress,
        report: &mut impl FnMut(Phase),
    ) -> Result<(), DownloadError> {
        let size = self.size.get();
        if prefix == size {
            return Ok(());
        }
        let stalled = |_| DownloadError::Stalled;
        let mut blob =
            tokio::time::timeout(STALL, self.blobs.get(&self.digest, prefix, size)).await.map_err(stalled)??;
        if blob.start != prefix {
            progress.restart();
            if pieces.send(Piece::Restart).await.is_err() {
                return Ok(());
            }
        }
        let mut told = Instant::now();
        while let Some(bytes) = tokio::time::timeout(STALL, blob.chunk()).await.map_err(stalled)?? {
            let length = bytes.len();
            if progress.done + length as u64 > size {
                return Err(DownloadError::Length { got: progress.done + length as u64, expected: size });
            }
            self.bandwidth.take(length).await;
            self.link_bandwidth.take(length).await;
            if pieces.send(Piece::Data(bytes)).await.is_err() {
                // The writer failed and will say why.
                return Ok(());
            }
            progress.done += length as u64;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                report(Phase::Downloading(progress.transfer()));
            }
        }
        if progress.done != size {
            return Err(DownloadError::Length { got: progress.done, expected: size });
        }
        Ok(())
    }

    /// Gives a verified file its name; removes one that is not what it should be.
    fn install(&self, got: ModelDigest) -> Result<(), DownloadError> {
        let part = self.store.part(&self.digest);
        if got != self.digest {
            fs::remove_file(&part).map_err(self.io("remove"))?;
            return Err(DownloadError::Mismatch { expected: self.digest, got });
        }
        fs::rename(&part, self.store.file(&self.digest)).map_err(self.io("rename"))?;
        sync_dir(self.store.directory()).map_err(self.io("sync the folder of"))
    }

    fn check_space(&self, missing: u64) -> Result<(), DownloadError> {
        let free = self.store.disk().map_err(self.io("ask for the free space of"))?.free;
        let needs = Bytes::new(missing).saturating_add(self.reserve);
        if missing > 0 && free < needs {
            return Err(DownloadError::NoSpace { needs, free, store: self.store.directory().to_owned() });
        }
        Ok(())
    }

    fn write_error(&self, error: io::Error, size: u64) -> DownloadError {
        if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return self.io("write")(error);
        }
        let written = fs::metadata(self.store.part(&self.digest)).map_or(0, |metadata| metadata.len());
        DownloadError::NoSpace {
            needs: Bytes::new(size.saturating_sub(written)).saturating_add(self.reserve),
            free: self.store.disk().map_or(Bytes::ZERO, |disk| disk.free),
            store: self.store.directory().to_owned(),
        }
    }

    fn io(&self, step: &'static str) -> impl Fn(io::Error) -> DownloadError {
        let path = self.store.part(&self.digest);
        move |source| DownloadError::Io { step, path: path.clone(), source }
    }
}

/// Bytes so far and their speed.
#[derive(Debug)]
struct Progress {
    size: u64,
    resumed_from: u64,
    done: u64,
    began: Instant,
}

impl Progress {
    fn new(size: u64, resumed_from: u64) -> Self {
        Self { size, resumed_from, done: resumed_from, began: Instant::now() }
    }

    fn restart(&mut self) {
        (self.resumed_from, self.done) = (0, 0);
    }

    fn transfer(&self) -> Transfer {
        let seconds = self.began.elapsed().as_secs_f64();
        let speed = (seconds > 0.0 && self.done > self.resumed_from)
            .then(|| BytesPerSecond::new((self.done - self.resumed_from) as f64 / seconds))
            .flatten();
        Transfer {
            total: Bytes::new(self.size),
            done: Bytes::new(self.done),
            resumed_from: Bytes::new(self.resumed_from),
            speed,
        }
    }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
