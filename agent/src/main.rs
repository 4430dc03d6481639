//! The program `muster-agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: this executable is also its own engine worker.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == muster_engine::WORKER_ARGUMENT) {
        return muster_engine::worker_main();
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == muster_agent::bench::parts::ARGUMENT) {
        return muster_agent::bench::parts::main();
    }
    muster_agent::cli::run()
}
