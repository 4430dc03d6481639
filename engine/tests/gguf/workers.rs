//! What the gate lets through, llama.cpp takes or refuses in words: no worker dies of it.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use muster_engine::gguf::fuzz_one;
use muster_engine::worker::{SizeRequest, WorkerCommand, WorkerError, size};
use muster_proto::{ContextTokens, EngineSettings};

use crate::attacks::valid;
use crate::fuzz::{Random, mutate};

/// Changed files that passed the gate and go to a worker.
const INPUTS: usize = 150;

/// What a worker says of a file.
async fn outcome(bytes: Vec<u8>) -> Result<(), WorkerError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let settings = EngineSettings { context: ContextTokens::new(256), parallel: 1, ..EngineSettings::default() };
    let request = SizeRequest { path, settings, devices: Vec::new() };
    let command = WorkerCommand::new(env!("CARGO_BIN_EXE_engine-worker"));
    let sized = tokio::time::timeout(Duration::from_mins(2), size(&command, request)).await;
    sized.expect("a worker that does not come back").map(drop)
}

#[tokio::test]
async fn the_tiny_models_are_models() {
    for (name, raw) in valid().into_iter().filter(|(name, _)| !name.contains("part")) {
        outcome(raw.bytes()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn what_passes_kills_no_worker() {
    let corpus: Vec<Vec<u8>> =
        valid().into_iter().filter(|(name, _)| !name.contains("part")).map(|(_, raw)| raw.bytes()).collect();
    let seed = std::env::var("MUSTER_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = Random(seed);
    let mut inputs = Vec::new();
    while inputs.len() < INPUTS {
        let original = &corpus[random.below(corpus.len())];
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut random);
        let judged = fuzz_one(&bytes);
        // A change of the data alone is none.
        if judged.is_ok_and(|header| {
            bytes.get(..usize::try_from(header.data_offset).unwrap())
                != original.get(..usize::try_from(header.data_offset).unwrap())
        }) {
            inputs.push(bytes);
        }
    }
    let keep = std::env::var_os("MUSTER_KEEP_DEATHS");
    let outcomes: Vec<(usize, Vec<u8>, Result<(), WorkerError>)> = stream::iter(inputs.into_iter().enumerate())
        .map(|(index, bytes)| async move { (index, bytes.clone(), outcome(bytes).await) })
        .buffer_unordered(4)
        .collect()
        .await;
    let mut deaths = Vec::new();
    for (index, bytes, outcome) in outcomes {
        match outcome {
            Ok(()) | Err(WorkerError::Refused { .. }) => {}
            Err(error) => {
                if let Some(folder) = &keep {
                    std::fs::write(std::path::Path::new(folder).join(format!("death-{index}.gguf")), bytes).unwrap();
                }
                deaths.push(format!("{index}: {error:?}"));
            }
        }
    }
    assert!(deaths.is_empty(), "{} workers died:\n{}", deaths.len(), deaths.join("\n"));
}
