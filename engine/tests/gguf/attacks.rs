//! Published attacks on readers of GGUF, each a file in `tests/corpus/gguf`, and the words in which the gate refuses it.
//!
//! The files are made here; `MUSTER_WRITE_CORPUS=1 cargo test --workspace --test gguf corpus` writes them.

use std::path::PathBuf;

use crate::raw::{ARRAY, I8, Raw, STRING, T_F32, T_I8, U8, U16, U32, U64, bpe, experts, llama, no_vocabulary, string};
use crate::refusal;

/// A file that must be refused.
pub struct Attack {
    /// Its name in the corpus.
    pub name: &'static str,
    /// What it did to whom.
    pub what: &'static str,
    pub bytes: Vec<u8>,
    /// What the refusal must say.
    pub says: &'static str,
}

fn attack(name: &'static str, what: &'static str, raw: &Raw, says: &'static str) -> Attack {
    Attack { name, what, bytes: raw.bytes(), says }
}

fn base() -> Raw {
    Raw::of("llama")
}

/// A vocabulary alone, with what a test puts in.
fn vocabulary() -> Raw {
    base().text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", &["<unk>", "<s>", "</s>"])
}

fn counts(tensors: Option<u64>, entries: Option<u64>) -> Raw {
    Raw { tensor_count: tensors, entry_count: entries, ..base() }
}

pub fn attacks() -> Vec<Attack> {
    let mut all = published();
    all.extend(around_them());
    all.extend(asserted());
    all
}

/// Those with a number.
fn published() -> Vec<Attack> {
    // Times the 48 bytes of a `gguf_kv` and of a tensor's 88, both wrapped around to a few.
    let wraps_48 = u64::MAX / 48 + 1;
    let wraps_88 = u64::MAX / 88 + 1;
    let mut long_key = Raw { entry_count: Some(1), ..Raw::new() }.header();
    long_key.truncate(24);
    long_key.extend(u64::MAX.to_le_bytes());
    long_key.extend([b'k'; 64]);
    let long_token =
        vocabulary().array("tokenizer.ggml.tokens", STRING, 1, &[&0x8000_0001_u64.to_le_bytes()[..], b"aaaa"].concat());
    let quarter = 1_u64 << 59;
    let sums = (0..9).fold(base(), |raw, index| {
        raw.tensor_at(&format!("t{index}"), &[1 << 30, 1 << 29], T_F32, quarter.wrapping_mul(4 * index))
    });
    vec![
        attack(
            "cve-2024-23605",
            "header.n_kv times the size of an entry wrapped: a small allocation for many entries (TALOS-2024-1916)",
            &counts(None, Some(wraps_48)),
            "the number of metadata entries at byte 16 is 384307168202282326, more than",
        ),
        attack(
            "cve-2024-21836",
            "header.n_tensors times the size of a tensor wrapped (TALOS-2024-1915)",
            &counts(Some(wraps_88), None),
            "the number of tensors at byte 8 is 209622091746699451, more than",
        ),
        Attack {
            name: "cve-2024-23496",
            what: "a text's length plus its closing zero wrapped to an allocation of nothing (TALOS-2024-1913)",
            bytes: long_key,
            says: "the length of the key of metadata entry 0 at byte 24 is 18446744073709551615, more than",
        },
        attack(
            "cve-2024-21825",
            "an array of texts whose count times 16 wrapped (TALOS-2024-1912)",
            &base().array("a", STRING, 1 << 60, &string(b"x")),
            r#"the number of elements of "a" at byte 86 is 1152921504606846976, more than"#,
        ),
        attack(
            "cve-2024-21825-numbers",
            "the same with numbers: the count times 8 wrapped",
            &base().array("a", U64, 1 << 61, &[0; 8]),
            r#"the number of elements of "a" at byte 86"#,
        ),
        attack(
            "cve-2024-21802",
            "more dimensions than ggml's four were written behind the array that holds them (TALOS-2024-1914)",
            &base().tensor("w", &[1; 256], T_F32),
            "256 dimensions, at most 4 are possible",
        ),
        attack(
            "cve-2024-42477",
            "a tensor type outside the table of types was looked up in it",
            &base().tensor("w", &[32], 0x4141_4141),
            "unknown tensor type 1094795585",
        ),
        attack(
            "cve-2024-42478",
            "a tensor's place was believed as it stood: reads anywhere (-42479: writes anywhere)",
            &base().tensor_at("w", &[32], T_F32, u64::MAX - 31),
            "data offset 18446744073709551584 leaves a hole, 0 comes next",
        ),
        attack(
            "cve-2025-49847",
            "a token longer than an i32 holds: the copy to a smaller buffer passed its check",
            &long_token,
            r#"the length of a text in "tokenizer.ggml.tokens" at byte 159 is 2147483649, more than 65536"#,
        ),
        attack(
            "cve-2025-53630",
            "tensor sizes that each fit and whose sum wrapped",
            &sums,
            "all tensors together are too large",
        ),
        attack(
            "cve-2026-27940",
            "bypass of it: the sum did not wrap, but did when the bookkeeping of tensors was added",
            &base().tensor("t", &[0x3fff_ffff_ffff_ff00], T_F32).tensor_at("u", &[32], T_F32, 0xffff_ffff_ffff_fc00),
            "are too large",
        ),
        attack(
            "cve-2026-33298",
            "dimensions whose product fits and whose bytes wrapped to 4 MB (ggml_nbytes)",
            &base().tensor("w", &[1 << 20, (1 << 42) + 1], T_F32),
            "dimensions [1048576, 4398046511105] are too large",
        ),
        attack(
            "cve-2026-7482",
            "a shape larger than the file, quantized: the heap behind it went into the new file",
            &Raw { data: Some(128), ..base().tensor("w", &[4096, 4096], T_F32) },
            "the file is 256 bytes long and should be 67108992",
        ),
        attack(
            "cve-2026-7482-offset",
            "the same with a place behind the file's end",
            &base().tensor("v", &[32], T_F32).tensor_at("w", &[32], T_F32, 1 << 40),
            "data offset 1099511627776 leaves a hole",
        ),
    ]
}

/// The overflows around them: reports and fixes without a number.
fn around_them() -> Vec<Attack> {
    vec![
        attack(
            "padding-wraps",
            "a size of SIZE_MAX - 3, padded to 0: the next tensor's memory was given to both (llama.cpp #24759)",
            &base().tensor("w", &[u64::MAX / 4], T_F32),
            "are too large",
        ),
        attack(
            "negative-dimension",
            "ggml reads dimensions as i64",
            &base().tensor("w", &[32, u64::MAX], T_F32),
            "ggml reads -1",
        ),
        attack(
            "zero-dimension",
            "the check against overflow divided by it (ggml #1517)",
            &base().tensor("w", &[32, 0], T_F32),
            "an empty dimension in [32, 0]",
        ),
        attack(
            "removed-type",
            "a type that was removed has a block of 0, by which rows were divided (llama.cpp #8816)",
            &base().tensor("w", &[32], 4),
            "type Q4_2 (4) was removed from the format; quantize again",
        ),
        attack(
            "negative-type",
            "a tensor type below 0 passed the check against the largest",
            &base().tensor("w", &[32], u32::MAX),
            "unknown tensor type 4294967295",
        ),
        attack(
            "huge-alignment",
            "an alignment of 2 GiB wraps what is padded to it (llama.cpp #24997)",
            &base().u32("general.alignment", 1 << 31).tensor("w", &[32], T_F32),
            "it is 2147483648, and must be a power of two",
        ),
        attack(
            "no-alignment",
            "an alignment of 0",
            &base().u32("general.alignment", 0).tensor("w", &[32], T_F32),
            "it is 0, and must be a power of two",
        ),
        attack(
            "typed-alignment",
            "an alignment of another type ended the process (llama.cpp #26318)",
            &base().value("general.alignment", U64, &32_u64.to_le_bytes()).tensor("w", &[32], T_F32),
            "it must be of type u32, and is of type u64",
        ),
        attack(
            "nested-array",
            "arrays in arrays, as deep as the stack",
            &base().array("a", ARRAY, 1, &[&ARRAY.to_le_bytes()[..], &1_u64.to_le_bytes()].concat()),
            "an array of arrays",
        ),
        attack(
            "unknown-element",
            "an element type outside the table of sizes",
            &base().array("a", 13, 1, &[0; 8]),
            "elements of unknown type 13",
        ),
        attack(
            "hidden-key",
            "llama.cpp ends a key at a NUL when it looks for it, and finds another value than a reader that does not",
            &base().u32("llama.block_count\0", 1 << 30).u32("llama.block_count", 1),
            "has a control character in it",
        ),
        attack(
            "narrow-scores",
            "scores of one byte were read as of four (llama.cpp #26690)",
            &vocabulary().array("tokenizer.ggml.scores", U8, 3, &[0; 3]),
            "its elements must be of type f32 or i32, and are of type u8",
        ),
        attack(
            "few-scores",
            "fewer scores than tokens were read as so many",
            &vocabulary().f32s("tokenizer.ggml.scores", &[0.0; 2]),
            "it has 2 elements for the 3 tokens",
        ),
        attack(
            "few-types",
            "fewer token types than tokens",
            &vocabulary().i32s("tokenizer.ggml.token_type", &[1]),
            "it has 1 elements for the 3 tokens",
        ),
        attack(
            "dummy-tokens",
            "a vocabulary of 2^32 tokens that are nowhere: hundreds of gigabytes (llama.cpp #26690)",
            &no_vocabulary().u32("llama.vocab_size", u32::MAX),
            "it is 4294967295, and must be from 0 to 524288",
        ),
        attack(
            "empty-texts",
            "millions of empty texts, each of which costs its reader an object",
            &base().array("a", STRING, 1 << 22, &[0; 64]),
            "the number of texts in all arrays",
        ),
        attack(
            "charsmap-type",
            "a map of characters that is no array of bytes",
            &vocabulary().array("tokenizer.ggml.precompiled_charsmap", U16, 2, &[0; 4]),
            "its elements must be of type i8 or u8, and are of type u16",
        ),
        attack(
            "wrong-eos",
            "an end token outside the vocabulary was an index into it (llama.cpp #25475)",
            &vocabulary().u32("tokenizer.ggml.eos_token_id", 3),
            "token 3 is not one of the 3 in the vocabulary",
        ),
    ]
}

/// What llama.cpp asserts or divides by while it reads a model's shape.
fn asserted() -> Vec<Attack> {
    vec![
        attack(
            "too-many-blocks",
            "more layers than the arrays that hold them (llama.cpp #25821)",
            &base().u32("llama.block_count", 513),
            "it is 513, and must be from 1 to 512",
        ),
        attack("no-blocks", "no layers: asserted", &base().u32("llama.block_count", 0), "must be from 1 to 512"),
        attack(
            "typed-blocks",
            "a count of layers that is a text",
            &base().text("llama.block_count", "32"),
            "it must be of type u32, and is of type text",
        ),
        attack(
            "uneven-heads",
            "heads that do not share KV heads evenly: asserted when multiplying",
            &base().u32("llama.attention.head_count", 8).u32("llama.attention.head_count_kv", 3),
            "8 heads of layer 0 cannot share 3 KV heads evenly",
        ),
        attack(
            "typed-heads",
            "an array of head counts that are no numbers of 32 bits",
            &base().array("llama.attention.head_count", I8, 2, &[1, 1]),
            "its elements must be of type u32 or i32",
        ),
        attack(
            "more-experts-used",
            "more experts used than there are: asserted",
            &base().u32("llama.expert_count", 8).u32("llama.expert_used_count", 9),
            "it is 9, more than the 8 experts",
        ),
        attack(
            "no-expert-used",
            "experts of which none is used: asserted, and divided by",
            &base().u32("llama.expert_count", 8),
            "of 8 experts none is used",
        ),
        attack(
            "uneven-groups",
            "experts that do not divide into their groups: asserted",
            &base()
                .u32("llama.expert_count", 8)
                .u32("llama.expert_used_count", 2)
                .u32("llama.expert_group_count", 3)
                .u32("llama.expert_group_used_count", 1),
            "8 experts do not divide into 3 groups",
        ),
        attack(
            "more-predicting",
            "more predicting layers than layers: asserted",
            &base().u32("llama.block_count", 2).u32("llama.nextn_predict_layers", 3),
            "it is 3, more than the 2 layers",
        ),
        attack(
            "unknown-rope",
            "an unknown way of scaling positions: asserted",
            &base().text("llama.rope.scaling.type", "mystery"),
            r#""mystery" is none of none, linear, yarn, longrope"#,
        ),
        attack(
            "odd-rope",
            "an odd number of rotated dimensions: asserted when computing",
            &base().u32("llama.rope.dimension_count", 15),
            "it is odd",
        ),
        attack(
            "no-head-size",
            "the width is divided by it",
            &Raw::of("rwkv6").u32("rwkv6.wkv.head_size", 0),
            "it is 0, and must be from 1",
        ),
        attack(
            "twin-tokens",
            "two tokens that are the same: asserted",
            &vocabulary().texts("tokenizer.ggml.tokens", &["a", "b", "a"]),
            "the tokens 0 and 2 are the same",
        ),
        attack(
            "twin-tokens-nul",
            "two tokens that are the same up to a NUL, where llama.cpp ends them",
            &vocabulary().texts("tokenizer.ggml.tokens", &["a\0x", "b", "a\0y"]),
            "the tokens 0 and 2 are the same",
        ),
        attack(
            "typed-split",
            "the number of a part that is no u16: asserted, even in files that nobody asked for",
            &base().u16("split.count", 2).value("split.no", U32, &[0; 4]).i32("split.tensors.count", 1),
            "it must be of type u16, and is of type u32",
        ),
        attack(
            "projector",
            "a projector of images: asserted to be none",
            &Raw::of("clip").tensor("v.w", &[32], T_F32),
            "a projector of images or sound",
        ),
        attack(
            "long-template",
            "a chat template of gigabytes",
            &base().value("tokenizer.chat_template", STRING, &(1_u64 << 30).to_le_bytes()),
            "the length of the value of \"tokenizer.chat_template\"",
        ),
        attack(
            "bytes",
            "a type of single bytes that are too few",
            &Raw { data: Some(0), ..base().tensor("w", &[4096], T_I8) },
            "download it again",
        ),
    ]
}

/// Files that are in order, for the fuzzer to start from.
pub fn valid() -> Vec<(&'static str, Raw)> {
    let part = |number: u16| {
        let raw = if number == 0 { base() } else { Raw::new() };
        let raw = raw.u16("split.no", number).u16("split.count", 2).i32("split.tensors.count", 2);
        raw.tensor(if number == 0 { "a" } else { "b" }, &[32], T_F32)
    };
    vec![
        ("valid-llama", llama()),
        ("valid-bpe", bpe()),
        ("valid-experts", experts()),
        ("valid-no-vocabulary", no_vocabulary()),
        ("valid-part-00001-of-00002", part(0)),
        ("valid-part-00002-of-00002", part(1)),
    ]
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/gguf")
}

#[test]
fn published_attacks_are_refused_for_the_right_reason() {
    let mut wrong = Vec::new();
    for attack in attacks() {
        let words = refusal(&attack.bytes);
        if !words.contains(attack.says) {
            wrong.push(format!("{} ({}): {words}", attack.name, attack.what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_corpus_is_what_is_made_here() {
    let attacks = attacks().into_iter().map(|attack| (attack.name, attack.bytes));
    let files: Vec<(&str, Vec<u8>)> =
        attacks.chain(valid().into_iter().map(|(name, raw)| (name, raw.bytes()))).collect();
    let mut total = 0;
    for (name, bytes) in &files {
        let path = folder().join(format!("{name}.gguf"));
        total += bytes.len();
        if std::env::var_os("MUSTER_WRITE_CORPUS").is_some() {
            std::fs::write(&path, bytes).unwrap();
        }
        assert!(std::fs::read(&path).is_ok_and(|written| written == *bytes), "{} is stale", path.display());
    }
    assert!(total < 300 << 10, "{total} bytes");
    assert_eq!(std::fs::read_dir(folder()).unwrap().count(), files.len(), "a file that nothing makes");
}
