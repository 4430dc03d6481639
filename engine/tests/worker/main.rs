//! Real workers with the real bundled model: sizing, quantizing, generating, and every way to die.

#![allow(clippy::unwrap_used, reason = "tests")]

mod costs;
mod deaths;
mod dry_runs;
mod encoders;
mod generating;
mod jobs;
mod maker;
mod malformed;
mod phantoms;
mod quality;
mod quantizing;
#[path = "../small_models/mod.rs"]
mod small_models;
#[path = "../../build/upstream.rs"]
mod upstream;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_engine::worker::{
    ChatRequest, FinishReason, GenerateError, GenerationEvent, GenerationStream, Generator, Layout, LoadRequest,
    Loaded, QuantizeRequest, Sampling, ToolCallDelta, WorkerCommand, quantize,
};
use muster_proto::{ContextTokens, EngineSettings};

/// No test may hang: far above what any takes, on a machine that is busy with others.
const DEADLINE: Duration = Duration::from_mins(2);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the test took longer than its deadline")
}

fn command() -> WorkerCommand {
    WorkerCommand::new(env!("CARGO_BIN_EXE_engine-worker"))
}

/// A folder with the bundled model in it.
fn bundled() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("muster-tiny-f16.gguf");
    std::fs::write(&path, muster_engine::bundled::MUSTER_TINY_F16).unwrap();
    (folder, path)
}

fn settings(context: u32, parallel: u32) -> EngineSettings {
    EngineSettings { context: ContextTokens::new(context), parallel, ..EngineSettings::default() }
}

async fn quantized(source: &Path, quantization: &str) -> PathBuf {
    let target = source.with_file_name(format!("{quantization}.gguf"));
    let request = QuantizeRequest {
        source: source.to_owned(),
        target: target.clone(),
        quantization: quantization.into(),
        ..QuantizeRequest::default()
    };
    within(quantize(&command(), request, |_| {})).await.unwrap();
    target
}

async fn started(path: &Path, settings: EngineSettings) -> (Generator, Loaded) {
    // One thread: with several, ggml's barriers wait for whatever else runs on the machine.
    let request = LoadRequest { path: path.to_owned(), settings, threads: Some(1), layout: Layout::default() };
    within(Generator::start(&command(), request, |_| {})).await.unwrap()
}

fn ask(question: &str) -> ChatRequest {
    let messages = serde_json::json!([{ "role": "user", "content": question }]);
    let sampling = Sampling { temperature: Some(0.0), max_tokens: Some(96), ..Sampling::default() };
    ChatRequest { messages_json: messages.to_string(), sampling, ..ChatRequest::default() }
}

/// A request whose answer goes on until it is cut off.
fn endless() -> ChatRequest {
    let mut request = ask("What is Muster?");
    // So hot that the end is no likelier than any other of 2048 tokens.
    request.sampling = Sampling {
        temperature: Some(100.0),
        top_k: Some(0),
        top_p: Some(1.0),
        min_p: Some(0.0),
        seed: Some(1),
        ..Sampling::default()
    };
    request
}

#[derive(Debug, Default)]
struct Answer {
    text: String,
    calls: Vec<ToolCallDelta>,
    deltas: usize,
    reason: Option<FinishReason>,
    prompt_tokens: u32,
    completion_tokens: u32,
}

/// Follows an answer to its end.
async fn answer(mut stream: GenerationStream) -> Result<Answer, GenerateError> {
    let mut answer = Answer::default();
    while let Some(event) = within(stream.next()).await {
        match event? {
            GenerationEvent::Started { prompt_tokens } => answer.prompt_tokens = prompt_tokens,
            GenerationEvent::Delta { content, tool_calls, .. } => {
                answer.text.push_str(&content);
                answer.deltas += 1;
                for call in tool_calls {
                    match answer.calls.iter_mut().find(|known| known.index == call.index) {
                        Some(known) => {
                            known.arguments.push_str(&call.arguments);
                            known.id = known.id.take().or(call.id);
                            known.name = known.name.take().or(call.name);
                        }
                        None => answer.calls.push(call),
                    }
                }
            }
            GenerationEvent::Finished { reason, prompt_tokens, completion_tokens, .. } => {
                assert_eq!(prompt_tokens, answer.prompt_tokens);
                answer.reason = Some(reason);
                answer.completion_tokens = completion_tokens;
            }
        }
    }
    assert!(answer.reason.is_some(), "the stream ended without Finished");
    Ok(answer)
}
