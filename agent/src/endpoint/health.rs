//! `GET /health`: whether this desk answers.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::EndpointState;
use crate::serving::ServedState;

/// `ok` when every model answers, `idle` when none is assigned; 503 with `loading` or `failed` else.
pub async fn health(State(state): State<EndpointState>) -> Response {
    let serving = state.serving.borrow().clone();
    let word = |state: &ServedState| match state {
        ServedState::Ready(_) => "ready",
        ServedState::Loading { .. } => "loading",
        ServedState::Failed { .. } => "failed",
    };
    let models: Map<String, Value> =
        serving.models.iter().map(|(name, served)| (name.clone(), json!(word(&served.state)))).collect();
    let any = |wanted: &str| models.values().any(|state| state == wanted);
    let (status, summary) = if models.is_empty() {
        (StatusCode::OK, "idle")
    } else if any("loading") {
        (StatusCode::SERVICE_UNAVAILABLE, "loading")
    } else if any("failed") {
        (StatusCode::SERVICE_UNAVAILABLE, "failed")
    } else {
        (StatusCode::OK, "ok")
    };
    let mut response = (status, Json(json!({ "status": summary, "models": models }))).into_response();
    if summary == "loading" {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(2));
    }
    response
}
