//! `muster`: the controller and the operator's command line. Parses and calls.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == muster_engine::WORKER_ARGUMENT) {
        return muster_engine::worker_main();
    }
    muster_controller::cli::main()
}
