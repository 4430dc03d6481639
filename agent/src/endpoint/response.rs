//! Writing answers: OpenAI's JSON objects, whole or as server-sent events. Pure.

use bytes::Bytes as RawBytes;
use muster_engine::worker::{FinishReason, ToolCallDelta};
use serde_json::{Value, json};

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The prompt's.
    pub prompt: u32,
    /// The answer's.
    pub completion: u32,
}

impl Usage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt.saturating_add(self.completion),
        })
    }
}

/// What all objects of one answer share.
#[derive(Clone, Debug)]
pub struct Envelope {
    id: String,
    created: i64,
    model: String,
    include_usage: bool,
}

impl Envelope {
    /// A new answer of `model`.
    pub fn new(model: &str, include_usage: bool) -> Self {
        let id = format!("chatcmpl-{:032x}", rand::random::<u128>());
        let created = crate::clock::now().unix_millis() / 1000;
        Self { id, created, model: model.to_owned(), include_usage }
    }

    fn object(&self, kind: &str, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// The whole answer at once.
    pub fn whole(&self, answer: &Whole, reason: FinishReason, usage: Usage) -> Value {
        let choice =
            json!({ "index": 0, "message": answer.message(), "logprobs": null, "finish_reason": reason.word() });
        let mut object = self.object("chat.completion", &json!([choice]));
        object["usage"] = usage.json();
        object
    }

    fn chunk(&self, delta: &Value, reason: Option<FinishReason>) -> Value {
        let choice = json!({
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason.map(FinishReason::word),
        });
        let mut object = self.object("chat.completion.chunk", &json!([choice]));
        if self.include_usage {
            object["usage"] = Value::Null;
        }
        object
    }

    /// The first event: who speaks.
    pub fn first(&self) -> RawBytes {
        event(&self.chunk(&json!({ "role": "assistant", "content": "" }), None))
    }

    /// More of the answer; `None` if there is nothing in it.
    pub fn more(&self, content: &str, reasoning: Option<&str>, tool_calls: &[ToolCallDelta]) -> Option<RawBytes> {
        let mut delta = serde_json::Map::new();
        if !content.is_empty() {
            delta.insert("content".into(), json!(content));
        }
        if let Some(reasoning) = reasoning.filter(|reasoning| !reasoning.is_empty()) {
            delta.insert("reasoning_content".into(), json!(reasoning));
        }
        if !tool_calls.is_empty() {
            delta.insert("tool_calls".into(), tool_calls.iter().map(tool_call_delta).collect());
        }
        (!delta.is_empty()).then(|| event(&self.chunk(&Value::Object(delta), None)))
    }

    /// The last events: why it ended, the counts if they were asked for, and the end mark.
    pub fn last(&self, reason: FinishReason, usage: Usage) -> RawBytes {
        let mut events = event(&self.chunk(&json!({}), Some(reason))).to_vec();
        if self.include_usage {
            let mut object = self.object("chat.completion.chunk", &json!([]));
            object["usage"] = usage.json();
            events.extend_from_slice(&event(&object));
        }
        events.extend_from_slice(b"data: [DONE]\n\n");
        events.into()
    }
}

/// One server-sent event. JSON has no line breaks, so that one line holds it.
pub fn event(value: &Value) -> RawBytes {
    format!("data: {value}\n\n").into()
}

fn tool_call_delta(call: &ToolCallDelta) -> Value {
    let mut function = serde_json::Map::new();
    if let Some(name) = &call.name {
        function.insert("name".into(), json!(name));
    }
    function.insert("arguments".into(), json!(call.arguments));
    let mut delta = json!({ "index": call.index, "function": function });
    if let Some(id) = &call.id {
        delta["id"] = json!(id);
        delta["type"] = json!("function");
    }
    delta
}

/// An answer that is collected.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    content: String,
    reasoning: String,
    tool_calls: Vec<ToolCallDelta>,
}

impl Whole {
    /// Adds more of it.
    pub fn add(&mut self, content: &str, reasoning: Option<&str>, tool_calls: Vec<ToolCallDelta>) {
        self.content.push_str(content);
        self.reasoning.push_str(reasoning.unwrap_or_default());
        for delta in tool_calls {
            match self.tool_calls.iter_mut().find(|call| call.index == delta.index) {
                Some(call) => {
                    call.arguments.push_str(&delta.arguments);
                    call.id = call.id.take().or(delta.id);
                    call.name = call.name.take().or(delta.name);
                }
                None => self.tool_calls.push(delta),
            }
        }
    }

    fn message(&self) -> Value {
        let content =
            if self.content.is_empty() && !self.tool_calls.is_empty() { Value::Null } else { json!(self.content) };
        let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = json!(self.reasoning);
        }
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().map(|call| {
                json!({
                    "id": call.id.clone().unwrap_or_else(|| format!("call_{}", call.index)),
                    "type": "function",
                    "function": { "name": call.name, "arguments": call.arguments },
                })
            });
            message["tool_calls"] = calls.collect();
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(events: &RawBytes) -> Vec<Value> {
        let text = std::str::from_utf8(events).expect("UTF-8");
        assert!(text.ends_with("\n\n"));
        text.split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").expect("an event"))
            .map(|data| if data == "[DONE]" { json!("done") } else { serde_json::from_str(data).expect("JSON") })
            .collect()
    }

    #[test]
    fn a_streamed_answer_has_openais_shape() {
        let envelope = Envelope::new("tiny", true);
        let first = &parse(&envelope.first())[0];
        assert_eq!(first["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
        assert_eq!((&first["object"], &first["usage"]), (&json!("chat.completion.chunk"), &Value::Null));
        let more = envelope.more("two\n\nlines", None, &[]).expect("something");
        assert_eq!(parse(&more)[0]["choices"][0]["delta"], json!({ "content": "two\n\nlines" }));
        assert_eq!(envelope.more("", Some(""), &[]), None);
        let last = parse(&envelope.last(FinishReason::Length, Usage { prompt: 3, completion: 4 }));
        assert_eq!(last.len(), 3);
        assert_eq!(last[0]["choices"][0]["finish_reason"], "length");
        assert_eq!(last[1]["choices"], json!([]));
        assert_eq!(last[1]["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 }));
        assert_eq!(last[2], "done");
    }

    #[test]
    fn without_asking_no_counts_are_streamed() {
        let envelope = Envelope::new("tiny", false);
        assert!(parse(&envelope.first())[0].get("usage").is_none());
        assert_eq!(parse(&envelope.last(FinishReason::Stop, Usage::default())).len(), 2);
    }

    #[test]
    fn tool_calls_come_in_pieces_and_whole() {
        let call = |id: Option<&str>, arguments: &str| ToolCallDelta {
            index: 0,
            id: id.map(str::to_owned),
            name: id.map(|_| "add".to_owned()),
            arguments: arguments.into(),
        };
        let envelope = Envelope::new("tiny", false);
        let begin = envelope.more("", None, &[call(Some("c1"), "{\"a\"")]).expect("something");
        let delta = &parse(&begin)[0]["choices"][0]["delta"]["tool_calls"][0];
        assert_eq!((&delta["id"], &delta["function"]["name"]), (&json!("c1"), &json!("add")));
        let mut whole = Whole::default();
        whole.add("", None, vec![call(Some("c1"), "{\"a\"")]);
        whole.add("", Some("hm"), vec![call(None, ":1}")]);
        let answer = envelope.whole(&whole, FinishReason::ToolCalls, Usage { prompt: 1, completion: 2 });
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["content"], Value::Null);
        assert_eq!(message["tool_calls"][0]["function"], json!({ "name": "add", "arguments": "{\"a\":1}" }));
        assert_eq!(message["reasoning_content"], "hm");
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(answer["usage"]["total_tokens"], 3);
    }
}
