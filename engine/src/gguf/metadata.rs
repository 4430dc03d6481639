//! [`Metadata`]: the keys and values of a header as they were read, with their types and places, and typed access for the
//! checks. Two things a reader in C sees otherwise are refused where keys are read: control characters in keys, because
//! llama.cpp compares keys only up to a NUL.

use std::collections::BTreeMap;

use super::error::short;
use super::value::kind;
use super::{GgufError, Value};

/// Arrays of whole numbers are kept up to this length: one for each of llama.cpp's layers, and more.
pub(super) const LONGEST_KEPT_ARRAY: u64 = 1024;

/// One value with what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// GGUF's number of the type.
    pub kind: u32,
    /// Where the key starts.
    pub offset: u64,
    pub value: Value,
    /// The elements of a short array of whole numbers or truth values.
    pub integers: Option<Box<[i64]>>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    entries: BTreeMap<String, Entry>,
}

impl Metadata {
    pub fn insert(&mut self, key: String, entry: Entry) {
        self.entries.insert(key, entry);
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The error of a key that is there.
    pub fn fail(&self, key: &str, detail: impl Into<String>) -> GgufError {
        let offset = self.get(key).map_or(0, |entry| entry.offset);
        GgufError::Metadata { key: short(key), offset, detail: detail.into() }
    }

    /// A value that must have the type `wanted` where it is there: llama.cpp refuses others, or ends the process.
    pub fn typed(&self, key: &str, wanted: u32) -> Result<Option<&Value>, GgufError> {
        match self.get(key) {
            Some(entry) if entry.kind != wanted => Err(self.fail(
                key,
                format!("it must be of type {}, and is of type {}", kind::name(wanted), kind::name(entry.kind)),
            )),
            entry => Ok(entry.map(|entry| &entry.value)),
        }
    }

    /// A `u32` of at most `most`.
    pub fn u32(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, GgufError> {
        let Some(number) = self.typed(key, kind::U32)?.and_then(Value::as_u64) else { return Ok(None) };
        self.within(key, number, least, most).map(Some)
    }

    fn within(&self, key: &str, number: u64, least: u64, most: u64) -> Result<u64, GgufError> {
        if (least..=most).contains(&number) {
            Ok(number)
        } else {
            Err(self.fail(key, format!("it is {number}, and must be from {least} to {most}")))
        }
    }

    /// A `u32` or an array of 32-bit whole numbers, one for each layer; all from `least` to `most`.
    pub fn per_layer(&self, key: &str, least: u64, most: u64) -> Result<Option<Vec<u64>>, GgufError> {
        let Some(entry) = self.get(key) else { return Ok(None) };
        if entry.kind != kind::ARRAY {
            return Ok(self.u32(key, least, most)?.map(|number| vec![number]));
        }
        let Value::Array { element: kind::U32 | kind::I32, .. } = entry.value else {
            return Err(self.fail(key, "its elements must be of type u32 or i32"));
        };
        let Some(integers) = &entry.integers else {
            return Err(self.fail(key, format!("it has more than {LONGEST_KEPT_ARRAY} elements")));
        };
        let number = |value: &i64| {
            let number =
                u64::try_from(*value).map_err(|_| self.fail(key, format!("an element is {value}, less than 0")))?;
            self.within(key, number, least, most)
        };
        integers.iter().map(number).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// A text that llama.cpp decides by: it would end it at a NUL.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.typed(key, kind::STRING)? {
            None => Ok(None),
            Some(Value::Text(text)) if !text.contains('\0') => Ok(Some(text)),
            Some(Value::Text(_)) => Err(self.fail(key, "the text has a NUL in it")),
            Some(_) => Err(self.fail(key, "the text is too long")),
        }
    }
}
