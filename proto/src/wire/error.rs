//! [`ConversionError`] and the checks that every conversion from the wire is made of.
//!
//! A peer may be hostile: every text, list and rate passes through here before it becomes a domain value.

use bytes::Bytes as RawBytes;

use crate::{BytesPerSecond, ModelDigest, Timestamp, TokensPerSecond};

/// Longest text of a field, in bytes: an error message with llama.cpp's log fits, a flood does not.
pub const TEXT_MAX: usize = 4096;
/// Longest text of a policy, in bytes.
pub const POLICY_MAX: usize = 256 * 1024;
/// Most entries of a list within one machine or model.
pub const LIST_MAX: usize = 4096;
/// Most entries of a list over the whole fleet.
pub const FLEET_MAX: usize = 100_000;
/// Most samples of one measurement.
pub const SAMPLES_MAX: usize = 1000;

/// A message that means nothing in the domain: which field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConversionError {
    /// The field's path within the message, e.g. `devices[2].memory_total`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ConversionError {
    /// The field `path` is wrong because of `reason`.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    /// The same error seen from the message that holds this one in the field `outer`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self { path: format!("{outer}.{}", self.path), reason: self.reason }
    }
}

/// The first [`TEXT_MAX`] bytes of free text, so that a peer never refuses a message for a long error text in it.
pub(super) fn clip(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

pub(super) fn text(field: &str, value: String) -> Result<String, ConversionError> {
    text_up_to(TEXT_MAX, field, value)
}

pub(super) fn text_up_to(max: usize, field: &str, value: String) -> Result<String, ConversionError> {
    if value.len() > max {
        return Err(ConversionError::new(field, format!("{} bytes, at most {max} are taken", value.len())));
    }
    Ok(value)
}

pub(super) fn optional_text(field: &str, value: Option<String>) -> Result<Option<String>, ConversionError> {
    value.map(|value| text(field, value)).transpose()
}

fn check_count(field: &str, count: usize, max: usize) -> Result<(), ConversionError> {
    if count > max {
        return Err(ConversionError::new(field, format!("{count} entries, at most {max} are taken")));
    }
    Ok(())
}

pub(super) fn texts(field: &str, values: Vec<String>) -> Result<Vec<String>, ConversionError> {
    check_count(field, values.len(), LIST_MAX)?;
    values.into_iter().enumerate().map(|(index, value)| text(&format!("{field}[{index}]"), value)).collect()
}

pub(super) fn samples(field: &str, values: Vec<f64>) -> Result<Vec<f64>, ConversionError> {
    check_count(field, values.len(), SAMPLES_MAX)?;
    match values.iter().position(|value| TokensPerSecond::new(*value).is_none()) {
        Some(index) => Err(not_a_rate(&format!("{field}[{index}]"), values[index])),
        None => Ok(values),
    }
}

/// Converts a list of at most [`LIST_MAX`] messages, in order.
pub(super) fn list<W, D>(field: &str, values: Vec<W>) -> Result<Vec<D>, ConversionError>
where
    D: TryFrom<W, Error = ConversionError>,
{
    list_up_to(LIST_MAX, field, values)
}

pub(super) fn list_up_to<W, D>(max: usize, field: &str, values: Vec<W>) -> Result<Vec<D>, ConversionError>
where
    D: TryFrom<W, Error = ConversionError>,
{
    check_count(field, values.len(), max)?;
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| D::try_from(value).map_err(|error| error.within(&format!("{field}[{index}]"))))
        .collect()
}

/// Converts a message that must be there.
pub(super) fn required<W, D>(field: &str, value: Option<W>) -> Result<D, ConversionError>
where
    D: TryFrom<W, Error = ConversionError>,
{
    let value = value.ok_or_else(|| ConversionError::new(field, "missing"))?;
    D::try_from(value).map_err(|error| error.within(field))
}

/// Converts a message that may be absent.
pub(super) fn optional<W, D>(field: &str, value: Option<W>) -> Result<Option<D>, ConversionError>
where
    D: TryFrom<W, Error = ConversionError>,
{
    value.map(|value| D::try_from(value).map_err(|error| error.within(field))).transpose()
}

fn not_a_rate(field: &str, value: f64) -> ConversionError {
    ConversionError::new(field, format!("{value} is no rate"))
}

pub(super) fn tokens_rate(field: &str, value: f64) -> Result<TokensPerSecond, ConversionError> {
    TokensPerSecond::new(value).ok_or_else(|| not_a_rate(field, value))
}

pub(super) fn optional_tokens_rate(
    field: &str,
    value: Option<f64>,
) -> Result<Option<TokensPerSecond>, ConversionError> {
    value.map(|value| tokens_rate(field, value)).transpose()
}

pub(super) fn optional_bytes_rate(field: &str, value: Option<f64>) -> Result<Option<BytesPerSecond>, ConversionError> {
    value.map(|value| BytesPerSecond::new(value).ok_or_else(|| not_a_rate(field, value))).transpose()
}

/// A finite figure that is not negative, e.g. bits per weight.
pub(super) fn figure(field: &str, value: f64) -> Result<f64, ConversionError> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(ConversionError::new(field, format!("{value} is not a finite figure of 0 and above")))
    }
}

/// A moment that prints and reads back: within the years −9999 to 9999.
pub(super) fn moment(field: &str, millis: i64) -> Result<Timestamp, ConversionError> {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(_) => Ok(Timestamp::from_unix_millis(millis)),
        Err(_) => Err(ConversionError::new(field, format!("{millis} ms after 1970 is no date"))),
    }
}

/// An id, a digest or a fingerprint from its bytes.
pub(super) fn identity<D>(field: &str, bytes: &RawBytes) -> Result<D, ConversionError>
where
    D: for<'bytes> TryFrom<&'bytes [u8]>,
{
    D::try_from(bytes.as_ref()).map_err(|_| {
        let wanted = if size_of::<D>() == size_of::<ModelDigest>() { 32 } else { 16 };
        ConversionError::new(field, format!("{} bytes, expected {wanted}", bytes.len()))
    })
}

/// `From<&Domain>` beside each `From<Domain>`, for callers that keep theirs.
macro_rules! from_reference {
    ($($name:ident),+ $(,)?) => {
        $(impl From<&$name> for wire::$name {
            fn from(value: &$name) -> Self {
                Self::from(value.clone())
            }
        })+
    };
}
pub(super) use from_reference;
