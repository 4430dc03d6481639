//! What the owner's own programs usually take of this machine's memory: sampled lightly, counted, summed up.
//!
//! [`Sampler`] looks once a minute while the machine is awake; [`History`] counts what it sees by day and knows the 95th
//! percentile; `devices` reads what is free on GPUs without starting a worker. Models of this agent count as free memory
//! throughout. None of it knows what the figures are used for.

mod devices;
mod history;
mod sampler;

pub use history::{History, Level, Sample};
pub use sampler::Sampler;
