//! [`GgufHeader`]: the header of a GGUF file that passed every check, and what it says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::Arc;

use muster_proto::{Bytes, ContextTokens};

use super::cursor::Cursor;
use super::metadata::Metadata;
use super::{GgufError, TensorType, Value, file_type_name, parse};

/// One tensor, as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Its dimensions, row length first.
    pub dimensions: Vec<u64>,
    /// The type of its elements.
    pub kind: TensorType,
    /// Where it starts, from the start of the tensor data.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

impl Tensor {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

/// The header of a GGUF file that passed every check.
#[derive(Clone, Debug)]
pub struct GgufHeader {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Length of the whole file.
    pub file_size: Bytes,
    /// Where tensor data starts.
    pub data_offset: u64,
    /// Bytes of all tensors together, without padding.
    pub tensor_bytes: Bytes,
    /// Every tensor, in the order of the file.
    pub tensors: Vec<Tensor>,
    pub(super) metadata: Metadata,
    pub(super) split: Option<SplitPart>,
}

/// Which part of a model in several files a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitPart {
    /// `split.no`: 0 for the first file.
    pub number: u16,
    /// `split.count`: how many files there are.
    pub count: u16,
    /// `split.tensors.count`: tensors of all files together.
    pub tensors: u64,
}

impl GgufHeader {
    /// Reads and checks the header of the file at `path`, and of that file alone: a model in several files is opened with
    /// [`GgufFiles`](super::GgufFiles).
    ///
    /// # Errors
    /// The first thing that is wrong: what and where.
    pub fn read(path: &Path) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io { path: path.to_owned(), source: Arc::new(source) };
        // Before opening, too: opening a named pipe waits for its writer.
        let is_regular = |metadata: &std::fs::Metadata| {
            let other = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
            metadata.is_file().then_some(()).ok_or_else(other)
        };
        std::fs::metadata(path).and_then(|metadata| is_regular(&metadata)).map_err(io)?;
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        is_regular(&metadata).map_err(io)?;
        parse::parse(Cursor::new(file, path.to_owned(), metadata.len()))
    }

    /// Reads and checks a header that is in memory, e.g. [`MUSTER_TINY_F16`](crate::bundled::MUSTER_TINY_F16).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_bytes(bytes: &[u8]) -> Result<Self, GgufError> {
        Self::read_from(std::io::Cursor::new(bytes), bytes.len() as u64)
    }

    /// Reads and checks the header of a file of `length` bytes through `reader`, which must stand at its start. Nothing
    /// behind the header is read, but for what a buffer of 256 KiB takes at once.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_from<R: Read + Seek>(reader: R, length: u64) -> Result<Self, GgufError> {
        parse::parse(Cursor::new(reader, "the given bytes".into(), length))
    }

    /// A value of the metadata.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key).map(|entry| &entry.value)
    }

    /// An array of up to 1,024 whole numbers or truth values, e.g. `llama.attention.head_count_kv` where layers differ.
    pub fn get_integers(&self, key: &str) -> Option<&[i64]> {
        self.metadata.get(key)?.integers.as_deref()
    }

    /// Which part this file is, of a model in several files; `None` for a model in one.
    pub const fn split(&self) -> Option<SplitPart> {
        self.split
    }

    /// A text of the metadata.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// A whole number of the metadata, of any of GGUF's integer types.
    pub fn get_u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// `general.architecture`, e.g. `llama`; checked when reading.
    pub fn architecture(&self) -> &str {
        self.get_str("general.architecture").unwrap_or_default()
    }

    /// `general.name`.
    pub fn name(&self) -> Option<&str> {
        self.get_str("general.name")
    }

    /// `general.license`.
    pub fn licence(&self) -> Option<&str> {
        self.get_str("general.license")
    }

    /// The context that the model was trained with.
    pub fn context_length(&self) -> Option<ContextTokens> {
        let length = self.get_u64(&format!("{}.context_length", self.architecture()))?;
        u32::try_from(length).ok().map(ContextTokens::new)
    }

    /// Transformer blocks.
    pub fn layers(&self) -> Option<u32> {
        u32::try_from(self.get_u64(&format!("{}.block_count", self.architecture()))?).ok()
    }

    /// Whether every token sees all others and a whole text is computed at once: models for embeddings and classes, whose
    /// metadata says `attention.causal = false`.
    pub fn is_encoder(&self) -> bool {
        matches!(self.get(&format!("{}.attention.causal", self.architecture())), Some(Value::Bool(false)))
    }

    /// Number of parameters: elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(Tensor::elements).fold(0, u64::saturating_add)
    }

    /// The quantization as llama.cpp names it, e.g. `Q4_K_M`; where the file does not say, the type that most of its bytes
    /// have.
    pub fn file_type(&self) -> Option<String> {
        if let Some(name) = self.get_u64("general.file_type").and_then(file_type_name) {
            return Some(name.to_owned());
        }
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for tensor in &self.tensors {
            *bytes.entry(tensor.kind.name).or_default() += tensor.bytes;
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(name, _)| name.to_owned())
    }

    /// Bits of tensor data per parameter; 0 without tensors.
    pub fn bits_per_weight(&self) -> f64 {
        match self.parameters() {
            0 => 0.0,
            parameters => self.tensor_bytes.get() as f64 * 8.0 / parameters as f64,
        }
    }

    /// Bytes of weights that each decoded token reads: not the embedding table, of which a token takes one row (unless
    /// the output shares it), and of a mixture of experts only those in use.
    pub fn bytes_per_token(&self) -> Bytes {
        Bytes::new(self.per_token(|tensor| tensor.bytes))
    }

    /// Parameters that each token is multiplied with; counted like [`bytes_per_token`](Self::bytes_per_token).
    pub fn parameters_per_token(&self) -> u64 {
        self.per_token(Tensor::elements)
    }

    fn per_token(&self, measure: impl Fn(&Tensor) -> u64) -> u64 {
        let architecture = self.architecture();
        let number = |name: &str| self.get_u64(&format!("{architecture}.{name}")).filter(|number| *number > 0);
        let experts = number("expert_count").zip(number("expert_used_count"));
        let has_output = self.tensors.iter().any(|tensor| tensor.name == "output.weight");
        let tensors = self.tensors.iter().filter(|tensor| !has_output || tensor.name != "token_embd.weight");
        tensors
            .map(|tensor| match experts {
                Some((all, used)) if tensor.name.contains("_exps.") => measure(tensor) / all * used.min(all),
                _ => measure(tensor),
            })
            .fold(0, u64::saturating_add)
    }
}
