//! What is free on NVIDIA's cards, from a process that keeps the library open ([`KeptProbe`](super::kept::KeptProbe)).

use std::process::ExitCode;

use muster_proto::Bytes;
use nvml_wrapper::Nvml;
use serde::{Deserialize, Serialize};

use super::{kept, nvml};

/// The probe's name.
pub const NAME: &str = "nvml-free";

/// What NVML knows a device by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// llama.cpp's name of it, under which it is answered.
    pub name: String,
    /// PCI address.
    pub bus: String,
    /// What tells MIG slices of one card apart.
    pub uuid: Option<String>,
}

/// Free memory of one card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// As it was asked for.
    pub name: String,
    /// Free bytes.
    pub free: Bytes,
}

/// The probe's process: each question is a list of [`Card`]s, each answer one of [`Free`], without cards that are not there.
pub fn serve() -> ExitCode {
    let Ok(nvml) = nvml::open() else { return ExitCode::FAILURE };
    kept::serve(|question| {
        let cards: Vec<Card> = serde_json::from_str(question).ok()?;
        Some(cards.iter().filter_map(|card| card.read(&nvml)).collect::<Vec<Free>>())
    })
}

impl Card {
    /// By its UUID, else by its address.
    fn read(&self, nvml: &Nvml) -> Option<Free> {
        let by_uuid = self.uuid.as_deref().and_then(|uuid| nvml.device_by_uuid(uuid).ok());
        let device = by_uuid.or_else(|| nvml.device_by_pci_bus_id(self.bus.as_str()).ok())?;
        Some(Free { name: self.name.clone(), free: Bytes::new(device.memory_info().ok()?.free) })
    }
}
