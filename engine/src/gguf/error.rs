//! [`GgufError`]: why a file is not a GGUF that may be loaded, in one line that says what, where, and what to do.
//!
//! What a file says of itself is quoted only through [`quote`], cut and without control characters.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most characters of a file's own words in a message.
const LONGEST_QUOTE: usize = 80;

/// Why a file is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GgufError {
    /// It cannot be read.
    #[error("cannot read {}", plain(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// It does not start with `GGUF`.
    #[error("not a GGUF file: {looks_like}")]
    NotGguf {
        /// What it seems to be, and what to do.
        looks_like: String,
    },
    /// Another version of the format.
    #[error("GGUF version {found} at byte 4 is not supported: {detail}")]
    Version {
        /// The version.
        found: u32,
        /// Why, and what to do.
        detail: String,
    },
    /// It ends inside its header.
    #[error("the file ends at byte {end}, inside {what} that starts at byte {offset}: it is truncated or damaged")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where that starts.
        offset: u64,
        /// Length of the file.
        end: u64,
    },
    /// Its header is whole and tensors are missing.
    #[error(
        "the file is {end} bytes long and should be {needs}: tensor {tensor:?} and what follows reach beyond the file's \
         end ({} bytes are missing; download it again)",
        needs.saturating_sub(*end)
    )]
    TooShort {
        /// The first tensor that is not whole.
        tensor: String,
        /// Length that the header asks for.
        needs: u64,
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
    /// The file holds no model.
    #[error("the file holds no model: {detail}")]
    NoModel {
        /// What it holds instead.
        detail: String,
    },
    /// A model in several files that do not fit together.
    #[error("{}: {detail}", plain(path))]
    Split {
        /// The file in question.
        path: PathBuf,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// One file of a model in several is refused.
    #[error("{}: {error}", plain(path))]
    Part {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Box<GgufError>,
    },
}

/// A path on one line.
fn plain(path: &Path) -> String {
    path.display().to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A file's own words for a message: quoted, escaped, cut.
pub(super) fn quote(words: &str) -> String {
    format!("{:?}", short(words))
}

/// As much of a file's own words as a message of one line holds; it is still to be escaped.
pub(super) fn short(words: &str) -> String {
    words.chars().take(LONGEST_QUOTE).collect()
}
