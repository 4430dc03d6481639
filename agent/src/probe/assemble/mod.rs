//! [`assemble`]: the raw answers of all probes → every GPU once, the chassis, and what could not be read.
//!
//! Pure: the same answers give the same machine, on whatever system it runs. Each source's answers become sightings
//! ([`sight`]), sightings of one GPU are joined ([`join`]), what they say is taken by rank of the source ([`gpu`]), and what
//! keeps llama.cpp from a GPU is named ([`obstacle`]).

mod chassis;
mod engine;
mod failures;
mod gpu;
mod join;
mod obstacle;
mod sight;
#[cfg(test)]
mod tests;

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
    let mut parts = join::parts(raw);
    let devices = engine::devices(raw, &mut parts);
    let gpus: Vec<Gpu> = parts.iter().flat_map(|part| gpu::gpus(raw, part)).collect();
    let remote_adapter = raw.dxgi.ok().is_some_and(|adapters| adapters.iter().any(|adapter| adapter.remote));
    let failures = failures::failures(raw, &parts, &gpus);
    Assembled {
        chassis: chassis::chassis(raw),
        remote_session: Some(raw.session.remote.is_some() || remote_adapter),
        devices,
        failures,
        gpus,
    }
}
