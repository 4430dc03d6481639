//! [`Layout`]: the figures of one dry run set against what the devices have.

use muster_proto::{Bytes, DeviceMemory, EstimatedDevice, EstimatedHost};

use super::device::{backend_name, phantom_name};
use super::places::on_host;
use super::{Question, TargetDevice};
use crate::gguf::GgufHeader;
use crate::surcharge::surcharge;
use crate::worker::Sized;

/// One dry run, against the devices of the question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    pub sized: Sized,
    /// In the order of the question, all of them.
    pub devices: Vec<EstimatedDevice>,
    pub host: EstimatedHost,
}

impl Layout {
    pub fn new(question: &Question, sized: Sized) -> Self {
        let device = |(index, device): (usize, &TargetDevice)| {
            let name = phantom_name(index);
            let need = sized.need.devices.iter().find(|need| need.name == name);
            let bytes = |part: fn(&DeviceMemory) -> Bytes| need.map_or(Bytes::ZERO, part);
            let mut estimated = EstimatedDevice {
                name: device.name.clone(),
                description: device.description.clone(),
                backend: backend_name(device.backend).to_owned(),
                memory_bytes: device.memory,
                model_bytes: bytes(|need| need.model),
                context_bytes: bytes(|need| need.context),
                compute_bytes: bytes(|need| need.compute),
                // A device that gets nothing is not started, and its driver takes nothing.
                driver_bytes: need.map(|_| driver(device)),
                free_bytes: Bytes::ZERO,
                short_bytes: Bytes::ZERO,
                layers: match &sized.layout.split[..] {
                    [] if index == 0 => sized.gpu_layers,
                    split => split.get(index).map_or(0, |layers| whole(*layers)),
                },
            };
            estimated.free_bytes = estimated.memory_bytes.saturating_sub(estimated.used());
            estimated.short_bytes = estimated.used().saturating_sub(estimated.memory_bytes);
            estimated
        };
        let devices = question.devices.iter().enumerate().map(device).collect();
        let host = EstimatedHost {
            memory_bytes: question.host_memory,
            model_bytes: sized.need.host.model,
            context_bytes: sized.need.host.context,
            compute_bytes: sized.need.host.compute,
        };
        Self { sized, devices, host }
    }

    /// Layers on devices of which a part is in main memory.
    pub fn partial(&self, header: &GgufHeader) -> u32 {
        if self.devices.is_empty() { 0 } else { on_host(header, &self.sized).partial_layers }
    }

    /// What main memory misses.
    pub fn host_short(&self) -> Bytes {
        self.host.memory_bytes.map_or(Bytes::ZERO, |memory| self.host.used().saturating_sub(memory))
    }

    /// What the devices miss, together.
    pub fn devices_short(&self) -> Bytes {
        self.devices.iter().map(|device| device.short_bytes).sum()
    }

    /// What is missing everywhere, together.
    pub fn short(&self) -> Bytes {
        self.devices_short() + self.host_short()
    }

    pub fn fits(&self) -> bool {
        self.short() == Bytes::ZERO
    }

    /// Whether the weights alone fit everywhere.
    pub fn weights_fit(&self) -> bool {
        self.devices.iter().all(|device| device.model_bytes <= device.memory_bytes)
            && self.host.memory_bytes.is_none_or(|memory| self.host.model_bytes <= memory)
    }

    /// Whether it leaves a margin on each device, of which the driver takes its part as with llama.cpp's own; where there
    /// are no devices, in main memory.
    pub fn fits_with(&self, margin: Bytes) -> bool {
        self.fits() && self.excess(margin) <= 0
    }

    /// What is left where it is tightest: on the devices, or in main memory where there are none. Nothing if it does not
    /// fit, or nothing is known.
    pub fn spare(&self) -> Option<Bytes> {
        if !self.fits() {
            return None;
        }
        match self.devices.iter().map(|device| device.free_bytes).min() {
            Some(spare) => Some(spare),
            None => self.host.memory_bytes.map(|memory| memory.saturating_sub(self.host.used())),
        }
    }

    /// How much must go where it is tightest before it leaves a margin; negative where more is left.
    pub fn excess(&self, margin: Bytes) -> i128 {
        let over = |used: Bytes, kept: Bytes, memory: Bytes| {
            i128::from(used.get()) + i128::from(kept.get()) - i128::from(memory.get())
        };
        if self.devices.is_empty() {
            return self.host.memory_bytes.map_or(i128::MIN, |memory| over(self.host.used(), margin, memory));
        }
        let of_device = |device: &EstimatedDevice| {
            let driver = device.driver_bytes.unwrap_or(Bytes::ZERO);
            let buffers = device.used().saturating_sub(driver);
            over(buffers, margin.max(driver), device.memory_bytes)
        };
        self.devices.iter().map(of_device).max().unwrap_or(i128::MIN)
    }
}

/// A number of layers, which the split holds as a float.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
fn whole(layers: f32) -> u32 {
    layers.round() as u32
}

/// What a device's driver takes beside the buffers: what is to be reckoned with before anything was measured there.
fn driver(device: &TargetDevice) -> Bytes {
    surcharge(device.backend).expected
}
