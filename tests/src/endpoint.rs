//! [`Endpoint`]: a desk's OpenAI endpoint as its clients see it.

use serde_json::{Value, json};

use crate::http::{Reply, Request, send};

/// Where a desk answers.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// e.g. `http://127.0.0.1:11435/v1`.
    pub base: String,
}

/// One whole answer, streamed or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The text, trimmed.
    pub content: String,
    /// Called functions: name and arguments.
    pub calls: Vec<(String, Value)>,
    /// Why it ended.
    pub finish_reason: String,
    /// Tokens of the prompt, of the answer, and both together.
    pub usage: (u64, u64, u64),
    /// Pieces that carried text, of a streamed answer.
    pub pieces: usize,
}

/// The messages of one question.
pub fn user(question: &str) -> Value {
    json!([{"role": "user", "content": question}])
}

impl Endpoint {
    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://").split('/').next().expect("split gives at least one")
    }

    /// Sends any request.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Reply {
        send(self.address(), request).unwrap_or_else(|error| panic!("{}: {error}", self.base))
    }

    /// Sends a chat request and returns the reply as it is.
    #[track_caller]
    pub fn chat(&self, body: &Value) -> Reply {
        self.send(&Request::post("/v1/chat/completions", body))
    }

    /// What a chat at temperature 0 sends.
    pub fn body(model: &str, messages: &Value) -> Value {
        json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 96})
    }

    /// Asks at temperature 0.
    #[track_caller]
    pub fn ask(&self, model: &str, messages: &Value) -> Answer {
        Self::whole(self.chat(&Self::body(model, messages)))
    }

    /// Asks at temperature 0, and returns what came if it was no answer.
    ///
    /// # Errors
    /// The status and the body, or that nothing listens.
    pub fn try_ask(&self, model: &str, messages: &Value) -> Result<Answer, String> {
        let request = Request::post("/v1/chat/completions", &Self::body(model, messages));
        let reply = send(self.address(), &request).map_err(|error| error.to_string())?;
        if reply.status == 200 {
            return Ok(Self::whole(reply));
        }
        let status = reply.status;
        Err(format!("{status}: {}", String::from_utf8_lossy(&reply.bytes().map_err(|error| error.to_string())?)))
    }

    /// Asks at temperature 0 with `stream`.
    #[track_caller]
    pub fn ask_streamed(&self, model: &str, messages: &Value) -> Answer {
        let mut body = Self::body(model, messages);
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        Self::streamed(self.chat(&body))
    }

    /// Reads an answer that was not streamed.
    #[track_caller]
    pub fn whole(reply: Reply) -> Answer {
        let status = reply.status;
        let answer = reply.json();
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["object"], "chat.completion", "{answer}");
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["role"], "assistant", "{answer}");
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        Answer {
            content: message["content"].as_str().unwrap_or_default().trim().to_owned(),
            calls: calls
                .iter()
                .map(|call| Self::call(&call["function"]["name"], &call["function"]["arguments"]))
                .collect(),
            finish_reason: answer["choices"][0]["finish_reason"].as_str().unwrap_or_default().to_owned(),
            usage: Self::usage(&answer["usage"]),
            pieces: 0,
        }
    }

    /// Reads a streamed answer to its `[DONE]`, which has to be there.
    #[track_caller]
    pub fn streamed(reply: Reply) -> Answer {
        let status = reply.status;
        if status != 200 {
            let body = reply.json();
            panic!("{status}: {body}");
        }
        let kind = reply.header("content-type").unwrap_or_default().to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        let mut answer = Answer::default();
        let mut arguments: Vec<(String, String)> = Vec::new();
        let mut done = false;
        for event in reply.events() {
            assert!(!done, "{event:?} after [DONE]");
            if event == "[DONE]" {
                done = true;
                continue;
            }
            let chunk: Value = serde_json::from_str(&event).unwrap_or_else(|error| panic!("{error}: {event:?}"));
            assert_eq!(chunk["object"], "chat.completion.chunk", "{chunk}");
            if !chunk["usage"].is_null() {
                answer.usage = Self::usage(&chunk["usage"]);
            }
            let choice = &chunk["choices"][0];
            if let Some(text) = choice["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
                answer.content += text;
                answer.pieces += 1;
            }
            for call in choice["delta"]["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default() {
                let index = usize::try_from(call["index"].as_u64().expect("an index")).expect("a small index");
                arguments.resize(arguments.len().max(index + 1), Default::default());
                arguments[index].0 += call["function"]["name"].as_str().unwrap_or_default();
                arguments[index].1 += call["function"]["arguments"].as_str().unwrap_or_default();
            }
            if let Some(reason) = choice["finish_reason"].as_str() {
                reason.clone_into(&mut answer.finish_reason);
            }
        }
        assert!(done, "the stream ended without [DONE] after {:?}", answer.content);
        answer.content.truncate(answer.content.trim_end().len());
        answer.content.drain(..answer.content.len() - answer.content.trim_start().len());
        answer.calls = arguments.iter().map(|(name, text)| Self::call(&json!(name), &json!(text))).collect();
        answer
    }

    #[track_caller]
    fn call(name: &Value, arguments: &Value) -> (String, Value) {
        let text = arguments.as_str().unwrap_or_default();
        let arguments = serde_json::from_str(text).unwrap_or_else(|error| panic!("arguments {text:?}: {error}"));
        (name.as_str().unwrap_or_default().to_owned(), arguments)
    }

    fn usage(usage: &Value) -> (u64, u64, u64) {
        let count = |name: &str| usage[name].as_u64().unwrap_or_default();
        (count("prompt_tokens"), count("completion_tokens"), count("total_tokens"))
    }
}
