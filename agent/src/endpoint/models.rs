//! `GET /v1/models` and `GET /v1/models/NAME`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::EndpointState;
use super::errors::ApiError;
use crate::serving::{Served, ServedState};

/// Every assigned model, whether it answers already or not.
pub async fn list(State(state): State<EndpointState>) -> Json<Value> {
    let serving = state.serving.borrow().clone();
    let data: Vec<Value> =
        serving.models.iter().map(|(name, served)| describe(name, served, state.started_at)).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// One model.
pub async fn one(State(state): State<EndpointState>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let serving = state.serving.borrow().clone();
    match serving.models.get(&name) {
        Some(served) => Ok(Json(describe(&name, served, state.started_at))),
        None => Err(ApiError::model_not_found(&name, serving.models.keys())),
    }
}

/// OpenAI's four fields, and under `muster` what they have no place for.
fn describe(name: &str, served: &Served, created: i64) -> Value {
    let (state, context, reason) = match &served.state {
        ServedState::Ready(running) => ("ready", Some(running.loaded.context_per_sequence), None),
        ServedState::Loading { what } => ("loading", None, Some(what)),
        ServedState::Failed { reason } => ("failed", None, Some(reason)),
    };
    json!({
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "muster",
        "muster": {
            "role": served.role,
            "quantization": served.quantization,
            "digest": served.digest,
            "state": state,
            "reason": reason,
            "context": context,
        },
    })
}
