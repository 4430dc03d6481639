//! [`GgufError`]: why a file is not a GGUF that may be loaded, in one line that says what and where.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a file is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GgufError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// It does not start with `GGUF`.
    #[error("not a GGUF file: it starts with {found:02x?}")]
    Magic {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// Another version of the format.
    #[error("GGUF version {found} is not supported, only 2 and 3 are")]
    Version {
        /// The version.
        found: u32,
    },
    /// It ends too early.
    #[error("the file ends at byte {end}, inside {what} that starts at byte {offset}")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where that starts.
        offset: u64,
        /// Length of the file.
        end: u64,
    },
    /// A count or a length over its cap.
    #[error("{what} at byte {offset} is {found}, more than {most}")]
    TooMany {
        /// Which.
        what: String,
        /// Where it stands.
        offset: u64,
        /// What the file says.
        found: u64,
        /// The cap.
        most: u64,
    },
    /// Something in the metadata makes no sense.
    #[error("metadata {key:?} at byte {offset}: {detail}")]
    Metadata {
        /// The key.
        key: String,
        /// Where it starts.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// Something with a tensor makes no sense.
    #[error("tensor {name:?} at byte {offset}: {detail}")]
    Tensor {
        /// Its name.
        name: String,
        /// Where its description starts.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
}
