//! Sizing profiles, made by a worker.

use std::path::PathBuf;

use super::jobs::{PhantomDevice, Step, once};
use super::{WorkerCommand, WorkerError, convert};
use crate::wire::{self, from_worker::Reply, to_worker::Request};

/// An artifact to profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRequest {
    /// The file; its header is enough, so it may be sparse.
    pub path: PathBuf,
    /// A device of the kind.
    pub device: PhantomDevice,
}

/// Makes it.
pub async fn profile(command: &WorkerCommand, request: ProfileRequest) -> Result<Vec<u8>, WorkerError> {
    let request =
        wire::Profile { path: convert::path(&request.path), phantom: Some(convert::phantom(&request.device)), devices: 1 };
    once(command, Request::Profile(request), |reply| match reply {
        Reply::Profiled(profiled) => Step::Done(profiled.profile),
        Reply::Progress(_) => Step::More,
        _ => Step::Unexpected,
    })
    .await
}
