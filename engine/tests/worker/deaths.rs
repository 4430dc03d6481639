//! Workers die, in every way, and what is known then.

use std::time::Duration;

use muster_engine::worker::{
    ChatRequest, GenerateError, GenerationEvent, GenerationStream, Generator, Layout, LoadRequest, WorkerCommand,
    WorkerError,
};
use muster_proto::Bytes;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{ask, bundled, command, endless, settings, started, within};

const CANARY: &str = "canary-7f3a91";

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A worker in the middle of an answer whose prompt holds the canary.
async fn busy(command: &WorkerCommand) -> (tempfile::TempDir, Generator, GenerationStream) {
    let (folder, path) = bundled();
    let request = LoadRequest { path, settings: settings(1024, 1), threads: None, layout: Layout::default() };
    let (generator, _) = within(Generator::start(command, request, |_| {})).await.unwrap();
    let mut request = endless();
    request.messages_json = request.messages_json.replace("What is Muster?", CANARY);
    let mut stream = generator.chat(request);
    while !matches!(within(stream.next()).await.unwrap().unwrap(), GenerationEvent::Delta { .. }) {}
    (folder, generator, stream)
}

async fn rest(mut stream: GenerationStream) -> GenerateError {
    loop {
        match within(stream.next()).await.unwrap() {
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_killed_worker_is_told_with_its_signal() {
    let (_folder, generator, stream) = busy(&command()).await;
    signal(generator.pid(), rustix::process::Signal::KILL);
    let error = within(generator.exited()).await;
    match &error {
        WorkerError::Died { status, assertion, log_tail } => {
            assert_eq!((status.as_str(), assertion), ("SIGKILL", &None));
            assert!(log_tail.iter().any(|line| line.contains("llama")), "{log_tail:?}");
        }
        other => panic!("{other:?}"),
    }
    let told = rest(stream).await;
    assert!(matches!(told, GenerateError::Worker(WorkerError::Died { .. })), "{told:?}");
    assert!(!format!("{error:?} {told:?}").contains(CANARY));
    // Asked afterwards, it says so at once.
    let after = rest(generator.chat(ask("hello"))).await;
    assert!(matches!(after, GenerateError::Worker(WorkerError::Died { .. })), "{after:?}");
}

#[tokio::test]
async fn an_abort_is_told_with_its_place_and_nothing_else() {
    let (_folder, generator, stream) = busy(&command()).await;
    generator.abort_for_tests();
    let error = within(generator.exited()).await;
    match &error {
        WorkerError::Died { status, assertion, .. } => {
            assert_eq!(status, "SIGABRT");
            let place = assertion.as_deref().unwrap();
            assert!(place.starts_with("process.cpp:"), "{place}");
        }
        other => panic!("{other:?}"),
    }
    let told = format!("{error:?} {error} {:?}", rest(stream).await);
    assert!(!told.contains(CANARY) && !told.contains("nobody may see"), "{told}");
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed() {
    let command = WorkerCommand { silence_limit: Duration::from_secs(2), ..command() };
    let (_folder, generator, stream) = busy(&command).await;
    signal(generator.pid(), rustix::process::Signal::STOP);
    assert!(matches!(within(generator.exited()).await, WorkerError::TimedOut { .. }));
    assert!(matches!(rest(stream).await, GenerateError::Worker(WorkerError::TimedOut { .. })));
}

/// Far more than a pipe holds.
fn long() -> ChatRequest {
    ask(&"Paris ".repeat(200_000))
}

#[tokio::test]
async fn a_worker_that_hangs_with_a_full_pipe_is_killed_too() {
    let command = WorkerCommand { silence_limit: Duration::from_secs(2), ..command() };
    let (_folder, generator, stream) = busy(&command).await;
    signal(generator.pid(), rustix::process::Signal::STOP);
    let asked = generator.chat(long());
    let error = within(generator.exited()).await;
    assert!(matches!(error, WorkerError::TimedOut { .. }), "{error:?}");
    assert!(error.log_tail().iter().any(|line| line.contains("llama")), "{error:?}");
    assert!(!format!("{error:?}").contains(CANARY));
    for stream in [stream, asked] {
        assert!(matches!(rest(stream).await, GenerateError::Worker(WorkerError::TimedOut { .. })));
    }
}

#[tokio::test]
async fn a_worker_that_hangs_with_a_full_pipe_can_be_stopped() {
    let (_folder, generator, stream) = busy(&command()).await;
    let pid = generator.pid();
    signal(pid, rustix::process::Signal::STOP);
    let asked = generator.chat(long());
    within(generator.stop()).await;
    assert!(gone(pid));
    for stream in [stream, asked] {
        assert!(matches!(rest(stream).await, GenerateError::Worker(WorkerError::Stopped)));
    }
}

#[tokio::test]
async fn the_last_handle_takes_the_worker_with_it() {
    let (_folder, path) = bundled();
    let (generator, loaded) = started(&path, settings(256, 1)).await;
    let stream = generator.chat(endless());
    drop(generator);
    assert!(matches!(rest(stream).await, GenerateError::Worker(WorkerError::Stopped)));
    assert!(gone(loaded.pid));
}

#[tokio::test]
async fn a_worker_does_not_outlive_its_parent() {
    let (_folder, path) = bundled();
    let mut parent = tokio::process::Command::new(env!("CARGO_BIN_EXE_engine-worker"))
        .arg("hold-for-tests")
        .arg(&path)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    within(BufReader::new(parent.stdout.as_mut().unwrap()).read_line(&mut line)).await.unwrap();
    let worker: u32 = line.trim().parse().unwrap();
    assert!(!gone(worker));
    signal(parent.id().unwrap(), rustix::process::Signal::KILL);
    within(parent.wait()).await.unwrap();
    within(async {
        while !gone(worker) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Whether no such process runs any more; one that only waits to be reaped by whoever adopted it is gone too.
fn gone(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

#[tokio::test]
async fn too_little_memory_is_an_error_of_the_worker_only() {
    let (_folder, path) = bundled();
    let command = WorkerCommand { memory_limit: Some(Bytes::from_mib(64)), ..command() };
    let mut large = settings(1024, 1);
    large.parallel = 16;
    let request = LoadRequest { path, settings: large, threads: Some(1), layout: Layout::default() };
    let error = within(Generator::start(&command, request, |_| {})).await.unwrap_err();
    assert!(matches!(error, WorkerError::Refused { .. } | WorkerError::Died { .. }), "{error:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_and_one_that_is_no_worker() {
    let (_folder, path) = bundled();
    let request = LoadRequest { path, settings: settings(256, 1), threads: None, layout: Layout::default() };
    let missing = WorkerCommand::new("/nonexistent/engine-worker");
    let error = within(Generator::start(&missing, request.clone(), |_| {})).await.unwrap_err();
    assert!(matches!(error, WorkerError::Spawn { .. }), "{error:?}");
    let other = WorkerCommand { args: vec!["-c".into(), "exit 7".into()], ..WorkerCommand::new("/bin/sh") };
    match within(Generator::start(&other, request, |_| {})).await.unwrap_err() {
        WorkerError::Died { status, .. } => assert_eq!(status, "exit code 7"),
        other => panic!("{other:?}"),
    }
}
