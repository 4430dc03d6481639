//! [`GgufWriter`]: writes GGUF files, header first and tensor data as a stream.

use std::io::{self, Write};

use super::value::kind;
use super::{DEFAULT_ALIGNMENT, MAGIC, TensorType};

/// [`DEFAULT_ALIGNMENT`] as a length in memory.
const ALIGNMENT: usize = 32;

/// One tensor to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// Its name.
    pub name: String,
    /// Its dimensions, row length first; rows are whole blocks of the type.
    pub dimensions: Vec<u64>,
    /// The type of its elements.
    pub kind: TensorType,
}

impl TensorPlan {
    /// Bytes of its data.
    pub fn bytes(&self) -> u64 {
        self.elements() / self.kind.block * self.kind.bytes
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

/// Collects metadata and tensors, then writes the header; the data of every tensor follows in the same order, each padded
/// to [`padded`](Self::padded) bytes.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    entries: u64,
    metadata: Vec<u8>,
    tensors: Vec<TensorPlan>,
}

impl GgufWriter {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.entries += 1;
        put_text(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key, kind::STRING);
        put_text(&mut self.metadata, value);
    }

    /// Adds a `u32`.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, kind::U32);
        self.metadata.extend(value.to_le_bytes());
    }

    /// Adds an `f32`.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, kind::F32);
        self.metadata.extend(value.to_le_bytes());
    }

    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, kind::BOOL);
        self.metadata.push(value.into());
    }

    /// Adds an array of texts.
    pub fn texts<T: AsRef<str>>(&mut self, key: &str, values: &[T]) {
        self.key(key, kind::ARRAY);
        self.metadata.extend(kind::STRING.to_le_bytes());
        self.metadata.extend((values.len() as u64).to_le_bytes());
        for value in values {
            put_text(&mut self.metadata, value.as_ref());
        }
    }

    /// Adds an array of `i32`.
    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        self.key(key, kind::ARRAY);
        self.metadata.extend(kind::I32.to_le_bytes());
        self.metadata.extend((values.len() as u64).to_le_bytes());
        for value in values {
            self.metadata.extend(value.to_le_bytes());
        }
    }

    /// Adds an array of `u32`.
    pub fn u32s(&mut self, key: &str, values: &[u32]) {
        self.key(key, kind::ARRAY);
        self.metadata.extend(kind::U32.to_le_bytes());
        self.metadata.extend((values.len() as u64).to_le_bytes());
        for value in values {
            self.metadata.extend(value.to_le_bytes());
        }
    }

    /// Adds an array of truth values.
    pub fn bools(&mut self, key: &str, values: &[bool]) {
        self.key(key, kind::ARRAY);
        self.metadata.extend(kind::BOOL.to_le_bytes());
        self.metadata.extend((values.len() as u64).to_le_bytes());
        self.metadata.extend(values.iter().map(|value| u8::from(*value)));
    }

    /// Adds a tensor.
    pub fn tensor(&mut self, tensor: TensorPlan) {
        self.tensors.push(tensor);
    }

    /// The tensors, in the order in which their data must follow.
    pub fn tensors(&self) -> &[TensorPlan] {
        &self.tensors
    }

    /// How many bytes a tensor's data takes with its padding.
    pub fn padded(bytes: u64) -> u64 {
        bytes.next_multiple_of(DEFAULT_ALIGNMENT)
    }

    /// The header with its padding: what stands before the first tensor's data.
    pub fn header(&self) -> Vec<u8> {
        let mut header = Vec::from(MAGIC);
        header.extend(3_u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend(self.entries.to_le_bytes());
        header.extend(&self.metadata);
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            put_text(&mut header, &tensor.name);
            header.extend(u32::try_from(tensor.dimensions.len()).unwrap_or(u32::MAX).to_le_bytes());
            for size in &tensor.dimensions {
                header.extend(size.to_le_bytes());
            }
            header.extend(tensor.kind.number.to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset += Self::padded(tensor.bytes());
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
        header
    }

    /// Writes the whole file; `data` writes exactly [`TensorPlan::bytes`] of each tensor.
    ///
    /// # Errors
    /// What `out` or `data` says.
    pub fn write<W: Write>(
        &self,
        out: &mut W,
        mut data: impl FnMut(&TensorPlan, &mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        out.write_all(&self.header())?;
        for tensor in &self.tensors {
            data(tensor, out)?;
            let unaligned = usize::try_from(tensor.bytes() % DEFAULT_ALIGNMENT).unwrap_or_default();
            out.write_all(&[0; ALIGNMENT][..unaligned.next_multiple_of(ALIGNMENT) - unaligned])?;
        }
        out.flush()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
