//! [`Quantization`]: what llama.cpp can make of a model, and how people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::gguf::{file_type_name, file_type_number};

/// A quantization that llama.cpp makes: a mixture of tensor types with a name (`llama_ftype`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantization(u32);

/// A name that is no quantization of llama.cpp.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("llama.cpp makes no quantization {given:?}; the nearest is {nearest}")]
pub struct UnknownQuantization {
    /// What was asked for.
    pub given: String,
    /// The name that is most alike.
    pub nearest: Quantization,
}

/// All of `llama_ftype` but NVFP4, which llama.cpp reads and does not make; the largest first.
const MADE: [&str; 35] = [
    "F32",
    "BF16",
    "F16",
    "Q8_0",
    "Q6_K",
    "Q5_1",
    "Q5_K_M",
    "Q5_K_S",
    "Q5_0",
    "Q4_1",
    "Q4_K_M",
    "Q4_K_S",
    "IQ4_NL",
    "Q4_0",
    "IQ4_XS",
    "MXFP4_MOE",
    "Q3_K_L",
    "Q3_K_M",
    "IQ3_M",
    "IQ3_S",
    "Q3_K_S",
    "IQ3_XS",
    "IQ3_XXS",
    "Q2_K",
    "Q2_K_S",
    "IQ2_M",
    "IQ2_S",
    "IQ2_XS",
    "Q2_0",
    "IQ2_XXS",
    "TQ2_0",
    "IQ1_M",
    "TQ1_0",
    "IQ1_S",
    "Q1_0",
];

/// Short names that llama.cpp's own `llama-quantize` takes too.
const SHORT: [(&str, &str); 3] = [("Q3_K", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M")];

impl Quantization {
    /// The one to take where nothing is said: small, and close to the original.
    pub const DEFAULT: Self = Self(15);
    /// Experts in MXFP4, the rest in `Q8_0`: how gpt-oss is published.
    pub const MXFP4: Self = Self(38);

    /// Every quantization, from the largest to the smallest.
    pub fn all() -> impl Iterator<Item = Self> {
        MADE.iter().filter_map(|name| file_type_number(name)).map(Self)
    }

    /// The one that `llama-quantize` makes by this name, in any case: llama.cpp's own name, or `Q4_K` for `Q4_K_M` and the
    /// like. [`FromStr`] understands more of what people write.
    pub fn from_name(name: &str) -> Option<Self> {
        let long = SHORT.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)).map_or(name, |(_, long)| long);
        Self::all().find(|known| known.name().eq_ignore_ascii_case(long))
    }

    /// llama.cpp's number of it (`llama_ftype`).
    pub fn file_type(self) -> u32 {
        self.0
    }

    /// Whether llama.cpp makes it only with an importance matrix (`tensor_requires_imatrix` in `llama-quant.cpp`).
    pub fn needs_importance(self) -> bool {
        let name = self.name();
        name.starts_with("IQ1") || name.starts_with("IQ2") || ["IQ3_XS", "IQ3_XXS", "Q2_K_S"].contains(&name)
    }

    /// Whether an importance matrix changes which types it is a mixture of.
    pub(super) fn heeds_importance(self) -> bool {
        ["IQ3_XXS", "IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0"].contains(&self.name())
    }

    /// llama.cpp's name of it, e.g. `Q4_K_M`.
    pub fn name(self) -> &'static str {
        file_type_name(self.0.into()).unwrap_or("?")
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Quantization> for String {
    fn from(quantization: Quantization) -> Self {
        quantization.name().to_owned()
    }
}

impl TryFrom<String> for Quantization {
    type Error = UnknownQuantization;

    fn try_from(name: String) -> Result<Self, UnknownQuantization> {
        name.parse()
    }
}

impl FromStr for Quantization {
    type Err = UnknownQuantization;

    /// Reads llama.cpp's names, in any case, and what people write for the same: `Q4_K - Medium`, `Q4_K` for `Q4_K_M` (as
    /// `llama-quantize` does), `IQ3_XXS - 3.0625 bpw`, `MXFP4`, `FP16`.
    fn from_str(given: &str) -> Result<Self, UnknownQuantization> {
        let plain = plain(given);
        Self::from_name(&plain)
            .or_else(|| alias(&plain).and_then(Self::from_name))
            .ok_or_else(|| UnknownQuantization { given: given.trim().to_owned(), nearest: nearest(&plain) })
    }
}

/// Upper case, underscores for what stands between, without what only describes.
fn plain(given: &str) -> String {
    let upper = given.trim().to_uppercase();
    let mut words: Vec<&str> =
        upper.split([' ', '-', '_', '.', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
    // "IQ3_XXS - 3.0625 bpw" and "MXFP4 MoE": the first is how many bits a weight takes.
    if let Some(end) = words.iter().position(|word| *word == "BPW") {
        let start =
            words[..end].iter().rposition(|word| !word.chars().all(|c| c.is_ascii_digit())).map_or(0, |at| at + 1);
        words.drain(start..=end);
    }
    let words: Vec<&str> = words
        .into_iter()
        .map(|word| match word {
            "SMALL" => "S",
            "MEDIUM" => "M",
            "LARGE" => "L",
            other => other,
        })
        .collect();
    words.join("_")
}

/// What means one of the names and is none.
fn alias(plain: &str) -> Option<&'static str> {
    Some(match plain {
        "Q3KM" => "Q3_K_M",
        "Q4KM" => "Q4_K_M",
        "Q5KM" => "Q5_K_M",
        "Q4KS" => "Q4_K_S",
        "Q5KS" => "Q5_K_S",
        "Q6K" => "Q6_K",
        "Q2K" => "Q2_K",
        "MXFP4" => "MXFP4_MOE",
        "FP32" | "FLOAT32" | "ALL_F32" => "F32",
        "FP16" | "FLOAT16" | "HALF" | "MOSTLY_F16" => "F16",
        "BFLOAT16" | "MOSTLY_BF16" => "BF16",
        "Q8" => "Q8_0",
        _ => return None,
    })
}

/// The most alike: what follows another quantizer's prefix or suffix is cut off first.
fn nearest(plain: &str) -> Quantization {
    let bare = plain.strip_prefix("UD_").unwrap_or(plain);
    let bare = ["_R4", "_R8"].iter().find_map(|suffix| bare.strip_suffix(suffix)).unwrap_or(bare);
    let bare = bare.strip_suffix("_XL").map_or_else(|| bare.to_owned(), |rest| format!("{rest}_M"));
    let bare = if bare == "Q8_K" { "Q8_0".into() } else { bare };
    let bare = bare.replace("Q8_K_M", "Q8_0").replace("Q6_K_M", "Q6_K").replace("Q2_K_M", "Q2_K");
    if let Some(same) = Quantization::from_name(alias(&bare).unwrap_or(&bare)) {
        return same;
    }
    let best = Quantization::all().min_by_key(|known| {
        // Another number of bits is further away than any other letter.
        let bits = |name: &str| name.chars().find(char::is_ascii_digit);
        (usize::from(bits(known.name()) != bits(&bare)), strsim::levenshtein(known.name(), &bare))
    });
    best.unwrap_or(Quantization::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        for (written, meant) in [
            ("Q4_K_M", "Q4_K_M"),
            ("q4_k_m", "Q4_K_M"),
            ("Q4_K - Medium", "Q4_K_M"),
            ("Q3_K - Large", "Q3_K_L"),
            ("Q2_K - Small", "Q2_K_S"),
            ("Q4_K", "Q4_K_M"),
            ("q3_K", "Q3_K_M"),
            ("Q5_K", "Q5_K_M"),
            ("MXFP4", "MXFP4_MOE"),
            ("MXFP4 MoE", "MXFP4_MOE"),
            ("mxfp4_moe", "MXFP4_MOE"),
            ("IQ3_XXS - 3.0625 bpw", "IQ3_XXS"),
            ("IQ4_XS - 4.25 bpw", "IQ4_XS"),
            ("IQ1_S - 1.5625 bpw", "IQ1_S"),
            ("fp16", "F16"),
            ("bf16", "BF16"),
            ("all F32", "F32"),
            ("TQ1_0", "TQ1_0"),
        ] {
            assert_eq!(written.parse::<Quantization>().map(Quantization::name), Ok(meant), "{written}");
        }
        assert_eq!(Quantization::all().count(), MADE.len());
        for known in Quantization::all() {
            assert_eq!(known.name().parse(), Ok(known));
        }
        assert_eq!((Quantization::DEFAULT.name(), Quantization::MXFP4.name()), ("Q4_K_M", "MXFP4_MOE"));
    }

    #[test]
    fn all_that_llama_cpp_makes_is_known_by_its_name_alone() {
        for known in Quantization::all() {
            assert_eq!(Quantization::from_name(&known.name().to_lowercase()), Some(known));
        }
        // All file types but the one that this build reads and cannot make.
        for name in (0..1024).filter_map(file_type_name).filter(|name| *name != "NVFP4") {
            assert!(Quantization::from_name(name).is_some(), "{name}");
        }
        for (name, meant) in
            [("q4_k", Some("Q4_K_M")), ("NVFP4", None), ("Q4", None), (" Q4_K_M", None), ("fp16", None), ("Q4KM", None)]
        {
            assert_eq!(Quantization::from_name(name).map(Quantization::name), meant, "{name}");
        }
    }

    #[test]
    fn other_quantizers_types_are_refused_with_the_nearest() {
        for (written, near) in [
            ("UD-Q4_K_XL", "Q4_K_M"),
            ("Q4_K_XL", "Q4_K_M"),
            ("UD-Q8_K_XL", "Q8_0"),
            ("UD-IQ2_XXS", "IQ2_XXS"),
            ("IQ4_KS", "IQ4_XS"),
            ("Q4_K_R4", "Q4_K_M"),
            ("Q8_K_R8", "Q8_0"),
            ("Q9_0", "Q8_0"),
        ] {
            let error = written.parse::<Quantization>().expect_err(written);
            assert_eq!(error.given, written);
            assert_eq!(error.nearest.name(), near, "{written}");
        }
    }
}
