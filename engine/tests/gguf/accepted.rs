//! What is real passes.

use std::fs::OpenOptions;

use muster_engine::bundled::MUSTER_TINY_F16;
use muster_engine::gguf::{GgufFiles, GgufHeader, fuzz_one};

use crate::attacks::valid;
use crate::raw::{I32, Raw, T_F32, U32, llama, no_vocabulary};

#[test]
fn the_bundled_and_the_tiny_models_pass() {
    fuzz_one(MUSTER_TINY_F16).unwrap();
    for (name, raw) in valid() {
        fuzz_one(&raw.bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn both_versions_pass() {
    for version in [2, 3] {
        assert_eq!(fuzz_one(&Raw { version, ..llama() }.bytes()).unwrap().version, version);
    }
}

#[test]
fn what_converters_write_passes() {
    let variants = [
        // Keys that nobody knows, of every type.
        llama().u32("vendor.unknown", 7).texts("vendor.words", &["", "a"]).i32s("vendor.numbers", &[-1; 2000]),
        // Numbers for each layer.
        llama().array("llama.attention.head_count", I32, 1, &2_i32.to_le_bytes()),
        llama().array("llama.feed_forward_length", U32, 1, &64_u32.to_le_bytes()),
        // Layers without attention.
        Raw::of("mamba").u32("mamba.attention.head_count", 0).u32("mamba.feed_forward_length", 0).tensor(
            "w",
            &[32],
            T_F32,
        ),
        llama().i32s("x.heads", &[8, 0, 0]).u32("llama.attention.head_count_kv", 0),
        llama().u32("general.alignment", 64).without("tokenizer.ggml.token_type"),
        // Ids outside the vocabulary that llama.cpp ignores.
        llama().u32("tokenizer.ggml.padding_token_id", 32).u32("tokenizer.ggml.bos_token_id", u32::MAX),
        llama().f32("llama.rope.freq_base", f32::NAN).text("llama.rope.scaling.type", "yarn"),
        llama()
            .text("tokenizer.chat_template.tool_use", "{{ messages }}")
            .texts("tokenizer.chat_templates", &["tool_use"]),
        no_vocabulary().without("llama.vocab_size"),
        // A number without dimensions, and a file that does not end with padding.
        Raw { data: Some(4), ..Raw::of("llama").tensor("scale", &[], T_F32) },
    ];
    for (index, raw) in variants.iter().enumerate() {
        // The alignment of 64 moves the tensors.
        let mut raw = raw.clone();
        if raw.entries.iter().any(|(key, _)| key == "general.alignment") {
            raw.tensors.truncate(1);
            raw.data = Some(1024);
        }
        fuzz_one(&raw.bytes()).unwrap_or_else(|error| panic!("variant {index}: {error}"));
    }
}

#[test]
fn an_empty_token_is_a_token() {
    let mut tokens = crate::raw::tokens();
    tokens[20] = String::new();
    tokens[21] = String::new();
    fuzz_one(&llama().texts("tokenizer.ggml.tokens", &tokens).bytes()).unwrap();
    // llama.cpp names an empty one by its index.
    tokens[22] = "[EMPTY_20]".into();
    let error = fuzz_one(&llama().texts("tokenizer.ggml.tokens", &tokens).bytes()).unwrap_err();
    assert!(error.to_string().contains("the tokens 20 and 22 are the same"), "{error}");
}

/// 80 GB of tensors behind a header with the vocabulary of the largest models; all data is a hole.
#[test]
fn a_sparse_file_of_eighty_gigabytes_passes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.gguf");
    let raw = Raw { tensors: Vec::new(), ..large_vocabulary(262_144, 514_906) };
    let raw = (0..600).fold(raw, |raw, layer| {
        let offset = layer * (8192 * 4096 * 4);
        raw.tensor_at(&format!("blk.{layer}.w"), &[8192, 4096], T_F32, offset)
    });
    let header = raw.header();
    std::fs::write(&path, &header).unwrap();
    let data = 600 * 8192 * 4096 * 4_u64;
    OpenOptions::new().write(true).open(&path).unwrap().set_len(header.len() as u64 + data).unwrap();
    let start = std::time::Instant::now();
    let read = GgufFiles::open(&path).unwrap();
    eprintln!("{:?} for a header of {} bytes", start.elapsed(), header.len());
    assert_eq!(read.tensor_bytes().get(), data);
    assert!(data > 80_000_000_000);
    drop(read);

    // One byte less is a download that was cut off.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(header.len() as u64 + data - 1).unwrap();
    let words = GgufHeader::read(&path).unwrap_err().to_string();
    let needs = header.len() as u64 + data;
    assert!(words.contains(&format!("should be {needs}")) && words.contains("(1 bytes are missing"), "{words}");
}

/// A header with a vocabulary of this size.
pub fn large_vocabulary(tokens: u64, merges: u64) -> Raw {
    let texts: Vec<String> = (0..tokens).map(|index| format!("tok{index:x}")).collect();
    let pairs: Vec<String> = (0..merges).map(|index| format!("tok{index:x} end")).collect();
    llama()
        .text("tokenizer.ggml.model", "gpt2")
        .texts("tokenizer.ggml.tokens", &texts)
        .texts("tokenizer.ggml.merges", &pairs)
        .f32s("tokenizer.ggml.scores", &vec![0.0; texts.len()])
        .i32s("tokenizer.ggml.token_type", &vec![1; texts.len()])
}
