//! [`Roots`]: where the kernel shows this machine. Folders made up like it, for tests.
//!
//! It does not know what is read there.

use std::path::PathBuf;

/// The kernel's file systems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/sys`: devices, power supplies, sensors.
    pub sys: PathBuf,
    /// `/dev`: device nodes.
    pub dev: PathBuf,
    /// `/proc`: processes and what they take.
    pub proc: PathBuf,
}

impl Roots {
    /// This machine's, or what tests set in the environment instead. No setting for users: not in the help.
    pub fn of_this_machine() -> Self {
        let at = |variable: &str, usual: &str| std::env::var_os(variable).map_or_else(|| usual.into(), PathBuf::from);
        Self {
            sys: at("MUSTER_SYSFS_ROOT", "/sys"),
            dev: at("MUSTER_DEV_ROOT", "/dev"),
            proc: at("MUSTER_PROC_ROOT", "/proc"),
        }
    }
}
