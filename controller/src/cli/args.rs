//! The command line's form.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::estimate::{WrittenDevice, WrittenExperts, WrittenLayers, WrittenSize};
use crate::config::{DEFAULT_METRICS_LISTEN, WrittenBytes, WrittenDuration};

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
    /// Measure how fast machines are
    ///
    /// An order waits until its machine is online, for a day at most. A machine measures once at a time: an order joins one
    /// that is open, unless it wants more.
    Bench(BenchArgs),
    /// Models of the catalog
    #[command(subcommand)]
    Models(ModelsCommand),
    /// What machines should get
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What was decided, and why
    #[command(subcommand)]
    Plan(PlanCommand),
    /// What the fleet can do
    #[command(subcommand)]
    Report(ReportCommand),
    /// How the controller is doing
    Status,
    /// What a model takes in memory, where it goes, and how fast it runs: on any GPU, with none at hand
    Estimate(Box<EstimateArgs>),
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
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct BenchArgs {
    /// Hostname, id, or a prefix of the id that is unique
    #[arg(value_name = "MACHINE", required_unless_present_any = ["group", "all"], conflicts_with = "all")]
    pub machines: Vec<String>,
    /// Every machine of this group
    #[arg(long, value_name = "GROUP", conflicts_with = "all")]
    pub group: Option<String>,
    /// Every accepted machine
    #[arg(long)]
    pub all: bool,
    /// A few seconds only
    #[arg(long)]
    pub quick: bool,
    /// With minutes of load
    #[arg(long, conflicts_with = "quick")]
    pub full: bool,
    /// Wait for the results, and fail if one does not come
    #[arg(long)]
    pub wait: bool,
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
    /// Where figures for Prometheus are served, over plain HTTP at /metrics; without ADDR 127.0.0.1:7434 [default: nowhere]
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = DEFAULT_METRICS_LISTEN,
        env = "MUSTER_METRICS_LISTEN"
    )]
    pub metrics_listen: Option<SocketAddr>,
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
        /// Machines that enrol with it join this group; repeat it for several
        #[arg(long, value_name = "GROUP")]
        group: Vec<String>,
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
    /// Put a machine into groups, or take it out of them
    Group {
        /// Hostname, id, or a prefix of the id that is unique
        machine: String,
        /// A group to put it into; repeat it for several
        #[arg(long, value_name = "GROUP", required_unless_present = "remove")]
        add: Vec<String>,
        /// A group to take it out of; repeat it for several
        #[arg(long, value_name = "GROUP")]
        remove: Vec<String>,
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

#[derive(Debug, Subcommand)]
pub(super) enum ReportCommand {
    /// Which machines are ready for a role, with which model, and what stands in the way of the others
    Readiness(ReadinessArgs),
}

#[derive(Debug, Args)]
#[command(after_long_help = READINESS_AFTER)]
pub(super) struct ReadinessArgs {
    /// What machines should do: chat, chat-14b, chat-32b, chat-70b, code or embed
    #[arg(long, value_name = "ROLE", default_value = "chat")]
    pub role: String,
    /// Only machines of this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// The form [default: what FILE ends with, json with --json, else table]
    #[arg(long, value_enum)]
    pub format: Option<ReportFormat>,
    /// Write to this file
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What if so much main memory were added to each machine that is not ready, e.g. 16GiB
    #[arg(long, value_name = "SIZE", help_heading = "What if")]
    pub add_memory: Option<WrittenSize>,
    /// What if this card were in each desk that is not ready, in place of what is there
    #[arg(long, value_name = "NAME", help_heading = "What if")]
    pub gpu: Option<String>,
    /// What if all GPUs that cannot be used could be: drivers, rights, backends
    #[arg(long, help_heading = "What if")]
    pub fix_drivers: bool,
}

const READINESS_AFTER: &str = "\
Examples:
  muster report readiness
  muster report readiness --role code --group berlin --output readiness.html
  muster report readiness --role chat-14b --output readiness.xlsx
  muster report readiness --gpu \"RTX 4060 Ti 16GB\" --add-memory 16GiB";

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// For a terminal
    Table,
    /// Everything, for programs
    Json,
    /// One line for each machine
    Csv,
    /// A workbook: summary, machines, GPUs, models
    Xlsx,
    /// One page with charts, for reading and printing
    Html,
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

/// Nothing is loaded: llama.cpp itself sizes the model on devices that are only imagined. No controller needs to run,
/// unless MODEL is of its catalog or --machine names one of its machines.
#[derive(Debug, Args)]
#[command(after_long_help = ESTIMATE_AFTER)]
pub(super) struct EstimateArgs {
    /// A GGUF file (its header is enough), a reference model (llama-3.1-8b:Q4_K_M), or a model of the catalog
    /// (NAME or NAME:QUANTIZATION)
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// A GPU with this much memory for models, e.g. gpu0=24GiB or gpu1=81920MiB; repeat it for several. Units are powers
    /// of 1024, and one must be written
    #[arg(long, value_name = "NAME=SIZE", help_heading = "Devices")]
    pub device: Vec<WrittenDevice>,
    /// A known device by its name, e.g. "RTX 4090" or "Apple M4 Max 40c"; with --device it says what those devices are
    #[arg(long, value_name = "DEVICE", help_heading = "Devices")]
    pub on: Option<String>,
    /// An enrolled machine, with the memory that is free there: hostname, id, or a prefix of the id that is unique
    #[arg(long, value_name = "NAME", conflicts_with_all = ["device", "on", "backend", "host"], help_heading = "Devices")]
    pub machine: Option<String>,
    /// The backend that drives the devices [default: that of the device with --on, else cuda]
    #[arg(long, value_enum, help_heading = "Devices")]
    pub backend: Option<Backend>,
    /// Main memory that models can have, e.g. 32GiB [default: not judged; without a device, this machine's]
    #[arg(long, value_name = "SIZE", help_heading = "Devices")]
    pub host: Option<WrittenSize>,

    /// Context over all sequences, as llama-server -c [default: what the model was trained with, or as much of it as
    /// fits, 4096 at least]
    // Past it llama.cpp's list of cells alone takes gigabytes of main memory, in a dry run too.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_777_216), help_heading = "Settings")]
    pub ctx: Option<u32>,
    /// Sequences answered at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256), help_heading = "Settings")]
    pub parallel: u32,
    /// Tokens submitted at once
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1_048_576), help_heading = "Settings")]
    pub batch: u32,
    /// Tokens computed at once
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_048_576), help_heading = "Settings")]
    pub ubatch: u32,
    /// Type of the KV cache
    #[arg(long, value_enum, default_value_t = KvCacheType::F16, help_heading = "Settings")]
    pub kv_type: KvCacheType,
    /// One KV cache that all sequences share
    #[arg(long, help_heading = "Settings")]
    pub kv_unified: bool,
    /// Fused attention
    #[arg(long, value_enum, default_value_t = FlashAttn::Auto, help_heading = "Settings")]
    pub flash_attn: FlashAttn,
    /// Logits that are reserved: for each token of a micro-batch, as llama.cpp's own programs do, or one for each
    /// sequence, as Muster's engine does [default: micro-batch; with --machine, sequence]
    #[arg(long, value_enum, help_heading = "Settings")]
    pub outputs: Option<OutputRows>,
    /// Whose compute graphs are counted on devices: those of the llama.cpp builds whose logs are public, or those of the
    /// build in Muster's engine, which reserve some MiB more [default: earlier; with --machine or --outputs sequence,
    /// this-build]
    #[arg(long, value_enum, help_heading = "Settings")]
    pub graphs: Option<ComputeGraphs>,

    /// Layers on the devices, the output counted as one: a number, all, or auto, which is llama.cpp's own fit
    #[arg(long, value_name = "N|all|auto", default_value = "auto", help_heading = "Placement")]
    pub gpu_layers: WrittenLayers,
    /// Keep the experts of the first N layers in main memory, of all layers without N
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "all", help_heading = "Placement")]
    pub cpu_moe: Option<WrittenExperts>,
    /// What the fit leaves free on each device
    #[arg(long, value_name = "SIZE", default_value = "1GiB", help_heading = "Placement")]
    pub margin: WrittenSize,

    /// Context that is filled already, for the speed
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2_147_483_647), help_heading = "Speed")]
    pub depth: u32,
}

const ESTIMATE_AFTER: &str = "\
Examples:
  muster estimate llama-3.1-8b:Q4_K_M --on \"RTX 4090\"
  muster estimate model.gguf --device gpu0=24GiB --device gpu1=16GiB --ctx 32768
  muster estimate qwen3-30b-a3b --device gpu0=12GiB --cpu-moe --json

MODEL is looked for as a file, then as a reference model, then in the catalog of the controller, if one can be reached.

Exit codes: 0 there is an estimate, whether or not it fits; 1 failed; 2 wrong usage; 3 no such model, or a bad model file.";

/// A backend of llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    /// NVIDIA
    Cuda,
    /// Any vendor
    Vulkan,
    /// AMD
    Rocm,
    /// Apple
    Metal,
    /// No GPU
    Cpu,
}

/// Type of a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum KvCacheType {
    /// 16-bit floats
    #[value(name = "f16")]
    F16,
    /// 8-bit blocks
    #[value(name = "q8_0")]
    Q8_0,
    /// 4-bit blocks
    #[value(name = "q4_0")]
    Q4_0,
}

/// When attention is fused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FlashAttn {
    /// Always
    On,
    /// Never
    Off,
    /// Where the device can
    Auto,
}

/// For what logits are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputRows {
    /// For each token of a micro-batch
    MicroBatch,
    /// One for each sequence
    Sequence,
}

/// Whose compute graphs are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ComputeGraphs {
    /// Those of the builds whose logs are public
    Earlier,
    /// Those of the build in Muster's engine
    ThisBuild,
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
