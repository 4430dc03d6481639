//! Flags and their environment variables.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use muster_proto::{BenchmarkKind, EnrolmentToken};

use crate::address::ControllerAddress;
use crate::config::FileConfig;

/// Muster's agent: finds out what this desk can do, installs and runs the models that it is given, and answers locally.
///
/// Settings are taken from flags, then from the environment, then from the configuration file.
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version, propagate_version = true, max_term_width = 110)]
pub struct Args {
    /// The agent's state directory [default: /var/lib/muster-agent as root, else ~/.local/share/muster-agent]
    #[arg(long, global = true, value_name = "DIR", env = "MUSTER_AGENT_STATE")]
    pub state: Option<PathBuf>,
    /// The configuration file [default: agent.toml in the state directory, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Write JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// How much to log to stderr: error, warn, info, debug, trace, or a filter of tracing-subscriber
    /// [default: info for `run`, else warn]
    #[arg(long, global = true, value_name = "LEVEL", env = "MUSTER_LOG")]
    pub log: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this machine known to a controller, with a token of `muster token create`
    Enrol(EnrolArgs),
    /// Run the agent: stay connected, install what is assigned, answer locally
    Run(RunArgs),
    /// Show how the running agent is doing
    Status,
    /// Talk with a model of this desk
    Chat(ChatArgs),
    /// Show what this desk is and how fast it is
    Audit,
    /// Measure how fast this desk is
    Bench(BenchArgs),
    /// Show the models that run, and what they take
    Ps,
    /// Write a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Proxies, for all commands that talk to the controller.
#[derive(Debug, Default, ClapArgs)]
pub struct ProxyArgs {
    /// HTTP proxy on the way to the controller, http://[USER:PASSWORD@]HOST:PORT [default: HTTPS_PROXY]
    #[arg(long, value_name = "URL", env = "MUSTER_AGENT_PROXY", hide_env_values = true)]
    pub proxy: Option<String>,
    /// Hosts to reach without the proxy, separated by commas [default: NO_PROXY]
    #[arg(long, value_name = "HOSTS", env = "MUSTER_AGENT_NO_PROXY")]
    pub no_proxy: Option<String>,
}

/// Flags of `enrol`.
#[derive(Debug, ClapArgs)]
pub struct EnrolArgs {
    /// Where the controller is
    #[arg(long, value_name = "HOST:PORT")]
    pub controller: ControllerAddress,
    /// The token that the operator gave you
    #[arg(long, value_name = "TOKEN", env = "MUSTER_AGENT_TOKEN", hide_env_values = true)]
    pub token: EnrolmentToken,
    /// Wait until the operator has accepted this machine
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub proxy: ProxyArgs,
}

/// Flags of `run`.
#[derive(Debug, Default, ClapArgs)]
pub struct RunArgs {
    /// Where the controller is, if it has moved since the enrolment
    #[arg(long, value_name = "HOST:PORT", env = "MUSTER_AGENT_CONTROLLER")]
    pub controller: Option<ControllerAddress>,
    /// Where this desk answers, a loopback address; port 0 takes a free one [default: 127.0.0.1:11435]
    #[arg(long, value_name = "ADDRESS", env = "MUSTER_AGENT_ENDPOINT")]
    pub endpoint: Option<SocketAddr>,
    /// Where model files lie [default: models in the state directory]
    #[arg(long, value_name = "DIR", env = "MUSTER_AGENT_STORE")]
    pub store: Option<PathBuf>,
    /// Most bytes a second over all downloads, for example 8MiB [default: no limit]
    #[arg(long, value_name = "SIZE", env = "MUSTER_AGENT_BANDWIDTH_LIMIT")]
    pub bandwidth_limit: Option<String>,
    /// Most bytes a second of each connection [default: no limit]
    #[arg(long, value_name = "SIZE", env = "MUSTER_AGENT_LINK_BANDWIDTH_LIMIT")]
    pub link_bandwidth_limit: Option<String>,
    /// What stays free on the volume of the model files [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "MUSTER_AGENT_DISK_RESERVE")]
    pub disk_reserve: Option<String>,
    /// How long model files stay that are no longer assigned, for example 90m [default: 24h]
    #[arg(long, value_name = "TIME", env = "MUSTER_AGENT_REMOVAL_GRACE")]
    pub removal_grace: Option<String>,
    /// Do not benchmark this desk unless asked
    #[arg(long, env = "MUSTER_AGENT_NO_BENCH")]
    pub no_bench: bool,
    /// CPU threads of each model [default: all physical cores]
    #[arg(long, value_name = "N", env = "MUSTER_AGENT_THREADS")]
    pub threads: Option<u32>,
    #[command(flatten)]
    pub proxy: ProxyArgs,
}

impl RunArgs {
    /// The flags as settings.
    pub fn into_settings(self) -> FileConfig {
        FileConfig {
            controller: self.controller,
            endpoint: self.endpoint,
            store: self.store,
            bandwidth_limit: self.bandwidth_limit,
            link_bandwidth_limit: self.link_bandwidth_limit,
            disk_reserve: self.disk_reserve,
            removal_grace: self.removal_grace,
            bench: self.no_bench.then_some(false),
            threads: self.threads,
            proxy: self.proxy.proxy,
            no_proxy: self.proxy.no_proxy,
        }
    }
}

/// Flags of `chat`.
#[derive(Debug, ClapArgs)]
pub struct ChatArgs {
    /// Which model [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// What the model is told first
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// 0 always takes the likeliest word
    #[arg(long, value_name = "NUMBER")]
    pub temperature: Option<f32>,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// One question; without it a conversation begins
    pub prompt: Vec<String>,
}

/// Flags of `bench`.
#[derive(Debug, ClapArgs)]
pub struct BenchArgs {
    /// Smaller models and fewer repeats: a few seconds
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// More repeats, and minutes of load, which find what heat takes
    #[arg(long)]
    pub full: bool,
    /// How long to wait until the desk is idle, where no agent runs [default: 10, with --quick 1]
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
}

impl BenchArgs {
    /// How thorough it is to be.
    pub fn kind(&self) -> BenchmarkKind {
        match (self.quick, self.full) {
            (true, _) => BenchmarkKind::Quick,
            (false, true) => BenchmarkKind::Full,
            (false, false) => BenchmarkKind::Standard,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let args =
            Args::parse_from(["muster-agent", "run", "--bandwidth-limit", "8MiB", "--no-bench", "--state", "/x"]);
        assert_eq!(args.state, Some("/x".into()));
        let Command::Run(run) = args.command else { panic!("another command") };
        let settings = run.into_settings();
        assert_eq!((settings.bandwidth_limit.as_deref(), settings.bench), (Some("8MiB"), Some(false)));
    }
}
