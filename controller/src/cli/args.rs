//! The command line's form.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{WrittenBytes, WrittenDuration};

/// Runs the controller, and is the operator's command line for it.
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    about,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Data directory of the controller on this host [default: /var/lib/muster as root, else the user's data directory]
    #[arg(long, value_name = "DIR", env = "MUSTER_DATA", global = true)]
    pub data: Option<PathBuf>,
    /// Configuration file [default: DIR/muster.toml if it is there]
    #[arg(long, value_name = "FILE", env = "MUSTER_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// A controller on another host
    #[arg(long, value_name = "HOST:PORT", env = "MUSTER_CONTROLLER", global = true, requires = "identity")]
    pub controller: Option<String>,
    /// Directory with key.pem, cert.pem and ca.pem, as made by `muster admin add`
    #[arg(long, value_name = "DIR", env = "MUSTER_IDENTITY", global = true)]
    pub identity: Option<PathBuf>,
    /// When to write colours
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, env = "MUSTER_COLOR", global = true)]
    pub color: ColorChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the controller
    Serve(ServeArgs),
    /// Tokens with which machines enrol
    #[command(subcommand)]
    Token(TokenCommand),
    /// Enrolled machines
    #[command(subcommand)]
    Machines(MachinesCommand),
    /// Models of the catalog
    #[command(subcommand)]
    Models(ModelsCommand),
    /// What machines should get
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What was decided, and why
    #[command(subcommand)]
    Plan(PlanCommand),
    /// How the controller is doing
    Status,
    /// What happened: the audit log
    Events(EventsArgs),
    /// Operators with a certificate
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Where agents and remote operators connect; port 0 takes a free one [default: 0.0.0.0:7433]
    #[arg(long, value_name = "ADDR", env = "MUSTER_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// How long a machine's certificate lasts; agents renew at half of it [default: 24h]
    #[arg(long, value_name = "DURATION", env = "MUSTER_CERTIFICATE_LIFETIME")]
    pub certificate_lifetime: Option<WrittenDuration>,
    /// What must stay free on the volume of the model files [default: 256MiB]
    #[arg(long, value_name = "SIZE", env = "MUSTER_BLOB_RESERVE")]
    pub blob_reserve: Option<WrittenBytes>,
    /// Connections at the same time [default: 20000]
    #[arg(long, value_name = "N", env = "MUSTER_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is shown this once
    Create {
        /// How many machines may enrol with it
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        uses: u32,
        /// How long it is good for, e.g. 24h, 90m, 7d
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        expires: WrittenDuration,
        /// Machines wait until an operator accepts them
        #[arg(long)]
        needs_acceptance: bool,
    },
    /// List tokens, without their secrets
    List,
    /// Take a token back; machines that enrolled with it stay
    Revoke {
        /// Its id, or a prefix that is unique
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum MachinesCommand {
    /// List machines
    List,
    /// Show one machine: what it is, what it runs, predicted and measured
    Show {
        /// Hostname, id, or a prefix of the id that is unique
        machine: String,
    },
    /// Let a pending machine in
    Accept {
        /// Hostname, id, or a prefix of the id that is unique
        machine: String,
        /// Turn it away instead
        #[arg(long)]
        reject: bool,
    },
    /// Cut a machine off for good
    Revoke {
        /// Hostname, id, or a prefix of the id that is unique
        machine: String,
    },
}

/// What an import makes of its file.
#[derive(Clone, Debug, Args)]
pub(super) struct Making {
    /// Quantizations to make from it, e.g. Q8_0,Q4_K_M
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub quantize: Vec<String>,
    /// An importance matrix for them, as llama.cpp's llama-imatrix makes it
    #[arg(long, value_name = "FILE", requires = "quantize")]
    pub imatrix: Option<PathBuf>,
    /// Do not measure how far they are from the file
    #[arg(long, requires = "quantize")]
    pub no_quality: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// Bring GGUF files into the catalog
    Import {
        /// A GGUF file, or a directory of them
        #[arg(value_name = "FILE|DIR", required_unless_present = "bundled")]
        path: Option<PathBuf>,
        /// Take the small model that ships with the controller
        #[arg(long, conflicts_with = "path")]
        bundled: bool,
        /// Name in the catalog [default: the file's own]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        making: Making,
    },
    /// Make quantizations of a model that is in the catalog, and measure those that were not
    Quantize {
        /// Its name
        name: String,
        /// What to make, e.g. Q8_0 Q4_K_M
        #[arg(value_name = "TYPE", required = true, value_delimiter = ',')]
        quantize: Vec<String>,
        /// An importance matrix, as llama.cpp's llama-imatrix makes it
        #[arg(long, value_name = "FILE")]
        imatrix: Option<PathBuf>,
        /// Do not measure how far the results are from the source
        #[arg(long)]
        no_quality: bool,
        /// Take a source that is quantized already, where there is no other
        #[arg(long)]
        requantize: bool,
    },
    /// List models
    List,
    /// Show one model and its files
    Show {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Put a policy in force
    Apply {
        /// A TOML file, or - for standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Show the policy in force
    Show,
}

#[derive(Debug, Subcommand)]
pub(super) enum PlanCommand {
    /// Show what was decided
    Show {
        /// For this machine only: hostname, id, or a prefix of the id that is unique
        machine: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Only those after this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub after: u64,
}

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Make a key and a certificate with which an operator works from elsewhere
    Add {
        /// Who
        name: String,
        /// Where to write key.pem, cert.pem and ca.pem [default: muster-NAME]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// List operators
    List,
    /// Take an operator's certificate back
    Revoke {
        /// Who
        name: String,
    },
}
