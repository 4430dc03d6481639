//! Everything of Muster that touches llama.cpp and model files, behind a safe API.
//!
//! Owns: reading GGUF headers ([`gguf`]), the child processes in which llama.cpp runs ([`worker`]), models of random
//! weights ([`random_model`]), the maker of models of any architecture ([`maker`]) and the models that everybody knows
//! ([`mod@reference`]), known devices ([`device_table`]), the arithmetic of speed ([`speed`]), estimates of memory and speed
//! ([`mod@estimate`]), what a machine is ready for ([`readiness`]), the bundled model ([`bundled`]), and what both programs need of the local machine ([`host`]). It
//! does not know of controllers, policies or networks.
//!
//! No llama.cpp call ever happens in the process of an agent or a controller: [`worker`] starts the same executable again
//! as `… engine-worker`, which must call [`worker_main`] before anything else.

mod bench_models;
pub mod bundled;
mod child;
pub mod device_table;
mod divergence;
pub mod estimate;
mod ffi;
mod frame;
pub mod gguf;
pub mod host;
mod imatrix;
pub mod maker;
pub mod profile;
pub mod quality_text;
pub mod random_model;
pub mod readiness;
pub mod reference;
pub mod speed;
mod split_mix;
pub mod surcharge;
pub mod vulkan;
pub mod windows;
mod wire;
pub mod worker;

pub use child::worker_main;

/// The llama.cpp build that this crate drives, as inventories and benchmarks name it.
pub const BUILD: &str = "llama-cpp-sys-2 0.1.161";

/// The first argument that makes a program of Muster an engine worker: such a program must call [`worker_main`] then.
pub const WORKER_ARGUMENT: &str = "engine-worker";
