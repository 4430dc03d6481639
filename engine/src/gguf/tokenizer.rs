//! The tokenizer's part of a header: that its arrays fit each other and what llama.cpp reads them as.
//!
//! The vocabulary's texts are not kept: each leaves a fingerprint of 16 bytes, because llama.cpp ends the process when two
//! tokens are the same.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::metadata::Metadata;
use super::value::kind;
use super::{GgufError, Tensor, Value};

/// Most tokens of a vocabulary; the largest have some 260,000.
pub(super) const MOST_TOKENS: u64 = 1 << 19;
/// Longest token; the longest are some hundred spaces.
pub(super) const LONGEST_TOKEN: u64 = 1 << 16;
/// Most bytes of all tokens; the largest vocabularies have some three megabytes.
pub(super) const MOST_TOKEN_BYTES: u64 = 32 << 20;
/// The key of the vocabulary.
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
/// Longest chat template; the longest are some ten thousand bytes, and the parser's work grows with it.
pub(super) const LONGEST_TEMPLATE: u64 = 1 << 20;

/// Names of tokens that an id must be inside the vocabulary for. Of the others llama.cpp ignores what is outside, and
/// some converters write it.
const NEEDED_IDS: [&str; 2] = ["bos", "eos"];
/// The others.
const OTHER_IDS: [&str; 15] = [
    "eot",
    "eom",
    "unknown",
    "seperator",
    "padding",
    "mask",
    "cls",
    "fim_pre",
    "fim_suf",
    "fim_mid",
    "fim_pad",
    "fim_rep",
    "fim_sep",
    "prefix",
    "suffix",
];
/// Truth values.
const SWITCHES: [&str; 5] =
    ["add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces"];
/// Architectures that draft for another model, with an embedding table that need not be their own vocabulary's.
const DRAFTS: [&str; 3] = ["eagle3", "dflash", "gemma4-assistant"];

/// Whether a key is a chat template.
pub(super) fn is_template(key: &str) -> bool {
    key.strip_prefix("tokenizer.chat_template").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Fingerprints of the tokens as they are read.
#[derive(Default)]
pub(super) struct Vocabulary {
    key: RandomState,
    /// Of each token a keyed hash, for which nobody can make collisions, and a plain one, for those that happen.
    prints: Vec<(u64, u64)>,
    has_newline: bool,
}

impl Vocabulary {
    /// Takes the next token.
    pub fn push(&mut self, token: &[u8]) {
        // llama.cpp reads it as a C string, and names an empty one by its index.
        let end = token.iter().position(|byte| *byte == 0).unwrap_or(token.len());
        if end == 0 {
            let name = format!("[EMPTY_{}]", self.prints.len());
            self.prints.push(self.print(name.as_bytes()));
            return;
        }
        let token = &token[..end];
        // What an RWKV vocabulary calls a new line.
        self.has_newline |= matches!(token, b"\n" | b"\\n" | b"\\x0a" | b"\\x0A");
        self.prints.push(self.print(token));
    }

    /// The keyed hash is `SipHash`, the plain one FNV-1a.
    fn print(&self, token: &[u8]) -> (u64, u64) {
        let plain = token.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (self.key.hash_one(token), plain)
    }

    fn len(&self) -> u64 {
        self.prints.len() as u64
    }

    /// Two tokens that are the same.
    fn twins(&self) -> Option<(usize, usize)> {
        let mut sorted: Vec<u64> = self.prints.iter().map(|(keyed, _)| *keyed).collect();
        sorted.sort_unstable();
        sorted.windows(2).filter(|pair| pair[0] == pair[1]).find_map(|pair| {
            let mut places = self.prints.iter().enumerate().filter(|(_, print)| print.0 == pair[0]);
            let (first, print) = places.next()?;
            places.find(|(_, other)| *other == print).map(|(second, _)| (first, second))
        })
    }
}

/// Judges the tokenizer.
pub(super) fn check(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<(), GgufError> {
    let model = metadata.text("tokenizer.ggml.model")?;
    metadata.text("tokenizer.ggml.pre")?;
    metadata.u32("tokenizer.ggml.token_type_count", 0, MOST_TOKENS)?;
    for name in SWITCHES {
        metadata.typed(&format!("tokenizer.ggml.{name}"), kind::BOOL)?;
    }
    for (key, _) in metadata.iter().filter(|(key, _)| is_template(key)) {
        metadata.typed(key, kind::STRING)?;
    }
    if metadata.get(TOKENS).is_none() {
        return Ok(());
    }
    let array = |name: &str, elements: &[u32], length: Option<u64>| {
        let key = format!("tokenizer.ggml.{name}");
        let Some(Value::Array { element, length: found }) = metadata.typed(&key, kind::ARRAY)? else { return Ok(()) };
        if !elements.contains(element) {
            let wanted: Vec<&str> = elements.iter().map(|element| kind::name(*element)).collect();
            let detail = format!(
                "its elements must be of type {}, and are of type {}",
                wanted.join(" or "),
                kind::name(*element)
            );
            return Err(metadata.fail(&key, detail));
        }
        match length {
            Some(wanted) if wanted != *found => {
                Err(metadata.fail(&key, format!("it has {found} elements for the {wanted} tokens")))
            }
            _ => Ok(()),
        }
    };
    let tokens = vocabulary.len();
    array("tokens", &[kind::STRING], None)?;
    array("scores", &[kind::F32, kind::I32], Some(tokens))?;
    array("token_type", &[kind::I32], Some(tokens))?;
    array("merges", &[kind::STRING], None)?;
    array("suppress_tokens", &[kind::I32], None)?;
    array("precompiled_charsmap", &[kind::I8, kind::U8], None)?;
    if tokens == 0 {
        return Err(metadata.fail(TOKENS, "the vocabulary is empty"));
    }
    if let Some((one, other)) = vocabulary.twins() {
        return Err(metadata.fail(TOKENS, format!("the tokens {one} and {other} are the same")));
    }
    if model == Some("rwkv") && !vocabulary.has_newline {
        return Err(metadata.fail(TOKENS, "no token is a new line, which an RWKV vocabulary needs"));
    }
    let all = NEEDED_IDS.into_iter().map(|name| (name, true)).chain(OTHER_IDS.into_iter().map(|name| (name, false)));
    for (name, needed) in all {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = metadata.u32(&key, 0, u64::from(u32::MAX))? else { continue };
        // Converters write -1 for none.
        if needed && id >= tokens && id != u64::from(u32::MAX) {
            return Err(metadata.fail(&key, format!("token {id} is not one of the {tokens} in the vocabulary")));
        }
    }
    Ok(())
}

/// Whether the embedding table is as long as the vocabulary, in all models but those that draft for another.
pub(super) fn check_table(
    metadata: &Metadata,
    architecture: &str,
    tensor: &Tensor,
    offset: u64,
) -> Result<(), GgufError> {
    if tensor.name != "token_embd.weight" || DRAFTS.contains(&architecture) {
        return Ok(());
    }
    let Some(Value::Array { length, .. }) = metadata.get(TOKENS).map(|entry| &entry.value) else { return Ok(()) };
    let rows = tensor.dimensions.get(1).copied().unwrap_or(1);
    if rows == *length {
        return Ok(());
    }
    let detail = format!("it has {rows} rows for the {length} tokens in the vocabulary");
    Err(GgufError::Tensor { name: tensor.name.clone(), offset, detail })
}
