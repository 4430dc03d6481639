//! The gate: what it takes, what it refuses and in which words, published attacks, models in several files, fuzzing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod accepted;
mod attacks;
mod files;
mod fuzz;
mod raw;
mod refused;
mod roundtrip;
mod workers;

use muster_engine::gguf::fuzz_one;

/// Why the gate refuses this; one line, or the test fails.
fn refusal(bytes: &[u8]) -> String {
    fuzz_one(bytes).expect_err("this should be refused").to_string()
}
