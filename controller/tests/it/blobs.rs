//! Downloads: ranges, only what a machine should have, and their end when it is revoked.

use std::fs;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use muster_proto::{ModelDigest, wire};

use crate::harness::{PATIENCE, Running, assignment};

fn get(digest: ModelDigest, range: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::get(format!("/v1/blobs/sha256/{}", digest.hex())).header("host", "controller.muster");
    if let Some(range) = range {
        request = request.header("range", range);
    }
    request.body(Full::default()).expect("a request")
}

/// Puts a file where the store has it.
fn put(controller: &Running, digest: ModelDigest, content: &[u8]) {
    let directory = controller.data.path().join("blobs/sha256").join(&digest.hex()[..2]);
    fs::create_dir_all(&directory).expect("created");
    fs::write(directory.join(digest.hex()), content).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_parts_of_what_it_should_have_and_nothing_else() {
    let controller = Running::start().await;
    let (desk, other) = (controller.desk().await, controller.desk().await);
    let digest = ModelDigest::new([5; 32]);
    let content: Vec<u8> = (0..3_000_001_u32).map(|i| u8::try_from(i % 251).expect("small")).collect();
    put(&controller, digest, &content);
    let decision = vec![(desk.id(), vec![assignment(digest)])];
    controller.store.decide(decision, controller.clock.now()).await.expect("decided");

    let (status, headers, body) = desk.http(&controller, get(digest, None)).await;
    assert_eq!((status, body.len()), (StatusCode::OK, content.len()));
    assert!(body == content, "the whole differs");
    assert_eq!(headers["etag"], format!("\"{digest}\""));
    assert_eq!(headers["accept-ranges"], "bytes");

    let (status, headers, body) = desk.http(&controller, get(digest, Some("bytes=1000000-"))).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(headers["content-range"], "bytes 1000000-3000000/3000001");
    assert!(body == content[1_000_000..], "the rest differs");
    let (_, _, body) = desk.http(&controller, get(digest, Some("bytes=10-19"))).await;
    assert_eq!(body, content[10..20]);
    let (status, headers, body) = desk.http(&controller, get(digest, Some("bytes=3000001-"))).await;
    assert_eq!((status, body.len()), (StatusCode::RANGE_NOT_SATISFIABLE, 0));
    assert_eq!(headers["content-range"], "bytes */3000001");

    let head = Request::head(format!("/v1/blobs/sha256/{}", digest.hex())).header("host", "controller.muster");
    let (status, headers, body) = desk.http(&controller, head.body(Full::default()).expect("a request")).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers["content-length"], "3000001");

    let (status, _, _) = other.http(&controller, get(digest, None)).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "another machine's file");
    let (status, _, _) = desk.http(&controller, get(ModelDigest::new([6; 32]), None)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_download_ends_when_its_machine_is_revoked() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let digest = ModelDigest::new([5; 32]);
    // More than all buffers between both ends hold.
    put(&controller, digest, &vec![7; 64 << 20]);
    let decision = vec![(desk.id(), vec![assignment(digest)])];
    controller.store.decide(decision, controller.clock.now()).await.expect("decided");
    let stream = desk.connect(&controller, b"http/1.1").await.expect("TLS");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let mut body = sender.send_request(get(digest, None)).await.expect("an answer").into_body();
    body.frame().await.expect("a first part").expect("a first part");

    let request = wire::RevokeMachineRequest { machine: desk.id().to_string() };
    controller.local().await.revoke_machine(request).await.expect("revoked");
    // What was on its way still comes, and then the connection breaks.
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time");
    assert!(rest.is_err(), "the whole file came all the same");
    connection.abort();
    controller.stop().await;
}
