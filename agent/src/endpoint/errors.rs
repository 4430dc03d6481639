//! [`ApiError`]: every error of the endpoint, in OpenAI's shape.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use muster_engine::worker::GenerateError;
use serde_json::{Map, Value, json};

/// An error as OpenAI's clients read it: `{"error": {"message", "type", "param", "code"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP's word for it.
    pub status: StatusCode,
    /// What happened and what to do.
    pub message: String,
    /// The request's field that is wrong.
    pub param: Option<String>,
    /// A word that programs can compare.
    pub code: Option<&'static str>,
    /// When asking again makes sense.
    pub retry_after: Option<Duration>,
    extra: Option<Box<Map<String, Value>>>,
}

impl ApiError {
    fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code, retry_after: None, extra: None }
    }

    /// A field of the request is wrong.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, Some("invalid_value"), message) }
    }

    /// The body is no JSON, or of another shape.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Some("invalid_json"), message)
    }

    /// The body is too large.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the request is larger than {} MiB", limit >> 20);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), message)
    }

    /// The requester is not welcome.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Some("forbidden"), message)
    }

    /// No such model here.
    pub fn model_not_found<'a>(asked: &str, names: impl Iterator<Item = &'a String>) -> Self {
        let names: Vec<&str> = names.map(String::as_str).collect();
        let message = if names.is_empty() {
            format!("the model `{asked}` is not on this desk, and no other is: its administrator has assigned none")
        } else {
            format!("the model `{asked}` is not on this desk, which has: {}", names.join(", "))
        };
        let error = Self::new(StatusCode::NOT_FOUND, Some("model_not_found"), message);
        Self { param: Some("model".into()), ..error }
    }

    /// The model is not up yet.
    pub fn loading(model: &str, what: &str) -> Self {
        let message = format!("the model `{model}` is not ready yet: {what}");
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("model_loading"), message);
        Self { retry_after: Some(Duration::from_secs(2)), ..error }
    }

    /// The model does not run.
    pub fn failed(model: &str, reason: &str) -> Self {
        let message = format!("the model `{model}` does not run on this desk: {reason}");
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("model_failed"), message);
        Self { retry_after: Some(Duration::from_secs(30)), ..error }
    }

    /// OpenAI's kind of error for the status.
    const fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 => "service_unavailable_error",
            _ => "server_error",
        }
    }

    /// The body.
    pub fn body(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        });
        if let (Some(error), Some(extra)) = (error.as_object_mut(), &self.extra) {
            error.extend((**extra).clone());
        }
        json!({ "error": error })
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::ContextOverflow { prompt_tokens, max_tokens: _, context } => {
                let message = format!(
                    "this model's context holds {context} tokens, the messages have {prompt_tokens}: shorten them"
                );
                let counts = [("prompt_tokens", prompt_tokens), ("context_length", context)];
                let counts = counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
                Self {
                    param: Some("messages".into()),
                    extra: Some(Box::new(counts)),
                    ..Self::new(StatusCode::BAD_REQUEST, Some("context_length_exceeded"), message)
                }
            }
            GenerateError::BadRequest { message } => {
                Self::new(StatusCode::BAD_REQUEST, Some("invalid_request"), message)
            }
            GenerateError::Busy => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    Some("too_many_requests"),
                    "too many requests are waiting for this model",
                )
            },
            GenerateError::Worker(_) => Self {
                retry_after: Some(Duration::from_secs(2)),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Some("model_stopped"),
                    "the model stopped while answering; it is being started again",
                )
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(retry_after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
        }
        response
    }
}

/// Answers paths that are not there.
pub async fn no_such_path(uri: Uri) -> ApiError {
    let message = format!("there is no {}: this desk has /v1/models, /v1/chat/completions and /health", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, Some("unknown_path"), message)
}

/// Answers methods that a path does not have.
pub async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"), "this path takes another method")
}
