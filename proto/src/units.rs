//! Units as types: no bare number with a unit in its name crosses a function boundary.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// An amount of memory or storage, in bytes. Serialized as a plain number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// That many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many mebibytes (2^20 bytes).
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// That many gibibytes (2^30 bytes).
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or the largest amount if it would overflow.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing if `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The difference, or `None` if `other` is larger.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// Reads what people write: `512MiB`, `24 GiB`, `1.5g`, `1000000`. Units are powers of 1024 whether or not the `i`
    /// is written, as llama.cpp and GPU vendors use them.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(format!("unknown unit in {text:?}: write for example 512MiB or 24GiB")),
        };
        let wrong = || format!("{text:?} is not a size: write for example 512MiB or 24GiB");
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(Self).ok_or_else(|| format!("{text:?} is larger than 16 EiB"));
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let bytes = number * (1u64 << shift) as f64;
        if !(0.0..1.8e19).contains(&bytes) {
            return Err(wrong());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked above")]
        Ok(Self(bytes.round() as u64))
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Bytes {
    /// `11.2 GiB`: binary units, one decimal from a KiB on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

macro_rules! rate {
    ($(#[$doc:meta])* $name:ident, $suffix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(f64);

        impl $name {
            /// The rate, or `None` unless it is finite and not negative.
            pub fn new(rate: f64) -> Option<Self> {
                (rate.is_finite() && rate >= 0.0).then_some(Self(rate))
            }

            /// The plain number.
            pub const fn get(self) -> f64 {
                self.0
            }
        }
    };
}

rate! {
    /// Tokens processed (prefill) or generated (decode) a second.
    TokensPerSecond, "tok/s"
}
rate! {
    /// Bytes moved a second.
    BytesPerSecond, "B/s"
}

impl fmt::Display for TokensPerSecond {
    /// Three significant digits: `8.14 tok/s`, `60.2 tok/s`, `1250 tok/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0 {
            rate if rate < 10.0 => 2,
            rate if rate < 100.0 => 1,
            _ => 0,
        };
        f.pad(&format!("{:.decimals$} tok/s", self.0))
    }
}

impl fmt::Display for BytesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative by construction; `as` saturates"
        )]
        let bytes = Bytes(self.0 as u64);
        f.pad(&format!("{bytes}/s"))
    }
}

/// A length in tokens of a context window, over one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContextTokens(u32);

impl ContextTokens {
    /// That many tokens.
    pub const fn new(tokens: u32) -> Self {
        Self(tokens)
    }

    /// The number of tokens.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ContextTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} tokens", self.0))
    }
}

/// `131,072`: a number as people read it.
pub fn grouped(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let said = [0_u64, 999, 4096, 131_072, 10_485_760].map(grouped);
        assert_eq!(said, ["0", "999", "4,096", "131,072", "10,485,760"]);
    }

    #[test]
    fn sizes_read_back_as_people_write_them() {
        assert_eq!(Bytes::parse("24GiB"), Ok(Bytes::from_gib(24)));
        assert_eq!(Bytes::parse(" 512 mb "), Ok(Bytes::from_mib(512)));
        assert_eq!(Bytes::parse("1.5g"), Ok(Bytes::from_mib(1536)));
        assert_eq!(Bytes::parse("17"), Ok(Bytes::new(17)));
        for wrong in ["", "GiB", "-1GiB", "1.2.3m", "4 parsecs", "99999999999t"] {
            assert!(Bytes::parse(wrong).is_err(), "{wrong:?} was taken for a size");
        }
    }

    #[test]
    fn sizes_print_in_binary_units() {
        assert_eq!(Bytes::new(1023).to_string(), "1023 B");
        assert_eq!(Bytes::from_mib(11_469).to_string(), "11.2 GiB");
        assert_eq!(Bytes::new((1 << 20) - 1).to_string(), "1.0 MiB");
        assert_eq!(Bytes::new(u64::MAX).to_string(), "16777216.0 TiB");
    }

    #[test]
    fn rates_that_are_no_rates_are_refused() {
        assert!(TokensPerSecond::new(f64::NAN).is_none());
        assert!(TokensPerSecond::new(-1.0).is_none());
        assert_eq!(TokensPerSecond::new(8.136).map(|r| r.to_string()), Some("8.14 tok/s".into()));
    }
}
