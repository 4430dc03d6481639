//! The smallest tokenizer that llama.cpp takes: byte-level BPE with one merge, and tokens without use up to a size.

use crate::gguf::GgufWriter;

/// Fewest tokens: 256 bytes and the control tokens.
pub(crate) const FEWEST_TOKENS: u32 = 260;

/// Writes a tokenizer of `size` tokens, at least [`FEWEST_TOKENS`].
pub(crate) fn write(writer: &mut GgufWriter, size: u32) {
    let mut tokens: Vec<String> = vec!["<|end|>".into(), "<|start|>".into()];
    tokens.extend(byte_alphabet().map(String::from));
    tokens.push("\u{120}a".into());
    tokens.extend((tokens.len()..size as usize).map(|index| format!("<unused{index}>")));
    // llama.cpp's token types: 1 normal, 3 control.
    let kinds: Vec<i32> = (0..tokens.len()).map(|index| if index < 2 { 3 } else { 1 }).collect();
    writer.text("tokenizer.ggml.model", "gpt2");
    writer.text("tokenizer.ggml.pre", "gpt-2");
    writer.texts("tokenizer.ggml.tokens", &tokens);
    writer.i32s("tokenizer.ggml.token_type", &kinds);
    writer.texts("tokenizer.ggml.merges", &["\u{120} a"]);
    writer.u32("tokenizer.ggml.bos_token_id", 1);
    writer.u32("tokenizer.ggml.eos_token_id", 0);
    writer.bool("tokenizer.ggml.add_bos_token", false);
}

/// The characters that byte-level BPE (GPT-2's) writes for the 256 bytes.
fn byte_alphabet() -> impl Iterator<Item = char> {
    let printable = |byte: &u32| (33..=126).contains(byte) || (161..=172).contains(byte) || (174..=255).contains(byte);
    let others = (0..256_u32).filter(move |byte| !printable(byte)).enumerate();
    let others = others.map(|(index, _)| 256 + u32::try_from(index).unwrap_or(0));
    (0..256).filter(printable).chain(others).filter_map(char::from_u32)
}
