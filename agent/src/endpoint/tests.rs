//! The endpoint without a model, over its router.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use muster_proto::ModelDigest;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::cpu_time::CpuTime;
use crate::metrics::Sources;
use crate::serving::{Served, ServedState};
use crate::uplink::LinkStatus;

fn serving() -> Serving {
    let served =
        |state| Served { role: "chat".into(), quantization: "Q8_0".into(), digest: ModelDigest::new([1; 32]), state };
    let mut serving = Serving::default();
    serving.models.insert("slow".into(), served(ServedState::Loading { what: "downloading".into() }));
    serving.models.insert("broken".into(), served(ServedState::Failed { reason: "malformed".into() }));
    serving
}

fn metrics() -> Arc<Metrics> {
    let observed = muster_proto::Observed {
        at: muster_proto::Timestamp::from_unix_millis(0),
        generation: 7,
        deployments: vec![],
        endpoint: None,
        store_used: muster_proto::Bytes::ZERO,
    };
    Arc::new(Metrics::new(Sources {
        inventory: watch::channel(None).1,
        benchmark: watch::channel(None).1,
        observed: watch::channel(observed).1,
        link: watch::channel(LinkStatus::default()).1,
        memory: watch::channel(None).1,
        watching: CpuTime::default(),
    }))
}

async fn ask(serving: Serving, request: Request<Body>) -> (StatusCode, Option<String>, Value) {
    let (_sender, receiver) = watch::channel(Arc::new(serving));
    let response = router(80, receiver, metrics()).oneshot(request).await.expect("infallible");
    let status = response.status();
    let retry = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().expect("ASCII").to_owned());
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, retry, serde_json::from_slice(&body).expect("JSON"))
}

fn get_request(path: &str) -> Request<Body> {
    Request::get(path).header(header::HOST, "localhost").body(Body::empty()).expect("a request")
}

fn chat(model: &str) -> Request<Body> {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "canary" }] });
    Request::post("/v1/chat/completions")
        .header(header::HOST, "localhost")
        .body(Body::from(body.to_string()))
        .expect("a request")
}

#[tokio::test]
async fn models_are_listed_with_their_state() {
    let (status, _, body) = ask(serving(), get_request("/v1/models")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["data"][1]["id"], "slow");
    assert_eq!(body["data"][1]["muster"]["state"], "loading");
    let (status, _, body) = ask(serving(), get_request("/v1/models/broken")).await;
    assert_eq!((status, &body["muster"]["reason"]), (StatusCode::OK, &json!("malformed")));
    assert_eq!(ask(serving(), get_request("/v1/models/none")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_model_that_is_not_up_says_when_to_ask_again() {
    let (status, retry, body) = ask(serving(), chat("slow")).await;
    assert_eq!((status, retry.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("2")));
    assert_eq!(body["error"]["code"], "model_loading");
    let (status, _, body) = ask(serving(), chat("broken")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("model_failed")));
}

#[tokio::test]
async fn an_unknown_model_lists_the_known_ones() {
    let (status, _, body) = ask(serving(), chat("gpt-4")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let error = &body["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!("model_not_found"), &json!("invalid_request_error")));
    assert!(error["message"].as_str().is_some_and(|text| text.contains("broken, slow")), "{error}");
}

#[tokio::test]
async fn strangers_paths_and_methods_get_the_same_shape() {
    let stranger =
        Request::get("/v1/models").header(header::HOST, "evil.example").body(Body::empty()).expect("a request");
    let (status, _, body) = ask(serving(), stranger).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    let (status, _, body) = ask(serving(), get_request("/v1/embeddings")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("unknown_path")));
    let (status, _, body) = ask(serving(), get_request("/v1/chat/completions")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("method_not_allowed")));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let request = Request::post("/v1/chat/completions").header(header::HOST, "localhost");
    let (status, _, body) = ask(serving(), request.body(Body::from(vec![b' '; 9 << 20])).expect("a request")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("request_too_large")));
}

#[tokio::test]
async fn health_tells_the_worst() {
    let (status, _, body) = ask(Serving::default(), get_request("/health")).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("idle")));
    let (status, retry, body) = ask(serving(), get_request("/health")).await;
    assert_eq!((status, retry.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("2")));
    assert_eq!((&body["status"], &body["models"]["broken"]), (&json!("loading"), &json!("failed")));
}

#[test]
fn a_context_overflow_shows_both_counts() {
    use muster_engine::worker::GenerateError;
    let overflow = GenerateError::ContextOverflow { prompt_tokens: 5000, max_tokens: None, context: 4096 };
    let error = errors::ApiError::from(overflow);
    assert_eq!(error.status, StatusCode::BAD_REQUEST);
    let body = &error.body()["error"];
    assert_eq!(body["code"], "context_length_exceeded");
    assert_eq!((&body["prompt_tokens"], &body["context_length"]), (&json!(5000), &json!(4096)));
    assert!(body["message"].as_str().is_some_and(|text| text.contains("4096") && text.contains("5000")));
}

#[tokio::test]
async fn an_address_that_is_open_to_the_network_is_refused() {
    let error = Endpoint::bind("0.0.0.0:0".parse().expect("an address")).await.expect_err("refused");
    assert!(matches!(error, EndpointError::NotLoopback { .. }));
}

#[tokio::test]
async fn figures_are_counted_and_guarded_like_the_rest() {
    let metrics = metrics();
    let (_sender, receiver) = watch::channel(Arc::new(serving()));
    let app = router(80, receiver, Arc::clone(&metrics));
    for request in [chat("slow"), chat("made-up-name"), chat("broken")] {
        app.clone().oneshot(request).await.expect("infallible");
    }
    let page = |host: &'static str| {
        let request = Request::get("/metrics").header(header::HOST, host).body(Body::empty()).expect("a request");
        let app = app.clone();
        async move {
            let response = app.oneshot(request).await.expect("infallible");
            let kind = response.headers()[header::CONTENT_TYPE].to_str().expect("ASCII").to_owned();
            let status = response.status();
            let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
            (status, kind, String::from_utf8(body.to_vec()).expect("UTF-8"))
        }
    };
    assert_eq!(page("evil.example").await.0, StatusCode::FORBIDDEN);
    let (status, kind, text) = page("localhost").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "muster_agent_requests_total{model=\"slow\",outcome=\"refused\"} 1",
        "muster_agent_requests_total{model=\"broken\",outcome=\"failed\"} 1",
        "muster_agent_requests_total{model=\"none\",outcome=\"refused\"} 1",
        "muster_agent_model_loaded{model=\"slow\"} 0",
        "muster_agent_generation 7",
        "muster_agent_connected 0",
    ] {
        assert!(text.lines().any(|here| here == line), "{line} is not in\n{text}");
    }
    // What a client made up, and what it asked.
    assert!(!text.contains("made-up") && !text.contains("canary"), "{text}");
}
