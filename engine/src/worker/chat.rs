//! One chat completion: what is asked, and what comes back while it is generated.

use super::WorkerError;

/// A chat completion to generate, in the terms of OpenAI's API.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ChatRequest {
    /// The `messages` array, as JSON.
    pub messages_json: String,
    /// The `tools` array, as JSON.
    pub tools_json: Option<String>,
    /// Whether tools may or must be called.
    pub tool_choice: ToolChoice,
    /// Whether several tools may be called at once.
    pub parallel_tool_calls: bool,
    /// What shape the answer must have.
    pub response_format: ResponseFormat,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
}

/// Whether tools may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// It must call one.
    Required,
    /// It must not.
    None,
}

/// What shape the answer must have.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ResponseFormat {
    /// Any text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema (as JSON).
    JsonSchema(String),
}

/// How tokens are chosen. What is `None` takes the engine's default, given with each field.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Sampling {
    /// 0 always takes the likeliest token. Default 0.8.
    pub temperature: Option<f32>,
    /// Smallest set of tokens whose probability reaches this. Default 0.95.
    pub top_p: Option<f32>,
    /// That many likeliest tokens, 0 for all. Default 40.
    pub top_k: Option<i32>,
    /// Tokens at least this likely, relative to the likeliest. Default 0.05.
    pub min_p: Option<f32>,
    /// Seed of the random choice; random by default.
    pub seed: Option<u32>,
    /// Over 1 discourages what was already said. Default 1, off.
    pub repeat_penalty: Option<f32>,
    /// Discourages tokens that occurred at all. Default 0, off.
    pub presence_penalty: Option<f32>,
    /// Discourages tokens by how often they occurred. Default 0, off.
    pub frequency_penalty: Option<f32>,
    /// Most tokens to generate; up to the end of the context by default.
    pub max_tokens: Option<u32>,
}

/// What happens while an answer is generated: one `Started`, any number of `Delta`, one `Finished`.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// The prompt was taken.
    Started {
        /// Its length.
        prompt_tokens: u32,
    },
    /// More of the answer.
    Delta {
        /// More text; may be empty.
        content: String,
        /// More of the model's reasoning, where it tells that apart.
        reasoning: Option<String>,
        /// More of its tool calls.
        tool_calls: Vec<ToolCallDelta>,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Length of the prompt.
        prompt_tokens: u32,
        /// Tokens generated.
        completion_tokens: u32,
        /// From the start of prefill to the first token, in milliseconds.
        prefill_ms: f64,
        /// From the first token to the last, in milliseconds.
        decode_ms: f64,
    },
}

/// More of one tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Which of the answer's tool calls.
    pub index: u32,
    /// Its id, when it starts.
    pub id: Option<String>,
    /// The function, when it starts.
    pub name: Option<String>,
    /// More of its arguments, as JSON text.
    pub arguments: String,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop text came.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
    /// The model calls tools.
    ToolCalls,
}

impl FinishReason {
    /// OpenAI's word for it: `stop`, `length` or `tool_calls`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// Why an answer cannot be generated. Holds nothing of the prompt, but for [`BadRequest`](Self::BadRequest).
#[derive(Clone, Debug, thiserror::Error)]
pub enum GenerateError {
    /// The prompt and at least one token of an answer do not fit the context.
    #[error("the prompt has {prompt_tokens} tokens, the context holds {context}")]
    ContextOverflow {
        /// Length of the prompt.
        prompt_tokens: u32,
        /// What the request allowed for the answer.
        max_tokens: Option<u32>,
        /// Length of the context of one sequence.
        context: u32,
    },
    /// The request makes no sense, e.g. a role that the template does not know.
    #[error("{message}")]
    BadRequest {
        /// Why. llama.cpp quotes the request here: it is for the asker alone, never for a log.
        message: String,
    },
    /// Too many requests wait already.
    #[error("too many requests are waiting")]
    Busy,
    /// The worker is gone.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}
