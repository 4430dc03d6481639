//! Header-only files of reference models.

use std::path::{Path, PathBuf};

use super::ReferenceModel;
use crate::maker::{ModelSpec, Quantization};
use crate::worker::{MakeRequest, Weights, WorkerCommand, WorkerError, make_model};

/// Writes the header of a reference model in a quantization to a file of its own in `folder`, a sparse one of the full
/// length, and returns its path: what [`size`](crate::worker::size) needs for an estimate.
///
/// # Errors
/// See [`make_model`].
pub async fn header_file(
    command: &WorkerCommand,
    model: &ReferenceModel,
    quantization: Quantization,
    folder: &Path,
) -> Result<PathBuf, WorkerError> {
    let path = folder.join(format!("{}-{quantization}.gguf", model.id));
    let request =
        MakeRequest { spec: ModelSpec::from(model), quantization, path: path.clone(), weights: Weights::HeaderOnly };
    make_model(command, request).await?;
    Ok(path)
}
