//! GGUF, the file format of llama.cpp's models: reading and judging headers, and writing files.
//!
//! [`GgufHeader::read`] is the gate that an untrusted file passes before llama.cpp sees it: checked arithmetic, caps on
//! every count and length, every tensor whole inside the file and apart from the others. It reads the header only and
//! keeps a bounded part of it in memory. It does not know what an architecture needs: that is llama.cpp's to say.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod error;
mod header;
mod types;
mod value;
mod writer;

pub use error::GgufError;
pub use header::{GgufHeader, Tensor};
pub use types::{TensorType, file_type_name, file_type_number};
pub use value::Value;
pub use writer::{GgufWriter, TensorPlan};

const MAGIC: [u8; 4] = *b"GGUF";

/// Where tensor data is aligned unless `general.alignment` says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
