//! [`quantize`]: a file of weights as they were trained becomes a smaller one.

use std::path::PathBuf;

use super::jobs::{Step, once};
use super::{WorkerCommand, WorkerError, convert};
use crate::maker::Quantization;
use crate::wire::{self, from_worker::Reply, to_worker::Request};

/// A file to quantize.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuantizeRequest {
    /// From.
    pub source: PathBuf,
    /// To; must not exist. Until it is whole the file has this name with `.partial` behind it.
    pub target: PathBuf,
    /// llama.cpp's name of the quantization, e.g. `Q4_K_M`, as [`Quantization::from_name`] takes it.
    pub quantization: String,
    /// Threads to compute on; `None` takes all cores.
    pub threads: Option<u32>,
    /// An importance matrix, as llama.cpp's `llama-imatrix` writes it.
    pub imatrix: Option<PathBuf>,
    /// Take a source that is quantized already, whose losses the result then has too.
    pub requantize: bool,
    /// One type for all tensors, without llama.cpp's mixtures.
    pub pure: bool,
}

/// How far a quantization is.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizeProgress {
    /// Share of the file that is written, 0 to 1.
    pub fraction: f32,
    /// The tensor that is being quantized; empty at the end.
    pub tensor: String,
}

/// Quantizes a file. Dropping the future cancels: the worker is killed and the partial file removed.
///
/// # Errors
/// `Refused` where the source is damaged or quantized already, an importance matrix is missing or of another model, the disk
/// is too small or full, or in llama.cpp's words; whatever it is, no file is left.
pub async fn quantize(
    command: &WorkerCommand,
    request: QuantizeRequest,
    mut progress: impl FnMut(QuantizeProgress) + Send,
) -> Result<(), WorkerError> {
    let refused = |reason: String| WorkerError::Refused { reason };
    let quantization = Quantization::from_name(&request.quantization)
        .ok_or_else(|| refused(format!("llama.cpp makes no quantization {:?}", request.quantization)))?;
    if quantization.needs_importance() && request.imatrix.is_none() {
        return Err(refused(format!(
            "{} needs an importance matrix: make one with llama.cpp's llama-imatrix, or choose a type that needs none",
            quantization.name()
        )));
    }
    if request.target.exists() {
        return Err(refused(format!("{} exists already", request.target.display())));
    }
    let mut name = request.target.clone().into_os_string();
    name.push(".partial");
    let partial = Partial(PathBuf::from(name));
    let job = wire::Quantize {
        source: convert::path(&request.source),
        target: convert::path(&request.target),
        file_type: quantization.file_type().cast_signed(),
        threads: request.threads.unwrap_or(0),
        partial: convert::path(&partial.0),
        imatrix: request.imatrix.as_deref().map(convert::path),
        requantize: request.requantize,
        pure: request.pure,
    };
    once(command, Request::Quantize(job), |reply| match reply {
        Reply::Progress(step) => {
            progress(QuantizeProgress { fraction: step.fraction, tensor: step.step });
            Step::More
        }
        Reply::Done(wire::Done {}) => Step::Done(()),
        _ => Step::Unexpected,
    })
    .await
}

/// Removes what is not complete, however the job ends; a complete file has another name by then. The worker is dead or
/// about to be when this is dropped, since the future that held it was dropped before.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
