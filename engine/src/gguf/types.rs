//! ggml's tensor types and llama.cpp's file types, with their numbers and names.

/// A type of tensor elements. Numbers and block sizes are ggml's (`ggml.h`, `ggml-common.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// ggml's number.
    pub number: u32,
    /// ggml's name, e.g. `Q4_K`.
    pub name: &'static str,
    /// Elements in a block.
    pub block: u64,
    /// Bytes in a block.
    pub bytes: u64,
}

const fn tensor_type(number: u32, name: &'static str, block: u64, bytes: u64) -> TensorType {
    TensorType { number, name, block, bytes }
}

const TENSOR_TYPES: [TensorType; 35] = [
    tensor_type(0, "F32", 1, 4),
    tensor_type(1, "F16", 1, 2),
    tensor_type(2, "Q4_0", 32, 18),
    tensor_type(3, "Q4_1", 32, 20),
    tensor_type(6, "Q5_0", 32, 22),
    tensor_type(7, "Q5_1", 32, 24),
    tensor_type(8, "Q8_0", 32, 34),
    tensor_type(9, "Q8_1", 32, 36),
    tensor_type(10, "Q2_K", 256, 84),
    tensor_type(11, "Q3_K", 256, 110),
    tensor_type(12, "Q4_K", 256, 144),
    tensor_type(13, "Q5_K", 256, 176),
    tensor_type(14, "Q6_K", 256, 210),
    tensor_type(15, "Q8_K", 256, 292),
    tensor_type(16, "IQ2_XXS", 256, 66),
    tensor_type(17, "IQ2_XS", 256, 74),
    tensor_type(18, "IQ3_XXS", 256, 98),
    tensor_type(19, "IQ1_S", 256, 50),
    tensor_type(20, "IQ4_NL", 32, 18),
    tensor_type(21, "IQ3_S", 256, 110),
    tensor_type(22, "IQ2_S", 256, 82),
    tensor_type(23, "IQ4_XS", 256, 136),
    tensor_type(24, "I8", 1, 1),
    tensor_type(25, "I16", 1, 2),
    tensor_type(26, "I32", 1, 4),
    tensor_type(27, "I64", 1, 8),
    tensor_type(28, "F64", 1, 8),
    tensor_type(29, "IQ1_M", 256, 56),
    tensor_type(30, "BF16", 1, 2),
    tensor_type(34, "TQ1_0", 256, 54),
    tensor_type(35, "TQ2_0", 256, 66),
    tensor_type(39, "MXFP4", 32, 17),
    tensor_type(40, "NVFP4", 64, 36),
    tensor_type(41, "Q1_0", 128, 18),
    tensor_type(42, "Q2_0", 64, 18),
];

/// Types that once were in files, by number, with their name and what to do.
const REMOVED_TYPES: [(u32, &str, &str); 8] = [
    (4, "Q4_2", "quantize again"),
    (5, "Q4_3", "quantize again"),
    (31, "Q4_0_4_4", "use Q4_0, which is repacked when loading"),
    (32, "Q4_0_4_8", "use Q4_0, which is repacked when loading"),
    (33, "Q4_0_8_8", "use Q4_0, which is repacked when loading"),
    (36, "IQ4_NL_4_4", "use IQ4_NL, which is repacked when loading"),
    (37, "IQ4_NL_4_8", "use IQ4_NL, which is repacked when loading"),
    (38, "IQ4_NL_8_8", "use IQ4_NL, which is repacked when loading"),
];

/// The name of a type that files may no longer have, and what to use in its place.
pub(super) fn removed_type(number: u32) -> Option<(&'static str, &'static str)> {
    REMOVED_TYPES.into_iter().find(|(known, ..)| *known == number).map(|(_, name, advice)| (name, advice))
}

impl TensorType {
    /// The type with this number; `None` for one that is unknown or no longer in use.
    pub fn from_number(number: u32) -> Option<Self> {
        TENSOR_TYPES.into_iter().find(|known| known.number == number)
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        TENSOR_TYPES.into_iter().find(|known| known.name == name)
    }
}

/// llama.cpp's file types (`llama_ftype` in `llama.h`): what `general.file_type` says and what quantizing takes.
const FILE_TYPES: [(u32, &str); 36] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4_MOE"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (41, "Q2_0"),
];

/// The name of a file type, e.g. `Q4_K_M` for 15.
pub fn file_type_name(number: u64) -> Option<&'static str> {
    FILE_TYPES.into_iter().find(|(known, _)| u64::from(*known) == number).map(|(_, name)| name)
}

/// The number of a file type; upper and lower case are the same.
pub fn file_type_number(name: &str) -> Option<u32> {
    FILE_TYPES.into_iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(number, _)| number)
}
