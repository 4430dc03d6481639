use serde_json::json;

use super::*;

fn parse(extra: &Value) -> Result<Asked, ApiError> {
    let mut body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "hi" }] });
    if let (Some(body), Some(extra)) = (body.as_object_mut(), extra.as_object()) {
        body.extend(extra.clone());
    }
    Asked::parse(body.to_string().as_bytes())
}

fn param_of(extra: &Value) -> String {
    parse(extra).expect_err("refused").param.expect("names the field")
}

#[test]
fn a_plain_request_takes_the_engines_defaults() {
    let asked = parse(&json!({})).expect("fine");
    assert_eq!(asked.model.as_deref(), Some("tiny"));
    assert!(!asked.stream && !asked.include_usage);
    assert_eq!(asked.request.sampling, Sampling::default());
    assert_eq!(asked.request.messages_json, r#"[{"role":"user","content":"hi"}]"#);
    assert_eq!(asked.request.tools_json, None);
}

#[test]
fn every_field_arrives() {
    let asked = parse(&json!({
        "stream": true, "stream_options": { "include_usage": true }, "temperature": 0, "top_p": 0.5, "top_k": 7,
        "min_p": 0.1, "seed": 42, "max_tokens": 9, "max_completion_tokens": 8, "stop": ["a", "b"],
        "presence_penalty": -1, "frequency_penalty": 1.5, "repeat_penalty": 1.1, "parallel_tool_calls": false,
        "response_format": { "type": "json_object" }, "user": "ignored", "n": 1, "logprobs": false, "logit_bias": {},
    }))
    .expect("fine");
    assert!(asked.stream && asked.include_usage);
    let sampling = asked.request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (Some(0.0), Some(0.5), Some(7)));
    assert_eq!((sampling.seed, sampling.max_tokens), (Some(42), Some(8)), "the newer name of the limit wins");
    assert_eq!(asked.request.stop, ["a", "b"]);
    assert_eq!(asked.request.response_format, ResponseFormat::JsonObject);
    assert!(!asked.request.parallel_tool_calls);
    assert_eq!(parse(&json!({ "stop": "x" })).expect("fine").request.stop, ["x"]);
    assert_eq!(parse(&json!({ "max_tokens": -1 })).expect("fine").request.sampling.max_tokens, None);
}

#[test]
fn each_wrong_field_is_named() {
    for (extra, param) in [
        (json!({ "temperature": 3 }), "temperature"),
        (json!({ "top_p": -0.1 }), "top_p"),
        (json!({ "top_k": -1 }), "top_k"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_completion_tokens": -2 }), "max_completion_tokens"),
        (json!({ "n": 2 }), "n"),
        (json!({ "logprobs": true }), "logprobs"),
        (json!({ "logit_bias": { "5": 1 } }), "logit_bias"),
        (json!({ "stop": [""] }), "stop"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": null }), "messages"),
        (json!({ "messages": ["hi"] }), "messages[0]"),
        (json!({ "messages": [{ "content": "hi" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user", "content": 5 }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }), "messages[0].content"),
        (json!({ "tools": [{ "type": "function" }] }), "tools[0]"),
        (json!({ "tool_choice": "sometimes" }), "tool_choice"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "response_format": { "type": "xml" } }), "response_format.type"),
        (json!({ "response_format": { "type": "json_schema" } }), "response_format.json_schema.schema"),
    ] {
        assert_eq!(param_of(&extra), param, "{extra}");
    }
}

#[test]
fn a_body_that_is_no_request_is_told() {
    for body in ["", "null", "[]", "{", r#"{"messages":"hi"}"#, r#"{"messages":[],"temperature":"hot"}"#] {
        let error = Asked::parse(body.as_bytes()).expect_err("refused");
        assert_eq!(error.status, http::StatusCode::BAD_REQUEST, "{body}");
    }
}

#[test]
fn one_named_tool_must_be_called() {
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let asked = parse(&json!({
        "tools": [tool("add"), tool("subtract")], "tool_choice": { "type": "function", "function": { "name": "add" } },
    }))
    .expect("fine");
    assert_eq!(asked.request.tool_choice, ToolChoice::Required);
    assert_eq!(asked.request.tools_json.as_deref(), Some(json!([tool("add")]).to_string().as_str()));
    let other = json!({ "tools": [tool("add")], "tool_choice": { "type": "function", "function": { "name": "x" } } });
    assert_eq!(param_of(&other), "tool_choice");
}

#[test]
fn a_schema_arrives_as_it_is() {
    let schema = json!({ "type": "object", "properties": { "b": {}, "a": {} } });
    let asked = parse(
        &json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } }),
    );
    assert_eq!(asked.expect("fine").request.response_format, ResponseFormat::JsonSchema(schema.to_string()));
}

#[test]
fn every_number_is_a_seed() {
    assert_eq!((fold_seed(0), fold_seed(7), fold_seed(i64::from(u32::MAX))), (0, 7, u32::MAX));
    assert_ne!(fold_seed(-1), fold_seed(-2));
    assert_ne!(fold_seed(1 << 40), fold_seed(1 << 41));
}
