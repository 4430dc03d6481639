//! [`QUANTIZATIONS`]: every type of file that llama.cpp of this build makes from a model, and what each needs.
//!
//! Owns: the names as llama.cpp writes them (`llama_ftype` in `llama.h`; those that `llama_ftype_get_default_type` in
//! `llama-quant.cpp` knows). It does not know models: whether a tensor's shape allows a type is llama.cpp's to say.

use crate::gguf::file_type_number;

/// A type that a model can be quantized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// As llama.cpp writes it, e.g. `Q4_K_M`.
    pub name: &'static str,
    /// Whether llama.cpp refuses to make it without an importance matrix.
    pub needs_imatrix: bool,
}

const fn plain(name: &'static str) -> Quantization {
    Quantization { name, needs_imatrix: false }
}

const fn guided(name: &'static str) -> Quantization {
    Quantization { name, needs_imatrix: true }
}

/// All of them, the largest first.
pub const QUANTIZATIONS: [Quantization; 35] = [
    plain("F32"),
    plain("BF16"),
    plain("F16"),
    plain("Q8_0"),
    plain("Q6_K"),
    plain("Q5_1"),
    plain("Q5_K_M"),
    plain("Q5_K_S"),
    plain("Q5_0"),
    plain("Q4_1"),
    plain("Q4_K_M"),
    plain("Q4_K_S"),
    plain("IQ4_NL"),
    plain("Q4_0"),
    plain("IQ4_XS"),
    // Experts in MXFP4; whatever is no expert in Q8_0.
    plain("MXFP4_MOE"),
    plain("Q3_K_L"),
    plain("Q3_K_M"),
    plain("IQ3_M"),
    plain("IQ3_S"),
    plain("Q3_K_S"),
    guided("IQ3_XS"),
    guided("IQ3_XXS"),
    plain("Q2_K"),
    guided("Q2_K_S"),
    guided("IQ2_M"),
    guided("IQ2_S"),
    guided("IQ2_XS"),
    plain("Q2_0"),
    guided("IQ2_XXS"),
    plain("TQ2_0"),
    guided("IQ1_M"),
    plain("TQ1_0"),
    guided("IQ1_S"),
    plain("Q1_0"),
];

/// Short names that llama.cpp's own tool takes too.
const ALIASES: [(&str, &str); 3] = [("Q3_K", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M")];

impl Quantization {
    /// The one with this name; upper and lower case are the same.
    pub fn from_name(name: &str) -> Option<Self> {
        let alias = ALIASES.iter().find(|(short, _)| short.eq_ignore_ascii_case(name));
        let name = alias.map_or(name, |(_, long)| long);
        QUANTIZATIONS.into_iter().find(|known| known.name.eq_ignore_ascii_case(name))
    }

    /// Its `llama_ftype`.
    pub(crate) fn number(self) -> i32 {
        let number = file_type_number(self.name).and_then(|number| i32::try_from(number).ok());
        number.expect("every name of the table is one of llama.cpp's, as the test below shows")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::file_type_name;

    #[test]
    fn the_table_is_whole_and_has_llama_cpps_names() {
        for known in QUANTIZATIONS {
            assert_eq!(Quantization::from_name(&known.name.to_lowercase()), Some(known));
            assert_eq!(file_type_name(u64::try_from(known.number()).expect("not below 0")), Some(known.name));
        }
        // All file types but the one that this build reads and cannot make.
        let readable = (0..1024).filter_map(file_type_name).filter(|name| *name != "NVFP4");
        for name in readable {
            assert!(Quantization::from_name(name).is_some(), "{name}");
        }
        assert_eq!(Quantization::from_name("q4_k").map(|known| known.name), Some("Q4_K_M"));
        assert_eq!(Quantization::from_name("NVFP4"), None);
    }
}
