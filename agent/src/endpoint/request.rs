//! Reading a chat completion request: OpenAI's JSON → [`Asked`], with every field checked.

use muster_engine::worker::{ChatRequest, ResponseFormat, Sampling, ToolChoice};
use serde::Deserialize;
use serde_json::Value;

use super::errors::ApiError;

/// Most stop texts in one request.
const STOPS: usize = 16;
/// Longest stop text, in bytes.
const STOP_LENGTH: usize = 256;

/// What a client asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The model, if it names one.
    pub model: Option<String>,
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// Whether a streamed answer ends with the counts.
    pub include_usage: bool,
    /// What the engine gets.
    pub request: ChatRequest,
}

/// The JSON. Fields that are not here are ignored, as every server of this API does; those that would change the answer
/// and cannot be honoured are refused.
#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    messages: Option<Vec<Value>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i32>,
    min_p: Option<f32>,
    seed: Option<i64>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    stop: Option<Stop>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Value>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repeat_penalty: Option<f32>,
    n: Option<i64>,
    logprobs: Option<bool>,
    logit_bias: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

impl Asked {
    /// Reads a request's body.
    ///
    /// # Errors
    /// A 400 that names the field.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| ApiError::malformed(format!("the body is no chat completion request: {error}")))?;
        let Body {
            model,
            messages,
            stream,
            stream_options,
            temperature,
            top_p,
            top_k,
            min_p,
            seed,
            max_tokens,
            max_completion_tokens,
            stop,
            tools,
            tool_choice,
            parallel_tool_calls,
            response_format,
            presence_penalty,
            frequency_penalty,
            repeat_penalty,
            n,
            logprobs,
            logit_bias,
        } = body;
        if n.is_some_and(|n| n != 1) {
            return Err(ApiError::invalid("n", "only one answer at a time is given"));
        }
        if logprobs == Some(true) {
            return Err(ApiError::invalid("logprobs", "probabilities of tokens are not given"));
        }
        if logit_bias.is_some_and(|bias| bias.as_object().is_none_or(|bias| !bias.is_empty())) {
            return Err(ApiError::invalid("logit_bias", "a bias of tokens is not supported"));
        }
        let sampling = Sampling {
            temperature: within("temperature", temperature, 0.0, 2.0)?,
            top_p: within("top_p", top_p, 0.0, 1.0)?,
            top_k: top_k.map_or(Ok(None), |k| {
                if k >= 0 { Ok(Some(k)) } else { Err(ApiError::invalid("top_k", "top_k must be 0 or more")) }
            })?,
            min_p: within("min_p", min_p, 0.0, 1.0)?,
            seed: seed.map(fold_seed),
            repeat_penalty: within("repeat_penalty", repeat_penalty, 0.0, 10.0)?,
            presence_penalty: within("presence_penalty", presence_penalty, -2.0, 2.0)?,
            frequency_penalty: within("frequency_penalty", frequency_penalty, -2.0, 2.0)?,
            max_tokens: match max_completion_tokens {
                Some(_) => count("max_completion_tokens", max_completion_tokens)?,
                None => count("max_tokens", max_tokens)?,
            },
        };
        let (tools_json, tool_choice) = tools_of(tools, tool_choice.as_ref())?;
        Ok(Self {
            model: model.filter(|model| !model.is_empty()),
            stream: stream.unwrap_or(false),
            include_usage: stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            request: ChatRequest {
                messages_json: messages_of(messages)?,
                tools_json,
                tool_choice,
                parallel_tool_calls: parallel_tool_calls.unwrap_or(true),
                response_format: format_of(response_format.as_ref())?,
                sampling,
                stop: stops_of(stop)?,
            },
        })
    }
}

fn messages_of(messages: Option<Vec<Value>>) -> Result<String, ApiError> {
    let messages = messages.ok_or_else(|| ApiError::invalid("messages", "the request has no messages"))?;
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "the list of messages is empty"));
    }
    for (index, message) in messages.iter().enumerate() {
        let wrong = |field: &str, text: &str| Err(ApiError::invalid(format!("messages[{index}]{field}"), text));
        let Some(message) = message.as_object() else { return wrong("", "a message must be an object") };
        if message.get("role").and_then(Value::as_str).is_none_or(str::is_empty) {
            return wrong(".role", "a message needs a role: system, user, assistant or tool");
        }
        match message.get("content") {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(Value::Array(parts)) => {
                if parts.iter().any(|part| part.get("type").and_then(Value::as_str) != Some("text")) {
                    return wrong(".content", "this desk takes text only");
                }
            }
            Some(_) => return wrong(".content", "the content must be a text or a list of parts"),
        }
    }
    Ok(Value::Array(messages).to_string())
}

fn tools_of(tools: Option<Vec<Value>>, choice: Option<&Value>) -> Result<(Option<String>, ToolChoice), ApiError> {
    let mut tools = tools.unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        let function = tool.get("type").and_then(Value::as_str) == Some("function");
        if !function || tool_name(tool).is_none_or(str::is_empty) {
            let field = format!("tools[{index}]");
            return Err(ApiError::invalid(field, "a tool must be of type function and have a function with a name"));
        }
    }
    let choice = match choice {
        None | Some(Value::Null) => ToolChoice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            _ => {
                return Err(ApiError::invalid("tool_choice", "tool_choice must be auto, none, required or a function"));
            }
        },
        Some(named) => {
            let name = tool_name(named)
                .ok_or_else(|| ApiError::invalid("tool_choice", "tool_choice must name a function"))?
                .to_owned();
            tools.retain(|tool| tool_name(tool) == Some(&name));
            if tools.is_empty() {
                return Err(ApiError::invalid(
                    "tool_choice",
                    "tool_choice names a function that is not among the tools",
                ));
            }
            ToolChoice::Required
        }
    };
    if tools.is_empty() {
        return if choice == ToolChoice::Required {
            Err(ApiError::invalid("tool_choice", "a tool is required, but there are none"))
        } else {
            Ok((None, choice))
        };
    }
    Ok((Some(Value::Array(tools).to_string()), choice))
}

fn tool_name(tool: &Value) -> Option<&str> {
    tool.get("function")?.get("name")?.as_str()
}

fn format_of(format: Option<&Value>) -> Result<ResponseFormat, ApiError> {
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(ResponseFormat::Text) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(ResponseFormat::Text),
        Some("json_object") => Ok(ResponseFormat::JsonObject),
        Some("json_schema") => format
            .get("json_schema")
            .and_then(|outer| outer.get("schema"))
            .filter(|schema| schema.is_object())
            .map(|schema| ResponseFormat::JsonSchema(schema.to_string()))
            .ok_or_else(|| ApiError::invalid("response_format.json_schema.schema", "the schema must be an object")),
        _ => Err(ApiError::invalid("response_format.type", "the format must be text, json_object or json_schema")),
    }
}

fn stops_of(stop: Option<Stop>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text],
        Some(Stop::Many(texts)) => texts,
    };
    if stops.len() > STOPS || stops.iter().any(|text| text.is_empty() || text.len() > STOP_LENGTH) {
        let message = format!("stop takes up to {STOPS} texts of 1 to {STOP_LENGTH} bytes");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(stops)
}

fn within(field: &str, value: Option<f32>, low: f32, high: f32) -> Result<Option<f32>, ApiError> {
    match value {
        Some(value) if !(low..=high).contains(&value) => {
            Err(ApiError::invalid(field, format!("{field} must be between {low} and {high}")))
        }
        value => Ok(value),
    }
}

fn count(field: &str, value: Option<i64>) -> Result<Option<u32>, ApiError> {
    match value {
        // As llama.cpp's server takes it: no limit.
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) if value > 0 => Ok(Some(value)),
            _ => Err(ApiError::invalid(field, format!("{field} must be 1 or more"))),
        },
    }
}

/// Any whole number is a seed; the engine's has 32 bits.
fn fold_seed(seed: i64) -> u32 {
    if let Ok(seed) = u32::try_from(seed) {
        return seed;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both halves are taken")]
    let (low, high) = (seed as u32, (seed >> 32) as u32);
    low ^ high.rotate_left(16)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
