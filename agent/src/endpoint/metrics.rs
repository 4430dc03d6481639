//! `GET /metrics`: figures for Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use muster_reports::METRICS_TYPE;

use super::EndpointState;

/// The page of this moment.
pub async fn metrics(State(state): State<EndpointState>) -> impl IntoResponse {
    let serving = state.serving.borrow().clone();
    ([(header::CONTENT_TYPE, METRICS_TYPE)], state.metrics.page(&serving))
}
