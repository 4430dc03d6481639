//! The store of model files, by content: `blobs/sha256/ab/<64 hexadecimal digits>`.
//!
//! Owns: staging (files on their way in, removed at start and whenever they are not finished), hashing while they are
//! written, the moves that make a file appear whole or not at all, and serving files with ranges to the machines whose own
//! desired state names them. It does not know what is in a file.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::{Path as RoutePath, Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes as RawBytes, BytesMut};
use futures_util::stream;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use muster_engine::host::atomic_file::sync_dir;
use muster_proto::{Bytes, ModelDigest};
use ring::digest::{Context, SHA256};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::identity::Caller;
use crate::links::Session;
use crate::store::Store;

/// Where files are served from; the digest's digits follow.
pub const ROUTE_PREFIX: &str = "/v1/blobs/sha256/";

/// Bytes in one step of reading or hashing: large enough that the steps themselves cost nothing.
const CHUNK: usize = 512 * 1024;

/// Why a file was not stored.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The volume is full, or would be.
    #[error("no room in {}: {needs} needed and {reserve} to be left, {free} is free", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// What would be written.
        needs: Bytes,
        /// What must stay free.
        reserve: Bytes,
        /// What is free.
        free: Bytes,
    },
    /// The file system refused.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// More came than was announced.
    #[error("the file is longer than the announced {announced}")]
    TooLong {
        /// What was announced.
        announced: Bytes,
    },
    /// Less came than was announced.
    #[error("the file ended after {got} of the announced {announced}")]
    TooShort {
        /// What came.
        got: Bytes,
        /// What was announced.
        announced: Bytes,
    },
}

/// The folder of the store inside a data directory.
pub const FOLDER: &str = "blobs";

/// Where the file of this digest is in the store at `root`.
pub fn path_in(root: &Path, digest: ModelDigest) -> PathBuf {
    let hex = digest.hex();
    root.join("sha256").join(&hex[..2]).join(hex)
}

/// The store; clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    root: Arc<PathBuf>,
    reserve: Bytes,
    next: Arc<AtomicU64>,
}

/// A path in the staging directory; what is there is removed when this is dropped.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
}

impl Staged {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already where it was moved into place.
        let _ = fs::remove_file(&self.path);
    }
}

/// A file that is being received: written and hashed on a thread of its own.
#[derive(Debug)]
pub struct Receiving {
    chunks: mpsc::Sender<RawBytes>,
    writing: JoinHandle<Result<(Staged, ModelDigest), BlobError>>,
    announced: Bytes,
    received: u64,
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    move |source| BlobError::Io { step, path: path.to_owned(), source }
}

impl Blobs {
    /// The store in this directory, made if it is not there. What an earlier run did not finish is removed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: PathBuf, reserve: Bytes) -> Result<Self, BlobError> {
        let staging = root.join("staging");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("empty", &staging)(error)),
            _ => {}
        }
        for directory in [staging, root.join("sha256")] {
            fs::create_dir_all(&directory).map_err(io_error("create", &directory))?;
        }
        sync_dir(&root).map_err(io_error("sync", &root))?;
        Ok(Self { root: Arc::new(root), reserve, next: Arc::default() })
    }

    /// Where a file is, if it is here.
    pub fn path(&self, digest: ModelDigest) -> PathBuf {
        path_in(&self.root, digest)
    }

    /// A new path for a file on its way in.
    pub fn stage(&self) -> Staged {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Staged { path: self.root.join("staging").join(format!("{number}.gguf")) }
    }

    /// Refuses what would not leave the reserve free.
    ///
    /// # Errors
    /// [`BlobError::NoRoom`].
    pub fn check_room(&self, needs: Bytes) -> Result<(), BlobError> {
        let space = rustix::fs::statvfs(self.root.as_path())
            .map_err(|error| io_error("look at the volume of", &self.root)(error.into()))?;
        let free = Bytes::new(space.f_bavail.saturating_mul(space.f_frsize));
        if needs.saturating_add(self.reserve) > free {
            return Err(BlobError::NoRoom { path: self.root.to_path_buf(), needs, reserve: self.reserve, free });
        }
        Ok(())
    }

    /// Begins to receive a file of this size.
    ///
    /// # Errors
    /// There is no room for it.
    pub async fn receive(&self, announced: Bytes) -> Result<Receiving, BlobError> {
        let blobs = self.clone();
        let (chunks, mut incoming) = mpsc::channel::<RawBytes>(8);
        spawn_blocking(move || blobs.check_room(announced)).await.expect("no panic in it")?;
        let staged = self.stage();
        let blobs = self.clone();
        let writing = spawn_blocking(move || {
            let path = staged.path().to_owned();
            let full = |source: io::Error| blobs.full(announced, "write", &path, source);
            let mut file = new_file(&path).map_err(io_error("create", &path))?;
            let mut hash = Context::new(&SHA256);
            while let Some(chunk) = incoming.blocking_recv() {
                file.write_all(&chunk).map_err(full)?;
                hash.update(&chunk);
            }
            file.sync_all().map_err(full)?;
            Ok((staged, finish(hash)))
        });
        Ok(Receiving { chunks, writing, announced, received: 0 })
    }

    /// A full volume has an error of its own.
    fn full(&self, needs: Bytes, step: &'static str, path: &Path, source: io::Error) -> BlobError {
        if source.kind() == io::ErrorKind::StorageFull
            && let Err(error) = self.check_room(needs)
        {
            return error;
        }
        io_error(step, path)(source)
    }

    /// SHA-256 and size of a staged file, made durable.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn hash(&self, path: PathBuf) -> Result<(ModelDigest, Bytes), BlobError> {
        let hashing = spawn_blocking(move || {
            let read = || {
                let mut file = File::open(&path)?;
                file.sync_all()?;
                let mut hash = Context::new(&SHA256);
                let mut buffer = vec![0; CHUNK];
                let mut size = 0;
                loop {
                    match file.read(&mut buffer)? {
                        0 => break,
                        read => {
                            hash.update(&buffer[..read]);
                            size += read as u64;
                        }
                    }
                }
                Ok((finish(hash), Bytes::new(size)))
            };
            read().map_err(io_error("read", &path))
        });
        hashing.await.expect("no panic in it")
    }

    /// Moves a staged file to its place. False if one was there before; that one is replaced, for it may be damaged, and
    /// whoever is reading it reads on.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn keep(&self, staged: Staged, digest: ModelDigest) -> Result<bool, BlobError> {
        let target = self.path(digest);
        let moving = spawn_blocking(move || {
            let new = !target.exists();
            let directory = target.parent().expect("made of three parts").to_owned();
            if !directory.exists() {
                fs::create_dir_all(&directory).map_err(io_error("create", &directory))?;
                let root = directory.parent().expect("made of three parts");
                sync_dir(root).map_err(io_error("sync", root))?;
            }
            fs::rename(staged.path(), &target).map_err(io_error("move into place", &target))?;
            sync_dir(&directory).map_err(io_error("sync", &directory))?;
            Ok(new)
        });
        moving.await.expect("no panic in it")
    }

    /// Removes a file that the catalog does not name.
    pub fn remove(&self, digest: ModelDigest) {
        let path = self.path(digest);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a file");
        }
    }

    /// Removes every file that the catalog does not name, and tells of those that it names and that are not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sweep(&self, known: &[ModelDigest]) -> Result<(), BlobError> {
        for path in self.files()? {
            let digest = path.file_name().and_then(|name| ModelDigest::from_hex(name.to_str()?).ok());
            if digest.is_none_or(|digest| !known.contains(&digest)) {
                tracing::info!(path = %path.display(), "removing a file that no model names");
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        for digest in known.iter().filter(|digest| !self.path(**digest).exists()) {
            tracing::error!(%digest, "a file of the catalog is missing: import it again");
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>, BlobError> {
        let mut files = Vec::new();
        let list = |path: &Path| -> Result<Vec<PathBuf>, BlobError> {
            let entries = fs::read_dir(path).map_err(io_error("list", path))?;
            entries.map(|entry| entry.map(|entry| entry.path()).map_err(io_error("list", path))).collect()
        };
        for directory in list(&self.root.join("sha256"))? {
            files.extend(list(&directory)?);
        }
        Ok(files)
    }

    /// What all files take.
    ///
    /// # Errors
    /// What the file system says.
    pub fn used(&self) -> Result<Bytes, BlobError> {
        Ok(self.files()?.iter().filter_map(|path| fs::metadata(path).ok()).map(|file| Bytes::new(file.len())).sum())
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn finish(hash: Context) -> ModelDigest {
    ModelDigest::new(hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

impl Receiving {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// More than was announced; or writing failed, which [`finish`](Self::finish) explains.
    pub async fn push(&mut self, chunk: RawBytes) -> Result<Bytes, BlobError> {
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received > self.announced.get() {
            return Err(BlobError::TooLong { announced: self.announced });
        }
        // The writer ended only if it failed; finishing then says why.
        let _ = self.chunks.send(chunk).await;
        Ok(Bytes::new(self.received))
    }

    /// Whether writing failed, so that more need not be sent.
    pub fn failed(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Waits for the end of writing.
    ///
    /// # Errors
    /// Less came than was announced, or writing failed.
    pub async fn finish(self) -> Result<(Staged, ModelDigest), BlobError> {
        drop(self.chunks);
        let written = self.writing.await.expect("no panic in it")?;
        if self.received < self.announced.get() {
            return Err(BlobError::TooShort { got: Bytes::new(self.received), announced: self.announced });
        }
        Ok(written)
    }
}

/// What serving needs.
#[derive(Clone, Debug)]
pub struct BlobRoute {
    /// The files.
    pub blobs: Blobs,
    /// Who may have which.
    pub store: Store,
}

/// A part of a file: first byte and length.
type Part = (u64, u64);

/// Reads a `Range` header: `Ok(None)` for one that does not count (none, another unit, several ranges).
fn part(headers: &HeaderMap, etag: &HeaderValue, size: u64) -> Result<Option<Part>, ()> {
    let Some(range) = headers.get(RANGE).and_then(|range| range.to_str().ok()) else { return Ok(None) };
    if headers.get(IF_RANGE).is_some_and(|if_range| if_range != etag) {
        return Ok(None);
    }
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Ok(None);
    };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, size.saturating_sub(1)),
        (Err(_), Ok(suffix)) if first.is_empty() => {
            if suffix == 0 || size == 0 {
                return Err(());
            }
            (size.saturating_sub(suffix), size - 1)
        }
        _ => return Ok(None),
    };
    if first >= size {
        return Err(());
    }
    Ok(Some((first, last - first + 1)))
}

/// Serves one file, or a part of it, to a machine whose desired state names it.
pub async fn serve(State(route): State<BlobRoute>, RoutePath(hex): RoutePath<String>, request: Request) -> Response {
    let Some(Caller::Machine(machine)) = request.extensions().get::<Caller>().cloned() else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let Ok(digest) = ModelDigest::from_hex(&hex) else { return StatusCode::NOT_FOUND.into_response() };
    match route.store.is_desired(machine, digest).await {
        Ok(true) => {}
        Ok(false) => return StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::error!(error = %crate::error_chain(&error), "cannot check a download");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    }
    let session = request.extensions().get::<Session>().cloned().unwrap_or_default();
    let Ok(permit) = Arc::clone(&session.limits.downloads).try_acquire_owned() else {
        return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, HeaderValue::from_static("5"))]).into_response();
    };
    let path = route.blobs.path(digest);
    let opened = spawn_blocking(move || {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok::<_, io::Error>((file, size))
    });
    let (file, size) = match opened.await.expect("no panic in it") {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(%digest, %error, "cannot open a file of the catalog");
            return StatusCode::NOT_FOUND.into_response();
        }
    };
    let etag = HeaderValue::try_from(format!("\"{digest}\"")).expect("ASCII");
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ETAG, etag.clone());
    let (first, length) = match part(request.headers(), &etag, size) {
        Ok(None) => (0, size),
        Ok(Some((first, length))) => {
            let range = format!("bytes {first}-{}/{size}", first + length - 1);
            headers.insert(CONTENT_RANGE, HeaderValue::try_from(range).expect("ASCII"));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (first, length)
        }
        Err(()) => {
            headers.insert(CONTENT_RANGE, HeaderValue::try_from(format!("bytes */{size}")).expect("ASCII"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return response;
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    if request.method() != Method::HEAD {
        *response.body_mut() = body(file, first, length, (session, permit));
    }
    response
}

/// Streams a part of a file until the session ends, and gives its permit back then. While one chunk is on its way, the
/// next is read; no thread waits for a slow peer.
fn body(file: File, first: u64, length: u64, session: (Session, OwnedSemaphorePermit)) -> Body {
    struct Reading {
        next: Option<JoinHandle<io::Result<(RawBytes, File)>>>,
        left: u64,
    }
    fn read(mut file: File, left: u64, seek: Option<u64>) -> JoinHandle<io::Result<(RawBytes, File)>> {
        spawn_blocking(move || {
            if let Some(seek) = seek {
                file.seek(SeekFrom::Start(seek))?;
            }
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = BytesMut::zeroed(length);
            file.read_exact(&mut chunk)?;
            Ok((chunk.freeze(), file))
        })
    }
    let begin = (length > 0).then(|| read(file, length, Some(first)));
    let reading = Reading { next: begin, left: length };
    Body::from_stream(stream::try_unfold((reading, session), |(mut reading, session)| async move {
        let Some(next) = reading.next.take() else { return Ok(None) };
        if session.0.ended.is_cancelled() {
            return Err(io::Error::other("the machine was revoked"));
        }
        let (chunk, file) = next.await.map_err(io::Error::other)??;
        reading.left -= chunk.len() as u64;
        if reading.left > 0 {
            reading.next = Some(read(file, reading.left, None));
        }
        Ok::<_, io::Error>(Some((chunk, (reading, session))))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, size: u64) -> Result<Option<Part>, ()> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::try_from(text).expect("ASCII"));
        part(&headers, &HeaderValue::from_static("\"x\""), size)
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        assert_eq!(range("bytes=0-9", 100), Ok(Some((0, 10))));
        assert_eq!(range("bytes=90-", 100), Ok(Some((90, 10))));
        assert_eq!(range("bytes=90-1000", 100), Ok(Some((90, 10))));
        assert_eq!(range("bytes=-10", 100), Ok(Some((90, 10))));
        assert_eq!(range("bytes=-1000", 100), Ok(Some((0, 100))));
        assert_eq!(range("bytes=100-", 100), Err(()));
        assert_eq!(range("bytes=-0", 100), Err(()));
        for ignored in ["bytes=9-0", "bytes=0-1,5-6", "lines=0-9", "bytes=", "bytes=a-b", "bytes=--1"] {
            assert_eq!(range(ignored, 100), Ok(None), "{ignored}");
        }
        assert_eq!(range("bytes=0-", 0), Err(()));
    }

    #[test]
    fn a_range_of_another_file_gets_the_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=5-"));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"y\""));
        assert_eq!(part(&headers, &HeaderValue::from_static("\"x\""), 10), Ok(None));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"x\""));
        assert_eq!(part(&headers, &HeaderValue::from_static("\"x\""), 10), Ok(Some((5, 5))));
    }

    #[tokio::test]
    async fn what_is_received_is_kept_under_its_digest_and_the_rest_is_removed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let blobs = Blobs::open(directory.path().join("blobs"), Bytes::ZERO).expect("made");
        let mut receiving = blobs.receive(Bytes::new(5)).await.expect("room");
        receiving.push(RawBytes::from_static(b"hel")).await.expect("taken");
        receiving.push(RawBytes::from_static(b"lo")).await.expect("taken");
        let (staged, digest) = receiving.finish().await.expect("whole");
        assert!(blobs.keep(staged, digest).await.expect("moved"));
        assert_eq!(digest.hex(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(fs::read(blobs.path(digest)).expect("there"), b"hello");
        assert_eq!(blobs.used().expect("listed"), Bytes::new(5));

        let mut short = blobs.receive(Bytes::new(9)).await.expect("room");
        short.push(RawBytes::from_static(b"hel")).await.expect("taken");
        assert!(matches!(short.finish().await, Err(BlobError::TooShort { .. })));
        let mut long = blobs.receive(Bytes::new(2)).await.expect("room");
        assert!(matches!(long.push(RawBytes::from_static(b"hel")).await, Err(BlobError::TooLong { .. })));
        assert!(matches!(blobs.receive(Bytes::from_gib(1 << 30)).await, Err(BlobError::NoRoom { .. })));
        blobs.sweep(&[]).expect("swept");
        assert_eq!(blobs.used().expect("listed"), Bytes::ZERO);
    }
}
