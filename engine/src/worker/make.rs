//! The job that makes a model file.

use std::path::PathBuf;

use muster_proto::Bytes;

use super::jobs::{Partial, Step, once};
use super::{WorkerCommand, WorkerError, convert};
use crate::maker::{ModelSpec, Quantization};
use crate::wire::{self, from_worker::Reply, to_worker::Request};

/// What stands in the file where weights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Nothing: the header alone, in a sparse file of the full length. It can be sized, not run.
    HeaderOnly,
    /// Random weights; the same seed gives the same. Speed and memory are those of a real model.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// A model file to make.
#[derive(Clone, Debug, PartialEq)]
pub struct MakeRequest {
    /// What to make.
    pub spec: ModelSpec,
    /// In which quantization.
    pub quantization: Quantization,
    /// Where; what is there is replaced, and removed unless the job succeeds.
    pub path: PathBuf,
    /// With which weights.
    pub weights: Weights,
}

/// A model file that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Size of the file; that of a header alone is what the whole would have.
    pub file_size: Bytes,
    /// Bytes of all tensors.
    pub tensor_bytes: Bytes,
    /// Parameters of all tensors.
    pub parameters: u64,
    /// Tensors.
    pub tensors: u32,
}

/// Makes a model file: names and shapes of the tensors, and their types in this quantization, are llama.cpp's own.
///
/// # Errors
/// `Refused` with llama.cpp's words where it makes no model of the numbers.
pub async fn make_model(command: &WorkerCommand, request: MakeRequest) -> Result<Made, WorkerError> {
    let spec = serde_json::to_vec(&request.spec)
        .map_err(|error| WorkerError::Refused { reason: format!("the model cannot be described: {error}") })?;
    let partial = Partial::new(request.path.clone());
    let job = wire::MakeModel {
        spec,
        file_type: request.quantization.file_type(),
        seed: match request.weights {
            Weights::HeaderOnly => None,
            Weights::Random { seed } => Some(seed),
        },
        path: convert::path(&request.path),
    };
    let made = once(command, Request::MakeModel(job), |reply| match reply {
        Reply::Made(made) => Step::Done(Made {
            file_size: Bytes::new(made.file_size),
            tensor_bytes: Bytes::new(made.tensor_bytes),
            parameters: made.parameters,
            tensors: made.tensors,
        }),
        _ => Step::Unexpected,
    })
    .await?;
    partial.keep();
    Ok(made)
}
