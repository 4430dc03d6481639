//! GGUF, the file format of llama.cpp's models: reading and judging headers, and writing files.
//!
//! [`GgufFiles::open`] is the gate that an untrusted model passes before llama.cpp sees it, in one file or several;
//! [`GgufHeader::read`] is the same for one file. Arithmetic is checked, every count and length has a cap, every tensor is
//! whole inside the file and stands where llama.cpp demands it, the tokenizer's arrays fit each other, and no number is one
//! that llama.cpp divides by, indexes by or asserts. Headers only are read, and a bounded part of them is kept. It does not
//! know which keys and tensors an architecture needs: that is llama.cpp's to say.
//!
//! [`fuzz_one`] is the body for a fuzzer.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod asserted;
mod cursor;
mod error;
mod files;
mod fuzz;
mod header;
mod metadata;
mod parse;
mod shape;
mod sniff;
mod tokenizer;
mod types;
mod value;
mod writer;

pub use error::GgufError;
pub use files::{GgufFiles, GgufPart};
pub use fuzz::fuzz_one;
pub use header::{GgufHeader, SplitPart, Tensor};
pub use types::{TensorType, file_type_name, file_type_number};
pub use value::Value;
pub use writer::{GgufWriter, TensorPlan};

const MAGIC: [u8; 4] = *b"GGUF";

/// Where tensor data is aligned unless `general.alignment` says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
