//! The operator's command line: one file for each command. Holds no logic of the controller; all but `serve` speak to a
//! running one over its socket or TLS, `estimate` only where it has to.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bad model file.

mod admin;
mod args;
mod bench;
mod connect;
mod estimate;
mod events;
mod machines;
mod models;
mod output;
mod plan;
mod policy;
mod serve;
mod status;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use muster_proto::wire::{self, ConversionError};
use tonic::{Code, Status};

use crate::rpc::BAD_MODEL_METADATA;
use args::{Cli, Command};
use output::Output;

/// Why a command failed, as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// An operational failure.
    fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// Wrong usage.
    fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// A model that is not there or cannot be used.
    fn model(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// An operational failure with its causes.
    fn of<E: std::error::Error + ?Sized>(error: &E) -> Self {
        Self::new(crate::error_chain(error))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let code = if status.metadata().contains_key(BAD_MODEL_METADATA) { 3 } else { 1 };
        let message = match status.code() {
            // What the transport itself says is in the sources.
            Code::Unknown | Code::Unavailable | Code::Cancelled if status.message().contains("error") => {
                format!("the connection to the controller broke: {}", crate::error_chain(&status))
            }
            _ => status.message().to_owned(),
        };
        Self { code, message }
    }
}

impl From<ConversionError> for Failure {
    fn from(error: ConversionError) -> Self {
        Self::new(format!("the controller's answer cannot be read: {error}; is it of another version?"))
    }
}

/// Parses the arguments, runs the command and says how it went.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(&cli.global);
    match run(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.error(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "muster", &mut std::io::stdout());
            Ok(())
        }
        Command::Serve(serve) => serve::run(&global, &serve),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
            runtime.block_on(ask(&global, command, output))
        }
    }
}

async fn ask(global: &args::Global, command: Command, output: &Output) -> Result<(), Failure> {
    if let Command::Models(args::ModelsCommand::Import { name, making, .. }) = &command {
        models::check_usage(name.as_deref(), &making.quantize, making.imatrix.as_deref())?;
    }
    if let Command::Models(args::ModelsCommand::Quantize { quantize, imatrix, .. }) = &command {
        models::check_usage(None, quantize, imatrix.as_deref())?;
    }
    if let Command::Estimate(arguments) = command {
        return estimate::run(global, &arguments, output).await;
    }
    let mut client = connect::connect(global).await?;
    match command {
        Command::Token(command) => token::run(&mut client, command, output).await,
        Command::Machines(command) => machines::run(&mut client, command, output).await,
        Command::Bench(arguments) => bench::run(&mut client, arguments, output).await,
        Command::Models(command) => models::run(&mut client, command, output).await,
        Command::Policy(command) => policy::run(&mut client, command, output).await,
        Command::Plan(args::PlanCommand::Show { machine }) => plan::show(&mut client, machine, output).await,
        Command::Status => status::show(&mut client, output).await,
        Command::Events(arguments) => events::list(&mut client, &arguments, output).await,
        Command::Admin(command) => admin::run(&mut client, command, output).await,
        Command::Serve(_) | Command::Completions { .. } | Command::Estimate(_) => {
            unreachable!("done without a connection")
        }
    }
}

/// A record that an answer must have.
fn there<T>(record: Option<T>, what: &str) -> Result<T, Failure> {
    record.ok_or_else(|| Failure::new(format!("the controller's answer cannot be read: {what} is missing")))
}

/// Where the controller of this host keeps its data unless told otherwise.
fn default_data() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/muster"));
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    let base =
        base.ok_or_else(|| Failure::usage("neither HOME nor XDG_DATA_HOME is set: say where with --data DIR"))?;
    Ok(base.join("muster"))
}

fn data(global: &args::Global) -> Result<PathBuf, Failure> {
    global.data.clone().map_or_else(default_data, Ok)
}

/// The client that every command speaks through.
type Client = wire::admin_client::AdminClient<tonic::transport::Channel>;
