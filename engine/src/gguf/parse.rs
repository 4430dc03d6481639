//! [`parse`]: reads a header from its first byte to the start of the tensor data, and judges what it reads.

use std::collections::HashSet;
use std::io::{Read, Seek};

use muster_proto::Bytes;

use super::cursor::Cursor;
use super::error::{quote, short};
use super::header::{GgufHeader, SplitPart, Tensor};
use super::metadata::{Entry, LONGEST_KEPT_ARRAY, Metadata};
use super::tokenizer::{
    LONGEST_TEMPLATE, LONGEST_TOKEN, MOST_TOKEN_BYTES, MOST_TOKENS, TOKENS, Vocabulary, is_template,
};
use super::types::removed_type;
use super::value::kind;
use super::{GgufError, MAGIC, TensorType, Value, shape, sniff, tokenizer};

/// Most metadata entries; the largest models have about a hundred.
const MOST_ENTRIES: u64 = 1 << 16;
/// Most tensors; the largest models have a few thousand.
const MOST_TENSORS: u64 = 1 << 16;
/// Longest key, by the format.
const LONGEST_KEY: u64 = (1 << 16) - 1;
/// Longest tensor name: ggml's `GGML_MAX_NAME` less its closing zero.
const LONGEST_NAME: u64 = 63;
/// Longest text.
const LONGEST_TEXT: u64 = 16 << 20;
/// Longest text in an array.
const LONGEST_ELEMENT: u64 = 1 << 20;
/// Longest text that is kept.
const LONGEST_KEPT: u64 = 16 << 10;
/// Most that is kept of all keys and texts together.
const MOST_KEPT: u64 = 16 << 20;
/// Most elements of an array.
const MOST_ELEMENTS: u64 = 1 << 24;
/// Most texts in all arrays together; the largest vocabularies and their merges have some 800,000.
const MOST_TEXTS: u64 = 3 << 19;
/// Dimensions of a tensor: ggml's `GGML_MAX_DIMS`.
const MOST_DIMENSIONS: u32 = 4;
/// Most parts of a model in several files.
pub(super) const MOST_PARTS: u64 = 1 << 10;

/// The elements of an array of whole numbers, where they are kept.
type Integers = Option<Box<[i64]>>;

/// What is read piece by piece, and how much of it there was.
struct Parser<R> {
    cursor: Cursor<R>,
    /// Bytes of keys, texts and numbers that are kept.
    kept: u64,
    /// Texts in arrays.
    texts: u64,
    vocabulary: Vocabulary,
}

/// Reads and judges a header.
pub(super) fn parse<R: Read + Seek>(cursor: Cursor<R>) -> Result<GgufHeader, GgufError> {
    let mut parser = Parser { cursor, kept: 0, texts: 0, vocabulary: Vocabulary::default() };
    let version = parser.start()?;
    let tensor_count = parser.cursor.count(MOST_TENSORS, "the number of tensors")?;
    let entry_count = parser.cursor.count(MOST_ENTRIES, "the number of metadata entries")?;

    let mut metadata = Metadata::default();
    for index in 0..entry_count {
        let (key, entry) = parser.entry(index)?;
        if metadata.get(&key).is_some() {
            let detail = "the key occurs twice".to_owned();
            return Err(GgufError::Metadata { key: short(&key), offset: entry.offset, detail });
        }
        metadata.insert(key, entry);
    }
    let split = split(&metadata)?;
    // Only the first of several files says what the model is.
    let follows = split.is_some_and(|part| part.number > 0);
    let architecture = metadata.text("general.architecture")?.map(str::to_owned);
    match architecture.as_deref() {
        Some("") => return Err(metadata.fail("general.architecture", "it is empty")),
        Some(architecture) => shape::check(&metadata, architecture)?,
        None if follows => {}
        None => {
            let detail = "it is missing, and without it llama.cpp cannot know what the model is".to_owned();
            return Err(GgufError::Metadata {
                key: "general.architecture".into(),
                offset: parser.cursor.offset(),
                detail,
            });
        }
    }
    let alignment = shape::alignment(&metadata)?;
    tokenizer::check(&metadata, &parser.vocabulary)?;

    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    let mut place = Place { next: 0, needs: 0 };
    for index in 0..tensor_count {
        let offset = parser.cursor.offset();
        let tensor = parser.tensor(index)?;
        if !names.insert(tensor.name.clone()) {
            return Err(GgufError::Tensor { name: tensor.name, offset, detail: "the name occurs twice".into() });
        }
        tokenizer::check_table(&metadata, architecture.as_deref().unwrap_or_default(), &tensor, offset)?;
        place.put(&tensor, offset, alignment)?;
        tensors.push(tensor);
    }
    if tensors.is_empty() && split.is_none() {
        let detail = if metadata.get(TOKENS).is_some() {
            "it has a vocabulary and no tensors, as files for testing tokenizers do"
        } else {
            "it has no tensors"
        };
        return Err(GgufError::NoModel { detail: detail.to_owned() });
    }
    let end = parser.cursor.end();
    let header_end = parser.cursor.offset();
    let data_offset = header_end.next_multiple_of(alignment);
    place.check(&tensors, data_offset, end)?;
    let tensor_bytes = tensors.iter().map(|tensor| Bytes::new(tensor.bytes)).sum();
    Ok(GgufHeader { version, file_size: Bytes::new(end), data_offset, tensor_bytes, tensors, metadata, split })
}

impl<R: Read + Seek> Parser<R> {
    /// Magic and version.
    fn start(&mut self) -> Result<u32, GgufError> {
        let start = self.cursor.peek(sniff::SNIFFED)?;
        if !start.starts_with(&MAGIC) {
            return Err(GgufError::NotGguf { looks_like: sniff::looks_like(&start) });
        }
        self.cursor.bytes::<4>("the magic")?;
        let found = self.cursor.u32("the version")?;
        let detail = match (found, found.swap_bytes()) {
            (2 | 3, _) => return Ok(found),
            (1, _) => {
                "llama.cpp dropped version 1 in 2023; convert the model again or download a newer file".to_owned()
            }
            (_, swapped @ 1..=3) => format!(
                "the file is big-endian, version {swapped}; download the little-endian file or run \
                 gguf_convert_endian.py on it"
            ),
            _ => "only versions 2 and 3 are".to_owned(),
        };
        Err(GgufError::Version { found, detail })
    }

    fn keep(&mut self, length: u64, key: &str, offset: u64) -> Result<(), GgufError> {
        self.kept = self.kept.saturating_add(length);
        if self.kept > MOST_KEPT {
            let detail = format!("keys, texts and short arrays are together too long, more than {MOST_KEPT} bytes");
            return Err(GgufError::Metadata { key: short(key), offset, detail });
        }
        Ok(())
    }

    /// A name of something: UTF-8, no control characters. llama.cpp ends names at a NUL when it compares them, and would
    /// find another value than was judged here.
    fn name(&mut self, most: u64, what: &str) -> Result<String, GgufError> {
        let offset = self.cursor.offset();
        let length = self.cursor.count(most, &format!("the length of {what}"))?;
        let bytes = self.cursor.vec(length, what)?;
        let fail = |words: &str, detail: &str| GgufError::Metadata {
            key: short(words),
            offset,
            detail: format!("{what} {detail}"),
        };
        let name = String::from_utf8(bytes)
            .map_err(|error| fail(&String::from_utf8_lossy(error.as_bytes()), "is not UTF-8"))?;
        if name.is_empty() {
            return Err(fail(&name, "is empty"));
        }
        if name.chars().any(char::is_control) {
            return Err(fail(&name, "has a control character in it"));
        }
        Ok(name)
    }

    /// One key and its value.
    fn entry(&mut self, index: u64) -> Result<(String, Entry), GgufError> {
        let offset = self.cursor.offset();
        let key = self.name(LONGEST_KEY, &format!("the key of metadata entry {index}"))?;
        self.keep(key.len() as u64, &key, offset)?;
        let kind = self.cursor.u32(&format!("the type of {}", quote(&key)))?;
        let what = format!("the value of {}", quote(&key));
        let fail = |detail: String| GgufError::Metadata { key: short(&key), offset, detail };
        let cursor = &mut self.cursor;
        let mut integers = None;
        let value = match kind {
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
            kind::STRING => self.text(&key, offset, &what)?,
            kind::ARRAY => {
                let (value, found) = self.array(&key, offset, &what)?;
                integers = found;
                value
            }
            unknown => return Err(fail(format!("unknown type {unknown}"))),
        };
        Ok((key, Entry { kind, offset, value, integers }))
    }

    fn text(&mut self, key: &str, offset: u64, what: &str) -> Result<Value, GgufError> {
        let most = if is_template(key) { LONGEST_TEMPLATE } else { LONGEST_TEXT };
        let length = self.cursor.count(most, &format!("the length of {what}"))?;
        if length > LONGEST_KEPT {
            self.cursor.skip(length, what)?;
            return Ok(Value::LongText { length });
        }
        self.keep(length, key, offset)?;
        let bytes = self.cursor.vec(length, what)?;
        let utf8 = String::from_utf8(bytes);
        utf8.map(Value::Text).map_err(|_| GgufError::Metadata {
            key: short(key),
            offset,
            detail: "the text is not UTF-8".into(),
        })
    }

    fn array(&mut self, key: &str, offset: u64, what: &str) -> Result<(Value, Integers), GgufError> {
        let fail = |detail: String| GgufError::Metadata { key: short(key), offset, detail };
        let element = self.cursor.u32(&format!("the element type of {}", quote(key)))?;
        let most = if key == TOKENS { MOST_TOKENS } else { MOST_ELEMENTS };
        let length_offset = self.cursor.offset();
        let length = self.cursor.count(most, &format!("the number of elements of {}", quote(key)))?;
        if element == kind::STRING {
            self.texts += length;
            if self.texts > MOST_TEXTS {
                return Err(GgufError::TooMany {
                    what: format!("the number of texts in all arrays with {}", quote(key)),
                    offset: length_offset,
                    found: self.texts,
                    most: MOST_TEXTS,
                });
            }
            self.texts_of(key, length, what)?;
            return Ok((Value::Array { element, length }, None));
        }
        if element == kind::ARRAY {
            return Err(fail("an array of arrays, which llama.cpp does not read".to_owned()));
        }
        let size = kind::size(element).ok_or_else(|| fail(format!("elements of unknown type {element}")))?;
        let bytes = length.checked_mul(size).ok_or_else(|| fail(format!("{length} elements are too many")))?;
        let whole = !matches!(element, kind::F32 | kind::F64);
        if !whole || length > LONGEST_KEPT_ARRAY {
            self.cursor.skip(bytes, what)?;
            return Ok((Value::Array { element, length }, None));
        }
        self.keep(length * 8, key, offset)?;
        let bytes = self.cursor.vec(bytes, what)?;
        let step = usize::try_from(size).unwrap_or(1);
        let integers = bytes.chunks_exact(step).map(|bytes| whole_number(bytes, element)).collect();
        Ok((Value::Array { element, length }, Some(integers)))
    }

    /// The texts of an array: skipped, but for those of the vocabulary.
    fn texts_of(&mut self, key: &str, length: u64, what: &str) -> Result<(), GgufError> {
        let name = format!("the length of a text in {}", quote(key));
        if key != TOKENS {
            return self.cursor.texts(length, LONGEST_ELEMENT, (what, &name), |_, _| Ok(()));
        }
        let Self { cursor, vocabulary, .. } = self;
        let mut total = 0;
        cursor.texts(length, LONGEST_TOKEN, (what, &name), |offset, token| {
            total += token.len() as u64;
            if total > MOST_TOKEN_BYTES {
                let what = format!("the length of all texts in {}", quote(key));
                return Err(GgufError::TooMany { what, offset, found: total, most: MOST_TOKEN_BYTES });
            }
            vocabulary.push(token);
            Ok(())
        })
    }

    fn tensor(&mut self, index: u64) -> Result<Tensor, GgufError> {
        let start = self.cursor.offset();
        let name = self.name(LONGEST_NAME, &format!("the name of tensor {index}"))?;
        let fail = |detail: String| GgufError::Tensor { name: name.clone(), offset: start, detail };
        let what = format!("the description of tensor {}", quote(&name));
        let dimension_count = self.cursor.u32(&what)?;
        if dimension_count > MOST_DIMENSIONS {
            return Err(fail(format!("{dimension_count} dimensions, at most {MOST_DIMENSIONS} are possible")));
        }
        let mut dimensions = Vec::new();
        for _ in 0..dimension_count {
            dimensions.push(self.cursor.u64(&what)?);
        }
        if dimensions.is_empty() {
            // A single number, which some converters write.
            dimensions.push(1);
        }
        let number = self.cursor.u32(&what)?;
        let kind = TensorType::from_number(number).ok_or_else(|| {
            fail(match removed_type(number) {
                Some((name, advice)) => format!("type {name} ({number}) was removed from the format; {advice}"),
                None => format!("unknown tensor type {number}"),
            })
        })?;
        let offset = self.cursor.u64(&what)?;

        if dimensions.contains(&0) {
            return Err(fail(format!("an empty dimension in {dimensions:?}")));
        }
        if let Some(negative) = dimensions.iter().find(|size| i64::try_from(**size).is_err()) {
            let signed = negative.cast_signed();
            return Err(fail(format!("a negative or too large dimension in {dimensions:?}: ggml reads {signed}")));
        }
        let row = dimensions[0];
        if !row.is_multiple_of(kind.block) {
            let detail = format!("rows of {row} elements are no multiple of {}'s block of {}", kind.name, kind.block);
            return Err(fail(detail));
        }
        // ggml counts elements and bytes in i64, and adds to them.
        let elements = dimensions.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
        let most = i64::MAX.unsigned_abs() / 2;
        let bytes = elements
            .filter(|elements| *elements <= most)
            .and_then(|elements| (elements / kind.block).checked_mul(kind.bytes))
            .filter(|bytes| *bytes <= most)
            .ok_or_else(|| fail(format!("dimensions {dimensions:?} are too large")))?;
        Ok(Tensor { name, dimensions, kind, offset, bytes })
    }
}

/// A little-endian whole number of a type of fixed size; what no `i64` holds is the largest.
fn whole_number(bytes: &[u8], element: u32) -> i64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    let unused = 64 - 8 * bytes.len();
    match element {
        kind::I8 | kind::I16 | kind::I32 | kind::I64 => (unsigned << unused).cast_signed() >> unused,
        _ => i64::try_from(unsigned).unwrap_or(i64::MAX),
    }
}

/// Where tensors stand: llama.cpp demands that each starts where the one before it in the header ends, padded.
struct Place {
    /// Where the next one starts, from the start of the data.
    next: u64,
    /// How long the data is, without padding after the last.
    needs: u64,
}

impl Place {
    fn put(&mut self, tensor: &Tensor, start: u64, alignment: u64) -> Result<(), GgufError> {
        let fail = |detail: String| GgufError::Tensor { name: tensor.name.clone(), offset: start, detail };
        let offset = tensor.offset;
        if !offset.is_multiple_of(alignment) {
            return Err(fail(format!("data offset {offset} is no multiple of the alignment {alignment}")));
        }
        if offset < self.next {
            let next = self.next;
            return Err(fail(format!("data offset {offset} overlaps tensors before it, which end at {next}")));
        }
        if offset > self.next {
            let next = self.next;
            return Err(fail(format!(
                "data offset {offset} leaves a hole, {next} comes next; llama.cpp takes no holes"
            )));
        }
        let end = offset.checked_add(tensor.bytes).filter(|end| *end <= i64::MAX.unsigned_abs() / 2);
        let end = end.ok_or_else(|| fail("all tensors together are too large".to_owned()))?;
        self.needs = end;
        self.next = end.next_multiple_of(alignment);
        Ok(())
    }

    /// Whether all of it is inside the file.
    fn check(&self, tensors: &[Tensor], data_offset: u64, end: u64) -> Result<(), GgufError> {
        let needs = data_offset.saturating_add(self.needs);
        let outside = |tensor: &&Tensor| {
            data_offset
                .checked_add(tensor.offset)
                .and_then(|start| start.checked_add(tensor.bytes))
                .is_none_or(|stop| stop > end)
        };
        match tensors.iter().find(outside) {
            Some(tensor) => Err(GgufError::TooShort { tensor: tensor.name.clone(), needs, end }),
            None => Ok(()),
        }
    }
}

/// Which part of a model in several files this is. llama.cpp reads `split.no` of the others without looking at its type.
fn split(metadata: &Metadata) -> Result<Option<SplitPart>, GgufError> {
    const COUNT: &str = "split.count";
    const NUMBER: &str = "split.no";
    const TENSORS: &str = "split.tensors.count";
    let number = |key: &str, wanted: u32| {
        metadata
            .typed(key, wanted)
            .map(|value| value.and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok()))
    };
    let Some(count) = number(COUNT, kind::U16)? else { return Ok(None) };
    let part = number(NUMBER, kind::U16)?;
    let tensors = metadata.typed(TENSORS, kind::I32)?;
    if count <= 1 {
        return Ok(None);
    }
    if u64::from(count) > MOST_PARTS {
        return Err(metadata.fail(COUNT, format!("{count} parts, at most {MOST_PARTS} are possible")));
    }
    let part = part.ok_or_else(|| metadata.fail(COUNT, format!("{count} parts, and no {NUMBER}")))?;
    if part >= count {
        return Err(metadata.fail(NUMBER, format!("part {part} (counted from 0) of {count}")));
    }
    let total = match tensors.map(Value::as_u64) {
        None => return Err(metadata.fail(COUNT, format!("{count} parts, and no {TENSORS}"))),
        Some(None) => return Err(metadata.fail(TENSORS, "it is less than 0")),
        Some(Some(total)) if total == 0 || total > MOST_TENSORS => {
            return Err(metadata.fail(TENSORS, format!("it is {total}, and must be from 1 to {MOST_TENSORS}")));
        }
        Some(Some(total)) => total,
    };
    Ok(Some(SplitPart { number: part, count, tensors: total }))
}
