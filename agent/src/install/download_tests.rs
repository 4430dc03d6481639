//! Downloads against a small HTTP server in this process, with its faults.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::get;
use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use super::*;

/// What the server does with each request.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Answers every request with the whole file.
    NoRanges,
    /// Ends the connection after so many bytes.
    CutsAfter(usize),
    /// Changes one byte.
    Flips,
    /// Says no.
    Says(StatusCode),
}

struct Bench {
    _directory: TempDir,
    content: Arc<Vec<u8>>,
    asked: Arc<Mutex<Vec<String>>>,
    download: Download,
}

async fn bench(fault: Fault) -> Bench {
    let content: Arc<Vec<u8>> =
        Arc::new((0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (body, log) = (Arc::clone(&content), Arc::clone(&asked));
    let handler = move |headers: HeaderMap| {
        let (body, log) = (Arc::clone(&body), Arc::clone(&log));
        async move { answer(fault, &body, &log, &headers) }
    };
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    let app = Router::new().route("/v1/blobs/sha256/{hex}", get(handler));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(directory.path()).expect("a store");
    let sha256: [u8; 32] = digest(&SHA256, &content).as_ref().try_into().expect("32 bytes");
    let download = Download {
        blobs: Blobs::Plain(address),
        store,
        digest: ModelDigest::new(sha256),
        size: Bytes::new(content.len() as u64),
        reserve: Bytes::ZERO,
        bandwidth: Bandwidth::UNLIMITED,
        link_bandwidth: Bandwidth::UNLIMITED,
    };
    Bench { _directory: directory, content, asked, download }
}

fn answer(fault: Fault, content: &[u8], log: &Mutex<Vec<String>>, headers: &HeaderMap) -> Response<Body> {
    let range = headers.get(header::RANGE).map(|value| value.to_str().expect("ASCII").to_owned());
    log.lock().expect("no panic").push(range.clone().unwrap_or_default());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let response = Response::builder();
    match fault {
        Fault::Says(status) => response.status(status).body(Body::empty()),
        Fault::NoRanges => response.body(Body::from(content.to_vec())),
        Fault::CutsAfter(bytes) => {
            let first = bytes::Bytes::copy_from_slice(&content[from..from + bytes]);
            let broken = futures_util::stream::iter([Ok(first), Err(io::Error::other("cut"))]);
            response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_LENGTH, content.len() - from)
                .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{}", content.len() - 1, content.len()))
                .body(Body::from_stream(broken))
        }
        Fault::None | Fault::Flips => {
            let mut body = content[from..].to_vec();
            if fault == Fault::Flips {
                body[1000] ^= 1;
            }
            let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
            response
                .status(status)
                .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{}", content.len() - 1, content.len()))
                .body(Body::from(body))
        }
    }
    .expect("a response")
}

impl Bench {
    async fn run(&self) -> Result<Transfer, DownloadError> {
        self.download.run(&CancellationToken::new(), |_| {}).await
    }

    fn installed(&self) -> bool {
        let file = self.download.store.file(&self.download.digest);
        fs::read(file).is_ok_and(|content| content == *self.content)
    }

    fn leave_part(&self, length: usize) {
        fs::write(self.download.store.part(&self.download.digest), &self.content[..length]).expect("written");
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

#[tokio::test]
async fn a_file_comes_whole_and_is_private() {
    let bench = bench(Fault::None).await;
    let transfer = bench.run().await.expect("downloaded");
    assert!(bench.installed());
    assert_eq!((transfer.done, transfer.resumed_from), (bench.download.size, Bytes::ZERO));
    assert_eq!(bench.download.store.contents().expect("listed").len(), 1, "no partial file is left");
}

#[tokio::test]
async fn a_partial_file_is_resumed_where_it_ends() {
    let bench = bench(Fault::None).await;
    bench.leave_part(1_234_567);
    let transfer = bench.run().await.expect("downloaded");
    assert!(bench.installed());
    assert_eq!(transfer.resumed_from, Bytes::new(1_234_567));
    assert_eq!(bench.asked(), ["bytes=1234567-"]);
}

#[tokio::test]
async fn a_partial_file_that_is_whole_needs_no_network() {
    let bench = bench(Fault::Says(StatusCode::NOT_FOUND)).await;
    bench.leave_part(bench.content.len());
    bench.run().await.expect("verified");
    assert!(bench.installed() && bench.asked().is_empty());
}

#[tokio::test]
async fn a_server_without_ranges_starts_over() {
    let bench = bench(Fault::NoRanges).await;
    bench.leave_part(2_000_000);
    let transfer = bench.run().await.expect("downloaded");
    assert!(bench.installed());
    assert_eq!(transfer.resumed_from, Bytes::ZERO);
}

#[tokio::test]
async fn a_broken_connection_keeps_what_came() {
    let bench = bench(Fault::CutsAfter(500_000)).await;
    bench.leave_part(100_000);
    assert!(matches!(bench.run().await, Err(DownloadError::Blob(BlobError::Broken(_)))));
    let part = fs::read(bench.download.store.part(&bench.download.digest)).expect("kept");
    assert_eq!(part, bench.content[..part.len()]);
    assert!(part.len() > 100_000, "what came before the cut was kept");
}

#[tokio::test]
async fn a_flipped_byte_leaves_nothing() {
    let bench = bench(Fault::Flips).await;
    let error = bench.run().await.expect_err("another file");
    assert!(matches!(error, DownloadError::Mismatch { .. }));
    assert!(error.to_string().starts_with("digest mismatch"), "{error}");
    assert!(bench.download.store.contents().expect("listed").is_empty());
}

#[tokio::test]
async fn a_damaged_partial_file_is_noticed() {
    let bench = bench(Fault::None).await;
    bench.leave_part(1_000_000);
    let part = bench.download.store.part(&bench.download.digest);
    let mut content = fs::read(&part).expect("there");
    content[5] ^= 1;
    fs::write(&part, content).expect("written");
    assert!(matches!(bench.run().await, Err(DownloadError::Mismatch { .. })));
    bench.run().await.expect("from the start");
    assert!(bench.installed());
}

#[tokio::test]
async fn a_refusal_is_told() {
    let bench = bench(Fault::Says(StatusCode::NOT_FOUND)).await;
    match bench.run().await {
        Err(DownloadError::Blob(error @ BlobError::Refused { status: StatusCode::NOT_FOUND })) => {
            assert!(error.is_refusal());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_size_is_refused_before_a_byte_is_written() {
    let mut bench = bench(Fault::None).await;
    bench.download.size = Bytes::new(17);
    assert!(matches!(
        bench.run().await,
        Err(DownloadError::Blob(BlobError::OtherSize { found: 3_000_000, expected: 17 }))
    ));
}

#[tokio::test]
async fn the_reserve_is_kept() {
    let mut bench = bench(Fault::None).await;
    bench.download.reserve = Bytes::new(u64::MAX / 2);
    assert!(matches!(bench.run().await, Err(DownloadError::NoSpace { .. })));
    assert!(bench.asked().is_empty(), "nothing was asked for");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_told_as_such() {
    let bench = bench(Fault::None).await;
    std::os::unix::fs::symlink("/dev/full", bench.download.store.part(&bench.download.digest)).expect("linked");
    assert!(matches!(bench.run().await, Err(DownloadError::NoSpace { .. })));
}

#[tokio::test]
async fn cancelling_keeps_the_partial_file() {
    let bench = bench(Fault::None).await;
    bench.leave_part(1000);
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert!(matches!(bench.download.run(&cancel, |_| {}).await, Err(DownloadError::Cancelled)));
    assert!(bench.download.store.part(&bench.download.digest).exists());
}
