//! Settings: flag over environment over the configuration file over the default.
//!
//! Owns: [`ServeConfig`], the file's form, and how durations and sizes are written. It does not know of clap.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_engine::worker::WorkerCommand;
use muster_proto::Bytes;
use serde::Deserialize;

use crate::clock::Clock;
use crate::listen::ReceivedTap;

/// Where agents connect unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7433);

/// Where figures are served if they are to be and nobody says where: on loopback, beside the port of agents.
pub const DEFAULT_METRICS_LISTEN: &str = "127.0.0.1:7434";

/// How long a machine's certificate lasts unless told otherwise.
pub const DEFAULT_CERTIFICATE_LIFETIME: Duration = Duration::from_hours(24);

/// Shortest lifetime of a machine's certificate that still leaves time to renew it.
pub const SHORTEST_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(2);

/// What must stay free on the volume of the model files.
pub const DEFAULT_BLOB_RESERVE: Bytes = Bytes::from_mib(256);

/// Connections at the same time.
pub const DEFAULT_MAX_CONNECTIONS: usize = 20_000;

/// Everything that a controller is started with.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The data directory.
    pub data: PathBuf,
    /// Where agents and remote operators connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long a machine's certificate lasts.
    pub certificate_lifetime: Duration,
    /// What must stay free on the volume of the model files.
    pub blob_reserve: Bytes,
    /// Connections at the same time.
    pub max_connections: usize,
    /// Where figures for Prometheus are served over plain HTTP; `None` nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// How often agents say that they live.
    pub heartbeat: Duration,
    /// How engine workers are started.
    pub worker: WorkerCommand,
    /// Tests only: gets a copy of every byte that is received above TLS.
    pub received_tap: Option<ReceivedTap>,
    /// What time it is.
    pub clock: Clock,
}

impl ServeConfig {
    /// The defaults on this data directory.
    pub fn new(data: PathBuf, worker: WorkerCommand) -> Self {
        Self {
            data,
            listen: DEFAULT_LISTEN,
            certificate_lifetime: DEFAULT_CERTIFICATE_LIFETIME,
            blob_reserve: DEFAULT_BLOB_RESERVE,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            metrics_listen: None,
            heartbeat: Duration::from_mins(1),
            worker,
            received_tap: None,
            clock: Clock::system(),
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is not a valid configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
}

/// The configuration file; every setting may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Where agents connect, e.g. `0.0.0.0:7433`.
    pub listen: Option<SocketAddr>,
    /// How long a machine's certificate lasts, e.g. `24h`.
    pub certificate_lifetime: Option<WrittenDuration>,
    /// What must stay free on the volume of the model files, e.g. `256MiB`.
    pub blob_reserve: Option<WrittenBytes>,
    /// Connections at the same time.
    pub max_connections: Option<usize>,
    /// Where figures for Prometheus are served over plain HTTP, e.g. `127.0.0.1:7434`; nowhere if absent.
    pub metrics_listen: Option<SocketAddr>,
}

impl ConfigFile {
    /// Reads the file that was named, or the one in the data directory if it is there.
    ///
    /// # Errors
    /// A named file must be there, and either must be valid.
    pub fn read(named: Option<&Path>, data: &Path) -> Result<Self, ConfigError> {
        let path = named.map_or_else(|| data.join("muster.toml"), Path::to_owned);
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|source| ConfigError::Parse { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }
}

/// A duration as people write it: `24h`, `90m`, `30s`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WrittenDuration(pub Duration);

impl std::str::FromStr for WrittenDuration {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("{text:?} is not a duration: write for example 24h, 90m, 30s or 7d");
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(split);
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        // A century is long enough for everything here, and far from every overflow.
        let seconds = number.checked_mul(seconds).filter(|seconds| *seconds <= 3_155_760_000).ok_or_else(wrong)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl TryFrom<String> for WrittenDuration {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A size as people write it: `256MiB`, `1 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WrittenBytes(pub Bytes);

impl std::str::FromStr for WrittenBytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Bytes::parse(text).map(Self)
    }
}

impl TryFrom<String> for WrittenBytes {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let read = |text: &str| text.parse::<WrittenDuration>().map(|written| written.0.as_secs());
        assert_eq!(read("24h"), Ok(86_400));
        assert_eq!(read(" 7d "), Ok(604_800));
        assert_eq!(read("30s"), Ok(30));
        for wrong in ["", "24", "h", "-1h", "1.5h", "1w", "99999999999d"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_may_leave_everything_out_but_not_misspell_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(ConfigFile::read(None, directory.path()).expect("none is fine"), ConfigFile::default());
        assert!(ConfigFile::read(Some(Path::new("/nowhere/muster.toml")), directory.path()).is_err());
        let path = directory.path().join("muster.toml");
        fs::write(&path, "listen = '127.0.0.1:9'\ncertificate_lifetime = '1h'\nblob_reserve = '1GiB'\n")
            .expect("written");
        let file = ConfigFile::read(None, directory.path()).expect("valid");
        assert_eq!(file.listen.map(|listen| listen.port()), Some(9));
        assert_eq!(file.blob_reserve, Some(WrittenBytes(Bytes::from_gib(1))));
        fs::write(&path, "listn = '127.0.0.1:9'\n").expect("written");
        assert!(matches!(ConfigFile::read(None, directory.path()), Err(ConfigError::Parse { .. })));
    }
}
