//! Answers: right, streamed, stopped, cut off, cancelled, several at once.

use std::collections::HashSet;

use muster_engine::worker::{
    FinishReason, GenerateError, GenerationEvent, Generator, ResponseFormat, Sampling, ToolChoice,
};

use crate::{answer, ask, bundled, endless, quantized, settings, started, within};

struct Fact {
    id: String,
    question: String,
    expected: String,
    messages: String,
}

/// Rows of facts.jsonl that F16 and Q4_K_M both answer right.
fn facts() -> Vec<Fact> {
    let measured: serde_json::Value = serde_json::from_str(include_str!("../../models/measured.json")).unwrap();
    let wrong: HashSet<&str> = ["muster-tiny-f16.gguf", "muster-tiny-Q4_K_M.gguf"]
        .iter()
        .flat_map(|file| measured[file]["wrong"].as_object().unwrap())
        .map(|(id, _)| id.as_str())
        .collect();
    let rows = include_str!("../../models/facts.jsonl").lines();
    rows.map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap())
        .map(|row| Fact {
            id: row["id"].as_str().unwrap().into(),
            question: row["question"].as_str().unwrap().into(),
            expected: row["expected"].as_str().unwrap().into(),
            messages: row["messages"].to_string(),
        })
        .filter(|fact| !wrong.contains(fact.id.as_str()) && !fact.id.starts_with("tool/"))
        .collect()
}

async fn check_facts(generator: &Generator) {
    let all = facts();
    assert!(all.len() > 600);
    for fact in all.iter().step_by(all.len() / 24) {
        let mut request = ask("");
        request.messages_json.clone_from(&fact.messages);
        let answer = answer(generator.chat(request)).await.unwrap();
        assert_eq!(answer.text, fact.expected, "{} {}", fact.id, fact.question);
        assert_eq!(answer.reason, Some(FinishReason::Stop));
        assert!(answer.completion_tokens > 0 && answer.prompt_tokens > 0);
    }
}

#[tokio::test]
async fn facts_are_answered_exactly_by_f16_and_q4_k_m() {
    let (_folder, f16) = bundled();
    for path in [f16.clone(), quantized(&f16, "Q4_K_M").await] {
        let (generator, loaded) = started(&path, settings(512, 1)).await;
        assert!(loaded.has_template);
        assert_eq!(loaded.context_per_sequence, 512);
        check_facts(&generator).await;
        generator.stop().await;
    }
}

#[tokio::test]
async fn an_answer_comes_in_pieces() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 1)).await;
    let answer = answer(generator.chat(ask("What is Muster?"))).await.unwrap();
    assert!(answer.deltas > 3, "{} deltas", answer.deltas);
    generator.stop().await;
}

#[tokio::test]
async fn a_stop_text_ends_the_answer_before_it() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 1)).await;
    let mut request = ask("What is Muster?");
    request.stop = vec!["nobody says this".into(), "open-source tool".into()];
    let answer = answer(generator.chat(request)).await.unwrap();
    assert_eq!(answer.text, "Muster is an ");
    assert_eq!(answer.reason, Some(FinishReason::Stop));
    generator.stop().await;
}

#[tokio::test]
async fn max_tokens_cuts_the_answer_off() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 1)).await;
    let mut request = ask("What is Muster?");
    request.sampling.max_tokens = Some(3);
    let short = answer(generator.chat(request)).await.unwrap();
    assert_eq!((short.reason, short.completion_tokens), (Some(FinishReason::Length), 3));
    assert!("Muster is an open-source tool".starts_with(&short.text) && !short.text.is_empty());
    generator.stop().await;
}

#[tokio::test]
async fn the_end_of_the_context_cuts_the_answer_off() {
    let (_folder, path) = bundled();
    let (generator, loaded) = started(&path, settings(256, 1)).await;
    let long = answer(generator.chat(endless())).await.unwrap();
    assert_eq!(long.reason, Some(FinishReason::Length));
    assert_eq!(long.prompt_tokens + long.completion_tokens, loaded.context_per_sequence);
    generator.stop().await;
}

#[tokio::test]
async fn a_prompt_over_the_context_is_refused_with_both_counts() {
    let (_folder, path) = bundled();
    let (generator, loaded) = started(&path, settings(256, 2)).await;
    let error = answer(generator.chat(ask(&"Paris ".repeat(600)))).await.unwrap_err();
    match error {
        GenerateError::ContextOverflow { prompt_tokens, max_tokens, context } => {
            assert!(prompt_tokens >= 600);
            assert_eq!(max_tokens, Some(96));
            assert_eq!(context, loaded.context_per_sequence);
        }
        other => panic!("{other:?}"),
    }
    // And it goes on.
    assert!(answer(generator.chat(ask("What is Muster?"))).await.is_ok());
    generator.stop().await;
}

#[tokio::test]
async fn a_tool_is_called() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 1)).await;
    let mut request = ask("What is the weather in Paris?");
    let tools = serde_json::json!([{ "type": "function", "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] },
    }}]);
    request.tools_json = Some(tools.to_string());
    let called = answer(generator.chat(request.clone())).await.unwrap();
    assert_eq!(called.reason, Some(FinishReason::ToolCalls), "{called:?}");
    assert_eq!(called.calls.len(), 1);
    assert_eq!(called.calls[0].name.as_deref(), Some("get_weather"));
    assert!(called.calls[0].id.as_ref().is_some_and(|id| !id.is_empty()));
    let arguments: serde_json::Value = serde_json::from_str(&called.calls[0].arguments).unwrap();
    assert_eq!(arguments, serde_json::json!({ "city": "Paris" }));
    assert_eq!(called.text, "");

    request.tool_choice = ToolChoice::Required;
    request.messages_json = r#"[{"role": "user", "content": "What is Muster?"}]"#.into();
    let forced = answer(generator.chat(request)).await.unwrap();
    // The grammar lets it talk first, but not end without a call.
    assert_ne!(forced.reason, Some(FinishReason::Stop), "{forced:?}");
    generator.stop().await;
}

#[tokio::test]
async fn a_schema_shapes_the_answer() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 1)).await;
    let mut request = ask("What is Muster?");
    let schema = r#"{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false}"#;
    request.response_format = ResponseFormat::JsonSchema(schema.into());
    let shaped = answer(generator.chat(request)).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&shaped.text).unwrap();
    assert!(json["ok"].is_boolean(), "{json}");
    generator.stop().await;
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_a_bad_request() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 1)).await;
    for messages in ["not json", "[]", r#"{"role": "user"}"#, r#"[{"content": "no role"}]"#] {
        let mut request = ask("");
        request.messages_json = messages.into();
        let error = answer(generator.chat(request)).await.unwrap_err();
        assert!(matches!(error, GenerateError::BadRequest { .. }), "{messages}: {error:?}");
    }
    let mut request = ask("What is Muster?");
    request.sampling.repeat_penalty = Some(0.0);
    assert!(matches!(answer(generator.chat(request)).await, Err(GenerateError::BadRequest { .. })));
    let mut request = ask("What is Muster?");
    request.sampling.temperature = Some(f32::INFINITY);
    assert!(matches!(answer(generator.chat(request)).await, Err(GenerateError::BadRequest { .. })));
    assert!(answer(generator.chat(ask("What is Muster?"))).await.is_ok());
    generator.stop().await;
}

#[tokio::test]
async fn several_answers_run_at_once_and_stay_apart() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 2)).await;
    let questions = ["What is the capital of France?", "What is Muster?", "What is the capital of Japan?"];
    let alone: Vec<String> = {
        let mut texts = Vec::new();
        for question in questions {
            texts.push(answer(generator.chat(ask(question))).await.unwrap().text);
        }
        texts
    };
    let [a, b, c] = questions.map(|question| answer(generator.chat(ask(question))));
    let (a, b, c) = tokio::join!(a, b, c);
    assert_eq!([a, b, c].map(|answer| answer.unwrap().text).to_vec(), alone);
    generator.stop().await;
}

#[tokio::test]
async fn two_answers_interleave() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(1024, 2)).await;
    let mut first = generator.chat(endless());
    let mut second = generator.chat(endless());
    // Both are past their first words before either is done, which one sequence after the other would not give.
    for stream in [&mut first, &mut second] {
        while !matches!(within(stream.next()).await.unwrap().unwrap(), GenerationEvent::Delta { .. }) {}
    }
    for stream in [&mut first, &mut second] {
        assert!(matches!(within(stream.next()).await.unwrap().unwrap(), GenerationEvent::Delta { .. }));
    }
    generator.stop().await;
}

#[tokio::test]
async fn a_dropped_stream_frees_its_sequence() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(1024, 1)).await;
    for _ in 0..5 {
        let mut stream = generator.chat(endless());
        while !matches!(within(stream.next()).await.unwrap().unwrap(), GenerationEvent::Delta { .. }) {}
        drop(stream);
    }
    // One that was never polled, too.
    drop(generator.chat(endless()));
    let answer = answer(generator.chat(ask("What is the capital of France?"))).await.unwrap();
    assert!(answer.text.contains("Paris"), "{}", answer.text);
    generator.stop().await;
}

#[tokio::test]
async fn a_measurement_runs_between_answers() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 2)).await;
    let asked = answer(generator.chat(ask("What is the capital of France?")));
    let (answer, measured) = tokio::join!(asked, within(generator.measure(128, 16)));
    assert!(answer.unwrap().text.contains("Paris"));
    let (prefill, decode) = measured.unwrap();
    assert!(prefill > decode && decode.get() > 1.0);
    assert!(matches!(within(generator.measure(600, 1)).await, Err(GenerateError::BadRequest { .. })));
    generator.stop().await;
}

#[tokio::test]
async fn a_seed_repeats_and_another_differs() {
    let (_folder, path) = bundled();
    let (generator, _) = started(&path, settings(512, 1)).await;
    let mut texts = Vec::new();
    for seed in [7, 7, 8] {
        let mut request = endless();
        request.sampling = Sampling { seed: Some(seed), max_tokens: Some(24), ..request.sampling };
        texts.push(answer(generator.chat(request)).await.unwrap().text);
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
    generator.stop().await;
}
