//! Machines as their probes described them, and what must come of each: `tests/hardware/*.json`.
//!
//! Each file says where its answers are from and which quirks it stands for. [`assembled`] compares what the agent makes of
//! them; [`nvml`] runs NVIDIA's answers through a real library and the agent's real probe. A new machine is what
//! `muster-agent probe machine` prints there, as `raw`, with the names of host and user replaced and its provenance.
#![allow(clippy::unwrap_used, reason = "tests")]

mod assembled;
mod corpus;
mod nvml;
