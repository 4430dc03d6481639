//! `POST /v1/chat/completions`: from the request to the running model and back.
//!
//! A client that goes away cancels its answer: dropping the response drops the generation.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes as RawBytes;
use futures_util::stream;
use muster_engine::worker::{GenerateError, GenerationEvent, GenerationStream, WorkerError};
use serde_json::Value;

use super::EndpointState;
use super::errors::ApiError;
use super::request::Asked;
use super::response::{Envelope, Usage, Whole, event};
use crate::metrics::{Answering, Outcome};
use crate::serving::{Running, ServedState, Serving};

/// Largest body: a context of a million tokens fits.
const BODY_LIMIT: usize = 8 << 20;

/// Answers a chat completion.
pub async fn complete(State(state): State<EndpointState>, body: Body) -> Result<Response, ApiError> {
    let mut answering = state.metrics.begin();
    match answer(&state, body, &mut answering).await {
        Ok(Answer::Whole(object)) => Ok(Json(object).into_response()),
        Ok(Answer::Begun { name, envelope, generation, first }) => {
            let pending = Some(first);
            Ok(streamed(Streaming { name, envelope, generation, pending, begun: false, answering }))
        }
        Err(error) => {
            answering.ended(outcome(&error));
            Err(error)
        }
    }
}

/// What comes of a request that is answered.
enum Answer {
    /// All of it.
    Whole(Value),
    /// Its beginning; the rest is streamed.
    Begun { name: String, envelope: Envelope, generation: GenerationStream, first: GenerationEvent },
}

async fn answer(state: &EndpointState, body: Body, answering: &mut Answering) -> Result<Answer, ApiError> {
    let body = to_bytes(body, BODY_LIMIT).await.map_err(|_| ApiError::too_large(BODY_LIMIT))?;
    let asked = Asked::parse(&body)?;
    drop(body);
    let (name, running) = choose(&state.serving.borrow(), asked.model.as_deref(), answering)?;
    let envelope = Envelope::new(&name, asked.include_usage);
    let mut generation = running.generator.chat(asked.request);
    // Whether the prompt fits is known before the first token, in time for a status of its own.
    let first = match generation.next().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(refuse(&name, error)),
        None => return Err(refuse(&name, ended_early())),
    };
    if asked.stream {
        return Ok(Answer::Begun { name, envelope, generation, first });
    }
    let mut answer = Whole::default();
    let mut next = Some(Ok(first));
    while let Some(event) = next {
        match event.map_err(|error| refuse(&name, error))? {
            GenerationEvent::Started { .. } => {}
            GenerationEvent::Delta { content, reasoning, tool_calls } => {
                answer.add(&content, reasoning.as_deref(), tool_calls);
            }
            GenerationEvent::Finished { reason, prompt_tokens, completion_tokens, prefill_ms, decode_ms } => {
                answering.answered(prompt_tokens, completion_tokens, prefill_ms, decode_ms);
                let usage = Usage { prompt: prompt_tokens, completion: completion_tokens };
                return Ok(Answer::Whole(envelope.whole(&answer, reason, usage)));
            }
        }
        next = generation.next().await;
    }
    Err(refuse(&name, ended_early()))
}

/// How a request that got this error ended.
fn outcome(error: &ApiError) -> Outcome {
    // A model that is still loading is asked too early, and has not failed.
    let failed = error.status.is_server_error() && error.code != Some("model_loading");
    if failed { Outcome::Failed } else { Outcome::Refused }
}

/// The model that was asked for; the only one if none was named.
fn choose(serving: &Serving, asked: Option<&str>, answering: &mut Answering) -> Result<(String, Running), ApiError> {
    let name = match asked {
        Some(name) => name,
        None if serving.models.len() == 1 => serving.models.keys().next().expect("one").as_str(),
        None => return Err(ApiError::invalid("model", "the request must name a model; GET /v1/models lists them")),
    };
    let served = serving.models.get(name).ok_or_else(|| ApiError::model_not_found(name, serving.models.keys()))?;
    answering.by(name);
    match &served.state {
        ServedState::Ready(running) => Ok((name.to_owned(), running.clone())),
        ServedState::Loading { what } => Err(ApiError::loading(name, what)),
        ServedState::Failed { reason } => Err(ApiError::failed(name, reason)),
    }
}

fn refuse(model: &str, error: GenerateError) -> ApiError {
    if let GenerateError::Worker(error) = &error {
        tracing::warn!(model, %error, "an answer was cut off");
    }
    error.into()
}

fn ended_early() -> GenerateError {
    WorkerError::Protocol { detail: "the answer ended without its end".into() }.into()
}

/// A streamed answer on its way.
struct Streaming {
    name: String,
    envelope: Envelope,
    generation: GenerationStream,
    /// An event that was taken from the generation to learn the status.
    pending: Option<GenerationEvent>,
    begun: bool,
    answering: Answering,
}

impl Streaming {
    /// The next bytes, and what comes after them.
    async fn next(mut self) -> Option<(RawBytes, Option<Self>)> {
        if !self.begun {
            self.begun = true;
            return Some((self.envelope.first(), Some(self)));
        }
        loop {
            let event_ = match self.pending.take() {
                Some(event) => Ok(event),
                None => self.generation.next().await.unwrap_or_else(|| Err(ended_early())),
            };
            match event_ {
                Ok(GenerationEvent::Started { .. }) => {}
                Ok(GenerationEvent::Delta { content, reasoning, tool_calls }) => {
                    if let Some(bytes) = self.envelope.more(&content, reasoning.as_deref(), &tool_calls) {
                        return Some((bytes, Some(self)));
                    }
                }
                Ok(GenerationEvent::Finished { reason, prompt_tokens, completion_tokens, prefill_ms, decode_ms }) => {
                    self.answering.answered(prompt_tokens, completion_tokens, prefill_ms, decode_ms);
                    let usage = Usage { prompt: prompt_tokens, completion: completion_tokens };
                    return Some((self.envelope.last(reason, usage), None));
                }
                Err(error) => {
                    let error = refuse(&self.name, error);
                    self.answering.ended(outcome(&error));
                    return Some((event(&error.body()), None));
                }
            }
        }
    }
}

fn streamed(streaming: Streaming) -> Response {
    let body = stream::unfold(Some(streaming), |streaming| async move {
        let (bytes, rest) = streaming?.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), rest))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
