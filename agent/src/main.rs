//! The program `muster-agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: this executable is also its own engine worker, and its own probes and measures.
    match std::env::args_os().nth(1) {
        Some(argument) if argument == muster_engine::WORKER_ARGUMENT => muster_engine::worker_main(),
        Some(argument) if argument == muster_agent::probe::child::ARGUMENT => muster_agent::probe::child::main(),
        Some(argument) if argument == muster_agent::bench::parts::ARGUMENT => muster_agent::bench::parts::main(),
        _ => muster_agent::cli::run(),
    }
}
