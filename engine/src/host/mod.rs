//! What both programs need of the local machine: files that survive power loss, and one private state directory each.

pub mod atomic_file;
pub mod state_dir;

pub use state_dir::{StateDir, StateDirError};
