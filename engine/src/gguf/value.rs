//! [`Value`]: one value of a GGUF's metadata.

/// A metadata value. Arrays are counted and skipped, except that [`GgufWriter`](super::GgufWriter) writes them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any of GGUF's unsigned types.
    Unsigned(u64),
    /// Any of its signed types.
    Signed(i64),
    /// `f32` or `f64`.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// A text too long to keep.
    LongText {
        /// Its length in bytes.
        length: u64,
    },
    /// An array, of which only this is kept.
    Array {
        /// GGUF's number of the elements' type.
        element: u32,
        /// How many elements.
        length: u64,
    },
}

impl Value {
    /// A whole number, of whatever type it was.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// GGUF's numbers for the types of values.
pub(super) mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;

    /// What GGUF calls it.
    pub const fn name(kind: u32) -> &'static str {
        match kind {
            U8 => "u8",
            I8 => "i8",
            U16 => "u16",
            I16 => "i16",
            U32 => "u32",
            I32 => "i32",
            F32 => "f32",
            BOOL => "bool",
            STRING => "text",
            ARRAY => "array",
            U64 => "u64",
            I64 => "i64",
            F64 => "f64",
            _ => "unknown type",
        }
    }

    /// Bytes of a value of fixed size.
    pub const fn size(kind: u32) -> Option<u64> {
        match kind {
            U8 | I8 | BOOL => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            _ => None,
        }
    }
}
