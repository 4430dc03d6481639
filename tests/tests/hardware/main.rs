//! Machines as their probes described them, and what must come of each: `tests/hardware/*.json`.
//!
//! Each file says where its answers are from and which quirks it stands for. [`assembled`] compares what the agent makes of
//! them; [`nvml`] runs NVIDIA's answers through a real library and the agent's real probe.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod assembled;
mod corpus;
mod nvml;
