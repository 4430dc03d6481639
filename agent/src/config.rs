//! [`Config`]: everything that can be set, from flags over the environment over the configuration file.
//!
//! The flags (with their environment variables) are in [`crate::cli`], the file is TOML with the names of [`FileConfig`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_engine::worker::WorkerCommand;
use muster_proto::Bytes;
use serde::Deserialize;

use crate::address::ControllerAddress;
use crate::connect::ProxySettings;
use crate::state::Paths;

/// Where the desk answers unless told otherwise.
pub const DEFAULT_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 11435);
/// What stays free on the store's volume unless told otherwise.
pub const DEFAULT_RESERVE: Bytes = Bytes::from_gib(1);
/// How long an unwanted model file stays unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_hours(24);

/// The agent's settings, complete.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory.
    pub paths: Paths,
    /// Where the controller is; `None` takes the address of the enrolment.
    pub controller: Option<ControllerAddress>,
    /// Where the desk answers.
    pub endpoint: SocketAddr,
    /// Where model files lie.
    pub store: PathBuf,
    /// Cap over all downloads, a second.
    pub bandwidth_limit: Option<Bytes>,
    /// Cap of each connection, a second.
    pub link_bandwidth_limit: Option<Bytes>,
    /// What stays free on the store's volume.
    pub disk_reserve: Bytes,
    /// How long an unwanted model file stays.
    pub removal_grace: Duration,
    /// Whether the desk is benchmarked without being asked.
    pub bench: bool,
    /// CPU threads of each engine worker; `None` takes all physical cores.
    pub threads: Option<u32>,
    /// Proxies on the way to the controller.
    pub proxy: ProxySettings,
    /// How engine workers are started.
    pub worker: WorkerCommand,
}

/// The configuration file. Every setting may be missing; an unknown one is an error, so that a misspelt one is noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// `HOST:PORT`, when the controller has moved since the enrolment.
    pub controller: Option<ControllerAddress>,
    /// `127.0.0.1:PORT`.
    pub endpoint: Option<SocketAddr>,
    /// A folder for model files; may be on another volume.
    pub store: Option<PathBuf>,
    /// For example `"8MiB"`, a second, over all downloads.
    pub bandwidth_limit: Option<String>,
    /// For example `"4MiB"`, a second, of each connection.
    pub link_bandwidth_limit: Option<String>,
    /// For example `"10GiB"`.
    pub disk_reserve: Option<String>,
    /// For example `"24h"` or `"30m"`.
    pub removal_grace: Option<String>,
    /// `false` never benchmarks without being asked.
    pub bench: Option<bool>,
    /// CPU threads of each engine worker.
    pub threads: Option<u32>,
    /// `http://[user:password@]host:port`.
    pub proxy: Option<String>,
    /// Hosts to reach without the proxy, separated by commas.
    pub no_proxy: Option<String>,
}

/// Why the settings make no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// The file is no such TOML.
    #[error("the configuration {} is wrong", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A setting is wrong.
    #[error("the setting {name} is wrong: {reason}")]
    Value {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The path of this executable cannot be found out.
    #[error("cannot find this executable, which engine workers are started from")]
    Executable(#[source] io::Error),
}

impl FileConfig {
    /// Reads a file; `required` says whether it has to be there.
    ///
    /// # Errors
    /// The file is missing though required, cannot be read, or is wrong.
    pub fn read(path: &Path, required: bool) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// These settings where they are set, else `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            controller: self.controller.or(below.controller),
            endpoint: self.endpoint.or(below.endpoint),
            store: self.store.or(below.store),
            bandwidth_limit: self.bandwidth_limit.or(below.bandwidth_limit),
            link_bandwidth_limit: self.link_bandwidth_limit.or(below.link_bandwidth_limit),
            disk_reserve: self.disk_reserve.or(below.disk_reserve),
            removal_grace: self.removal_grace.or(below.removal_grace),
            bench: self.bench.or(below.bench),
            threads: self.threads.or(below.threads),
            proxy: self.proxy.or(below.proxy),
            no_proxy: self.no_proxy.or(below.no_proxy),
        }
    }
}

impl Config {
    /// The settings of `file` with the defaults for the rest.
    ///
    /// # Errors
    /// A setting makes no sense.
    pub fn new(paths: Paths, file: FileConfig) -> Result<Self, ConfigError> {
        let size = |name, text: Option<String>| {
            text.map(|text| Bytes::parse(&text).map_err(|reason| ConfigError::Value { name, reason })).transpose()
        };
        let endpoint = file.endpoint.unwrap_or(DEFAULT_ENDPOINT);
        if !endpoint.ip().is_loopback() {
            let reason = format!("{endpoint} is not a loopback address, write for example {DEFAULT_ENDPOINT}");
            return Err(ConfigError::Value { name: "endpoint", reason });
        }
        if file.threads == Some(0) {
            return Err(ConfigError::Value { name: "threads", reason: "it must be 1 or more".into() });
        }
        Ok(Self {
            controller: file.controller,
            endpoint,
            store: absolute(file.store.unwrap_or_else(|| paths.default_store())),
            bandwidth_limit: size("bandwidth_limit", file.bandwidth_limit)?,
            link_bandwidth_limit: size("link_bandwidth_limit", file.link_bandwidth_limit)?,
            disk_reserve: size("disk_reserve", file.disk_reserve)?.unwrap_or(DEFAULT_RESERVE),
            removal_grace: file.removal_grace.as_deref().map_or(Ok(DEFAULT_GRACE), parse_duration)?,
            bench: file.bench.unwrap_or(true),
            threads: file.threads,
            proxy: ProxySettings { proxy: file.proxy, no_proxy: file.no_proxy },
            worker: WorkerCommand::this_executable().map_err(ConfigError::Executable)?,
            paths,
        })
    }
}

/// Where messages say that something lies must make sense to whoever reads them elsewhere.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn parse_duration(text: &str) -> Result<Duration, ConfigError> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| ConfigError::Value { name: "removal_grace", reason: "write for example 24h or 30m".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Result<Config, ConfigError> {
        Config::new(Paths::new("/state"), toml::from_str(toml).expect("TOML"))
    }

    #[test]
    fn nothing_set_is_the_default() {
        let config = config("").expect("fine");
        assert_eq!(config.endpoint, DEFAULT_ENDPOINT);
        assert_eq!(config.store, Path::new("/state/models"));
        assert_eq!((config.disk_reserve, config.removal_grace), (DEFAULT_RESERVE, DEFAULT_GRACE));
        assert!(config.bench && config.bandwidth_limit.is_none());
    }

    #[test]
    fn every_setting_is_read() {
        let config = config(
            "controller = 'muster.example.com'\nendpoint = '127.0.0.1:9'\nstore = '/models'\nbandwidth_limit = '8MiB'\n\
             link_bandwidth_limit = '4MiB'\ndisk_reserve = '10GiB'\nremoval_grace = '90m'\nbench = false\nthreads = 3\n\
             proxy = 'http://proxy:3128'\nno_proxy = 'localhost'\n",
        )
        .expect("fine");
        assert_eq!(config.controller.expect("set").to_string(), "muster.example.com:7433");
        assert_eq!(config.bandwidth_limit, Some(Bytes::from_mib(8)));
        assert_eq!(config.removal_grace, Duration::from_mins(90));
        assert_eq!((config.bench, config.threads), (false, Some(3)));
        assert_eq!(config.proxy.proxy.as_deref(), Some("http://proxy:3128"));
    }

    #[test]
    fn wrong_settings_are_named() {
        for (toml, name) in [
            ("endpoint = '0.0.0.0:1'", "endpoint"),
            ("bandwidth_limit = 'fast'", "bandwidth_limit"),
            ("removal_grace = 'soon'", "removal_grace"),
            ("removal_grace = '-1h'", "removal_grace"),
            ("threads = 0", "threads"),
        ] {
            assert!(config(toml).expect_err("wrong").to_string().contains(name), "{toml}");
        }
        assert!(toml::from_str::<FileConfig>("bandwith_limit = '1MiB'").is_err(), "a misspelt setting is an error");
    }

    #[test]
    fn what_is_above_wins() {
        let above = FileConfig { threads: Some(1), ..FileConfig::default() };
        let below = FileConfig { threads: Some(2), bench: Some(false), ..FileConfig::default() };
        let both = above.over(below);
        assert_eq!((both.threads, both.bench), (Some(1), Some(false)));
    }
}
