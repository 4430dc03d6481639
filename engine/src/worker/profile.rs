//! The job that makes a sizing profile.

use std::path::PathBuf;

use muster_proto::Bytes;

use super::jobs::{PhantomDevice, Step, once};
use super::{PhantomBackend, WorkerCommand, WorkerError, convert};
use crate::gguf::GgufHeader;
use crate::profile::SizingProfile;
use crate::profile::survey::Survey;
use crate::wire::{self, from_worker::Reply, to_worker::Request};

/// An artifact to profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRequest {
    /// The file; its header is enough, so it may be sparse.
    pub path: PathBuf,
    /// For which kind of GPU; `None` for the CPU alone.
    pub backend: Option<ProfileBackend>,
    /// For which placements.
    pub depth: ProfileDepth,
}

/// For which placements a profile is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileDepth {
    /// None: weights and caches alone.
    Weights,
    /// All layers on one GPU, or none.
    Whole,
    /// Some layers, and experts on the host, as well.
    Parts,
    /// The same over several GPUs as well.
    Several,
}

/// A kind of GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileBackend {
    /// Whose rules hold.
    pub backend: PhantomBackend,
    /// Its generation: [`PhantomDevice::capability`].
    pub capability: Option<u32>,
}

impl ProfileBackend {
    /// How a profile names it, e.g. `cuda-890`; `cuda` for a common generation.
    pub fn key(self) -> String {
        let name = match self.backend {
            PhantomBackend::Cuda => "cuda",
            PhantomBackend::Vulkan => "vulkan",
            PhantomBackend::Metal => "metal",
            PhantomBackend::Rocm => "rocm",
        };
        self.capability.map_or_else(|| name.to_owned(), |capability| format!("{name}-{capability}"))
    }
}

/// Makes the sizing profile of an artifact, in one worker for a single GPU and another, at the same time, for several.
/// `progress` gets the share that is done, 0 to 1. Dropping the future cancels.
///
/// # Errors
/// `Refused` with llama.cpp's words for a file that it does not take.
pub async fn profile(
    command: &WorkerCommand,
    request: ProfileRequest,
    mut progress: impl FnMut(f32) + Send,
) -> Result<SizingProfile, WorkerError> {
    let header = GgufHeader::read(&request.path).map_err(|error| WorkerError::Refused { reason: error.to_string() })?;
    let architecture = header.architecture().to_owned();
    let one = surveyed(command, &request, 1, &mut progress);
    let (one, several) = if request.depth == ProfileDepth::Several && request.backend.is_some() {
        let several = surveyed(command, &request, 3, |_| ());
        let (one, several) = tokio::try_join!(one, several)?;
        (one, Some(several))
    } else {
        (one.await?, None)
    };
    let key = request.backend.map_or_else(|| "cpu".to_owned(), ProfileBackend::key);
    Ok(SizingProfile::new(key, architecture, one, several))
}

/// A survey. Where an assertion of llama.cpp's ends the worker, one without quantized caches: with them its graphs of some
/// models (phi-4) are larger than it allows, and it ends the same way when such a model is loaded.
async fn surveyed(
    command: &WorkerCommand,
    request: &ProfileRequest,
    devices: u32,
    mut progress: impl FnMut(f32) + Send,
) -> Result<Survey, WorkerError> {
    match survey(command, request, devices, false, &mut progress).await {
        Err(WorkerError::Died { assertion: Some(_), .. }) => {
            survey(command, request, devices, true, &mut progress).await
        }
        other => other,
    }
}

async fn survey(
    command: &WorkerCommand,
    request: &ProfileRequest,
    devices: u32,
    f16_only: bool,
    mut progress: impl FnMut(f32) + Send,
) -> Result<Survey, WorkerError> {
    let phantom = request.backend.map(|kind| PhantomDevice {
        capability: kind.capability,
        // The worker names them and says how much they have.
        ..PhantomDevice::new("GPU", kind.backend, Bytes::ZERO)
    });
    let job = wire::Profile {
        path: convert::path(&request.path),
        phantom: phantom.as_ref().map(convert::phantom),
        devices,
        depth: match request.depth {
            ProfileDepth::Weights => 0,
            ProfileDepth::Whole => 1,
            ProfileDepth::Parts | ProfileDepth::Several => 2,
        },
        f16_only,
    };
    let survey = once(command, Request::Profile(job), |reply| match reply {
        Reply::Profiled(profiled) => Step::Done(profiled.profile),
        Reply::Progress(step) => {
            progress(step.fraction);
            Step::More
        }
        _ => Step::Unexpected,
    })
    .await?;
    serde_json::from_slice(&survey)
        .map_err(|error| WorkerError::Protocol { detail: format!("its survey cannot be read: {error}") })
}
