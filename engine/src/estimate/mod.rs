//! From a question (this model, on these devices, with these settings) to an [`Estimate`]: what goes where, whether it
//! fits, how fast it runs, and what would fit instead.
//!
//! Owns: which dry runs to ask for and what their figures mean together. The figures themselves are llama.cpp's
//! ([`worker::size`](crate::worker::size)). It prints nothing, and knows neither catalogs nor controllers: whoever asks
//! finds the model's file and the devices first.
//!
//! Entry points: [`answer`]; [`TargetDevice`] for what a device is.

mod alternatives;
mod answer;
mod device;
mod error;
mod known;
mod layout;
mod places;
mod question;
mod sentence;
mod speed;

pub use answer::answer;
pub use device::{DeviceError, MOST_DEVICES, TargetDevice, backend_of, gpus, machine_devices};
pub use error::EstimateError;
pub use known::{default_backend, memory_note, usable_memory};
pub use question::{ExpertsOnHost, GpuLayers, Question, Sibling, SiblingFile};

#[cfg(doc)]
use muster_proto::Estimate;
