//! The parent's side of engine workers: child processes in which llama.cpp runs.
//!
//! Owns: starting a worker, talking to it over its pipes, deadlines, and what is known when it dies. A malformed file, an
//! abort or an out-of-memory ends a worker, never this process. It does not know what a worker does inside.
//!
//! Entry points: the one-shot jobs [`devices`], [`size`], [`quantize`], [`quality`], [`bench`], each a child of its own that is killed
//! when the future is dropped; and [`Generator`], a long-lived child that holds a model and answers.

mod chat;
mod command;
mod convert;
mod earlier_build;
mod error;
mod generator;
mod jobs;
mod log;
mod make;
mod process;
mod profile;
mod quality;
mod quantize;

pub use chat::{
    ChatRequest, FinishReason, GenerateError, GenerationEvent, ResponseFormat, Sampling, ToolCallDelta, ToolChoice,
};
pub use command::WorkerCommand;
pub use earlier_build::EarlierBuild;
pub use error::WorkerError;
pub use generator::{GenerationStream, Generator, LoadRequest, Loaded};
pub use jobs::{
    BenchEvent, BenchRequest, Graphs, Layout, Outputs, PhantomBackend, PhantomDevice, Placement, SizeOptions,
    SizeRequest, Sized, TensorOverride, bench, devices, size,
};
pub use make::{Made, MakeRequest, Weights, make_model};
pub use profile::{ProfileBackend, ProfileDepth, ProfileRequest, profile};
pub use quality::{QualityFound, QualityProgress, QualityRequest, quality};
pub use quantize::{QuantizeProgress, QuantizeRequest, quantize};
