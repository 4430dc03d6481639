//! [`GgufHeader`]: reads and judges the header of a GGUF file.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::Arc;

use muster_proto::{Bytes, ContextTokens};

use super::cursor::Cursor;
use super::value::kind;
use super::{DEFAULT_ALIGNMENT, GgufError, MAGIC, TensorType, Value, file_type_name};

/// Most metadata entries; the largest models have about a hundred.
const MOST_ENTRIES: u64 = 1 << 16;
/// Most tensors; the largest models have a few thousand.
const MOST_TENSORS: u64 = 1 << 16;
/// Longest key, by the format.
const LONGEST_KEY: u64 = (1 << 16) - 1;
/// Longest tensor name: ggml's `GGML_MAX_NAME` less its closing zero.
const LONGEST_NAME: u64 = 63;
/// Longest text; chat templates are some ten thousand bytes.
const LONGEST_TEXT: u64 = 16 << 20;
/// Longest text that is kept.
const LONGEST_KEPT: u64 = 16 << 10;
/// Most that is kept of all keys and texts together.
const MOST_KEPT: u64 = 16 << 20;
/// Most elements of an array; the largest vocabularies have about a million.
const MOST_ELEMENTS: u64 = 1 << 24;
/// The key of where tensor data is aligned.
const ALIGNMENT: &str = "general.alignment";
/// Dimensions of a tensor: ggml's `GGML_MAX_DIMS`.
const MOST_DIMENSIONS: u32 = 4;

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
    metadata: BTreeMap<String, Value>,
}

impl GgufHeader {
    /// Reads and checks the header of the file at `path`.
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
        Self::parse(Cursor::new(file, path.to_owned(), metadata.len()))
    }

    /// Reads and checks a header that is in memory, e.g. [`MUSTER_TINY_F16`](crate::bundled::MUSTER_TINY_F16).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_bytes(bytes: &[u8]) -> Result<Self, GgufError> {
        Self::parse(Cursor::new(std::io::Cursor::new(bytes), "bytes in memory".into(), bytes.len() as u64))
    }

    fn parse<R: Read + Seek>(mut cursor: Cursor<R>) -> Result<Self, GgufError> {
        let length = cursor.end().min(4);
        let magic = cursor.vec(length, "the magic")?;
        if magic != MAGIC {
            return Err(GgufError::Magic { found: magic });
        }
        let version = cursor.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        let tensor_count = cursor.count(MOST_TENSORS, "the number of tensors")?;
        let entry_count = cursor.count(MOST_ENTRIES, "the number of metadata entries")?;

        let mut metadata = BTreeMap::new();
        let mut kept = 0;
        for index in 0..entry_count {
            let offset = cursor.offset();
            let key = text(&mut cursor, LONGEST_KEY, &format!("the key of metadata entry {index}"))?;
            let fail = |detail: &str| GgufError::Metadata { key: short(&key), offset, detail: detail.to_owned() };
            if key.is_empty() {
                return Err(fail("the key is empty"));
            }
            kept += key.len() as u64;
            if kept > MOST_KEPT {
                return Err(fail("the keys and texts together are too long"));
            }
            let value = value(&mut cursor, &key, offset, &mut kept)?;
            if metadata.contains_key(&key) {
                return Err(fail("the key occurs twice"));
            }
            metadata.insert(key, value);
        }
        if !matches!(metadata.get("general.architecture"), Some(Value::Text(name)) if !name.is_empty()) {
            return Err(GgufError::Metadata {
                key: "general.architecture".into(),
                offset: cursor.offset(),
                detail: "missing, or not a text".into(),
            });
        }
        let alignment = alignment(&metadata, cursor.offset())?;

        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        let mut places = Vec::new();
        for index in 0..tensor_count {
            let offset = cursor.offset();
            let tensor = tensor(&mut cursor, index, alignment)?;
            if !names.insert(tensor.name.clone()) {
                let detail = "the name occurs twice".into();
                return Err(GgufError::Tensor { name: tensor.name, offset, detail });
            }
            places.push(offset);
            tensors.push(tensor);
        }
        let data_offset = cursor.offset().next_multiple_of(alignment);
        check_places(&tensors, &places, data_offset, cursor.end())?;
        let tensor_bytes = tensors.iter().map(|tensor| Bytes::new(tensor.bytes)).sum();
        Ok(Self { version, file_size: Bytes::new(cursor.end()), data_offset, tensor_bytes, tensors, metadata })
    }

    /// A value of the metadata.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
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

/// As much of a key as a message of one line holds.
fn short(key: &str) -> String {
    key.chars().take(80).collect()
}

fn text<R: Read + Seek>(cursor: &mut Cursor<R>, most: u64, what: &str) -> Result<String, GgufError> {
    let offset = cursor.offset();
    let length = cursor.count(most, &format!("the length of {what}"))?;
    let bytes = cursor.vec(length, what)?;
    String::from_utf8(bytes).map_err(|error| GgufError::Metadata {
        key: String::from_utf8_lossy(error.as_bytes()).chars().take(40).collect(),
        offset,
        detail: format!("{what} is not UTF-8"),
    })
}

fn value<R: Read + Seek>(cursor: &mut Cursor<R>, key: &str, start: u64, kept: &mut u64) -> Result<Value, GgufError> {
    let key = short(key);
    let fail = |detail: String| GgufError::Metadata { key: key.clone(), offset: start, detail };
    let what = format!("the value of {key:?}");
    let number = cursor.u32(&format!("the type of {key:?}"))?;
    if key == ALIGNMENT && number != kind::U32 {
        // llama.cpp asserts it.
        return Err(fail(format!("it must be a u32, and is of type {number}")));
    }
    Ok(match number {
        kind::U8 => Value::Unsigned(cursor.bytes::<1>(&what)?[0].into()),
        kind::I8 => Value::Signed(i8::from_le_bytes(cursor.bytes(&what)?).into()),
        kind::U16 => Value::Unsigned(u16::from_le_bytes(cursor.bytes(&what)?).into()),
        kind::I16 => Value::Signed(i16::from_le_bytes(cursor.bytes(&what)?).into()),
        kind::U32 => Value::Unsigned(cursor.u32(&what)?.into()),
        kind::I32 => Value::Signed(i32::from_le_bytes(cursor.bytes(&what)?).into()),
        kind::F32 => Value::Float(f32::from_le_bytes(cursor.bytes(&what)?).into()),
        kind::U64 => Value::Unsigned(cursor.u64(&what)?),
        kind::I64 => Value::Signed(i64::from_le_bytes(cursor.bytes(&what)?)),
        kind::F64 => Value::Float(f64::from_le_bytes(cursor.bytes(&what)?)),
        kind::BOOL => match cursor.bytes::<1>(&what)?[0] {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => return Err(fail(format!("a truth value of {other}"))),
        },
        kind::STRING => {
            let length = cursor.count(LONGEST_TEXT, &format!("the length of {what}"))?;
            if length > LONGEST_KEPT || *kept + length > MOST_KEPT {
                cursor.skip(length, &what)?;
                Value::LongText { length }
            } else {
                *kept += length;
                let bytes = cursor.vec(length, &what)?;
                Value::Text(String::from_utf8(bytes).map_err(|_| fail("the text is not UTF-8".into()))?)
            }
        }
        kind::ARRAY => {
            let element = cursor.u32(&format!("the element type of {key:?}"))?;
            let length = cursor.count(MOST_ELEMENTS, &format!("the number of elements of {key:?}"))?;
            if element == kind::STRING {
                let text_length = format!("the length of a text in {key:?}");
                for _ in 0..length {
                    let length = cursor.count(LONGEST_TEXT, &text_length)?;
                    cursor.skip(length, &what)?;
                }
            } else {
                let size = kind::size(element).ok_or_else(|| fail(format!("elements of unknown type {element}")))?;
                cursor.skip(length * size, &what)?;
            }
            Value::Array { element, length }
        }
        unknown => return Err(fail(format!("unknown type {unknown}"))),
    })
}

fn alignment(metadata: &BTreeMap<String, Value>, offset: u64) -> Result<u64, GgufError> {
    let Some(value) = metadata.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    match value.as_u64() {
        Some(alignment) if alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) => Ok(alignment),
        _ => {
            let detail = "it must be a power of two from 8 to 1048576".into();
            Err(GgufError::Metadata { key: ALIGNMENT.into(), offset, detail })
        }
    }
}

fn tensor<R: Read + Seek>(cursor: &mut Cursor<R>, index: u64, alignment: u64) -> Result<Tensor, GgufError> {
    let start = cursor.offset();
    let name = text(cursor, LONGEST_NAME, &format!("the name of tensor {index}"))?;
    let fail = |detail: String| GgufError::Tensor { name: name.clone(), offset: start, detail };
    let what = format!("the description of tensor {name:?}");
    if name.is_empty() {
        return Err(fail("the name is empty".into()));
    }
    let dimension_count = cursor.u32(&what)?;
    if !(1..=MOST_DIMENSIONS).contains(&dimension_count) {
        return Err(fail(format!("{dimension_count} dimensions, 1 to {MOST_DIMENSIONS} are possible")));
    }
    let mut dimensions = Vec::new();
    for _ in 0..dimension_count {
        dimensions.push(cursor.u64(&what)?);
    }
    let number = cursor.u32(&what)?;
    let kind = TensorType::from_number(number).ok_or_else(|| fail(format!("unknown tensor type {number}")))?;
    let offset = cursor.u64(&what)?;

    if dimensions.contains(&0) {
        return Err(fail(format!("an empty dimension in {dimensions:?}")));
    }
    let row = dimensions[0];
    if !row.is_multiple_of(kind.block) {
        return Err(fail(format!("rows of {row} elements are no multiple of {}'s block of {}", kind.name, kind.block)));
    }
    // ggml counts elements and bytes in i64.
    let elements = dimensions.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
    let bytes = elements
        .and_then(|elements| (elements / kind.block).checked_mul(kind.bytes))
        .filter(|bytes| *bytes <= i64::MAX.unsigned_abs() / 2)
        .ok_or_else(|| fail(format!("dimensions {dimensions:?} are too large")))?;
    if !offset.is_multiple_of(alignment) {
        return Err(fail(format!("data offset {offset} is no multiple of the alignment {alignment}")));
    }
    Ok(Tensor { name, dimensions, kind, offset, bytes })
}

/// Every tensor inside the file, none over another.
fn check_places(tensors: &[Tensor], places: &[u64], data_offset: u64, end: u64) -> Result<(), GgufError> {
    let fail = |index: usize, detail: String| GgufError::Tensor {
        name: tensors[index].name.clone(),
        offset: places[index],
        detail,
    };
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|index| tensors[*index].offset);
    let mut before: Option<(usize, u64)> = None;
    for index in order {
        let tensor = &tensors[index];
        let start = data_offset.checked_add(tensor.offset);
        let stop = start.and_then(|start| start.checked_add(tensor.bytes));
        match stop {
            Some(stop) if stop <= end => {}
            _ => {
                let detail = format!(
                    "its {} bytes of data at {} + {} reach beyond the file's end at {end}",
                    tensor.bytes, data_offset, tensor.offset
                );
                return Err(fail(index, detail));
            }
        }
        if let Some((other, other_stop)) = before
            && tensor.offset < other_stop
        {
            return Err(fail(index, format!("its data overlaps that of tensor {:?}", tensors[other].name)));
        }
        before = Some((index, tensor.offset + tensor.bytes));
    }
    Ok(())
}
