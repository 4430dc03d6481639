//! [`Paths`]: where everything lies in the agent's state directory.
//!
//! Owns the names of the files; their content belongs to the modules that write them.

use std::path::{Path, PathBuf};

/// The format version of the state directory that this build reads and writes.
pub const FORMAT: u32 = 1;

/// The state directory's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The layout below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The machine's private key (PKCS #8, PEM). Made once, never sent, never replaced.
    pub fn key(&self) -> PathBuf {
        self.root.join("key.pem")
    }

    /// The machine's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.root.join("certificate.pem")
    }

    /// The controller's CA certificate.
    pub fn ca(&self) -> PathBuf {
        self.root.join("ca.pem")
    }

    /// Who this machine is and where its controller is; written last, so that an enrolment is whole or not there.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }

    /// The desired state as it last came.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// The newest inventory, so that a restart has one at once.
    pub fn inventory(&self) -> PathBuf {
        self.root.join("inventory.json")
    }

    /// The newest benchmark, on mains where that was ever measured.
    pub fn benchmark(&self) -> PathBuf {
        self.root.join("benchmark.json")
    }

    /// The newest benchmark on battery.
    pub fn battery_benchmark(&self) -> PathBuf {
        self.root.join("benchmark_on_battery.json")
    }

    /// What the owner's programs took of memory in the last days.
    pub fn memory_use(&self) -> PathBuf {
        self.root.join("memory_use.json")
    }

    /// Since when which model file is no longer wanted.
    pub fn unwanted(&self) -> PathBuf {
        self.root.join("unwanted.json")
    }

    /// The control socket of the running agent.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// Where benchmark models are made.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Where model files lie unless the configuration says otherwise.
    pub fn default_store(&self) -> PathBuf {
        self.root.join("models")
    }

    /// The configuration file that is read unless another is named.
    pub fn default_config(&self) -> PathBuf {
        self.root.join("agent.toml")
    }
}

/// The state directory unless one is named: `/var/lib/muster-agent` for root, else
/// `$XDG_DATA_HOME/muster-agent` or `~/.local/share/muster-agent`.
pub fn default_root() -> PathBuf {
    #[cfg(unix)]
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/muster-agent");
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = data.or_else(|| std::env::home_dir().map(|home| home.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from(".")).join("muster-agent")
}
