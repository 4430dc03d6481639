//! The engine worker alone, for this crate's tests; the programs of Muster carry it inside themselves.
//!
//! `engine-worker hold-for-tests MODEL` is a parent instead: it starts a worker that answers without end, prints the
//! worker's process id, and waits to be killed.

use std::process::ExitCode;

use muster_engine::worker::{ChatRequest, Generator, Layout, LoadRequest, Sampling, WorkerCommand};
use muster_proto::EngineSettings;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(mode), Some(model)) if mode == "hold-for-tests" => hold(model.into()),
        _ => muster_engine::worker_main(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn hold(path: std::path::PathBuf) -> ExitCode {
    let Ok(command) = WorkerCommand::this_executable() else { return ExitCode::FAILURE };
    let request = LoadRequest { path, settings: EngineSettings::default(), threads: None, layout: Layout::default() };
    let (generator, loaded) = match Generator::start(&command, request, |_| {}).await {
        Ok(started) => started,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", loaded.pid);
    loop {
        // Busy all the time: a worker must end even while it computes.
        let sampling = Sampling { temperature: Some(5.0), ..Sampling::default() };
        let messages_json = r#"[{"role": "user", "content": "Count."}]"#.to_owned();
        let mut stream = generator.chat(ChatRequest { messages_json, sampling, ..ChatRequest::default() });
        while let Some(event) = stream.next().await {
            if event.is_err() {
                return ExitCode::FAILURE;
            }
        }
    }
}
