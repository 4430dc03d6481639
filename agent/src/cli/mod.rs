//! The program's commands. Each is a file; this one parses and starts the runtime.
//!
//! Exit codes: 0 fine, 1 an operational failure, 2 wrong usage.

mod args;
mod audit;
mod bench;
mod chat;
mod enrol;
mod output;
mod ps;
mod run;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Args, Command};
use output::Output;

use crate::config::FileConfig;
use crate::state::Paths;

/// What every command gets.
#[derive(Debug)]
struct Context {
    paths: Paths,
    file: FileConfig,
    output: Output,
}

/// Parses the command line and does what it says.
pub fn run() -> ExitCode {
    let args = Args::parse();
    if let Command::Completions { shell } = args.command {
        clap_complete::generate(shell, &mut Args::command(), "muster-agent", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    match dispatch(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", output::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: Args) -> anyhow::Result<ExitCode> {
    let paths = Paths::new(args.state.clone().unwrap_or_else(crate::state::default_root));
    let file = match &args.config {
        Some(path) => FileConfig::read(path, true)?,
        None => FileConfig::read(&paths.default_config(), false)?,
    };
    output::log_to_stderr(&args);
    let context = Context { paths, file, output: Output::new(args.json, args.color) };
    // Two threads: one may hash or write while the other moves bytes. An idle agent needs neither.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Enrol(enrol) => enrol::run(context, enrol).await,
            Command::Run(flags) => run::run(context, flags).await,
            Command::Status => status::run(&context).await,
            Command::Chat(chat) => chat::run(&context, chat).await,
            Command::Audit(args) => audit::run(context, args).await,
            Command::Bench(bench) => bench::run(context, bench).await,
            Command::Ps => ps::run(&context).await,
            Command::Completions { .. } => Ok(ExitCode::SUCCESS),
        }
    })
}
