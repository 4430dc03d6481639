//! The job that makes a model file.

use super::jobs::path_of;
use crate::maker::{self, ModelSpec, Quantization};
use crate::wire::{self, from_worker::Reply};

pub fn run(request: &wire::MakeModel) -> Result<Reply, String> {
    let spec: ModelSpec = serde_json::from_slice(&request.spec).map_err(|error| format!("not a model: {error}"))?;
    let quantization = Quantization::all()
        .find(|known| known.file_type() == request.file_type)
        .ok_or_else(|| format!("llama.cpp makes no file type {}", request.file_type))?;
    let made = maker::make(&spec, quantization, request.seed, &path_of(&request.path))?;
    Ok(Reply::Made(wire::Made {
        file_size: made.file_size,
        tensor_bytes: made.tensor_bytes,
        parameters: made.parameters,
        tensors: made.tensors,
    }))
}
