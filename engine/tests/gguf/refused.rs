//! Refusals beside the published attacks: each names what, where and what to do.

use muster_engine::gguf::GgufHeader;

use crate::raw::{Raw, STRING, T_F32, U32, llama};
use crate::refusal;

#[test]
fn what_is_no_gguf_is_named() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "it is empty"),
        (b"PK\x03\x04\x14\0\0\0", "zip archive, as PyTorch"),
        (b"\x80\x02}q\0", "Python pickle"),
        (b"lmgg\x01\0\0\0", "the GGML format that came before GGUF"),
        (b"tjgg\x03\0\0\0", "the GGML format that came before GGUF"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a Git LFS pointer"),
        (b"\x10\x02\0\0\0\0\0\0{\"__metadata__\"", "a safetensors file"),
        (b"{\"error\":\"Access to model x is restricted\"}", "JSON, as a hub answers"),
        (b"Entry not found", "a hub's error message"),
        (b"\x1f\x8b\x08\0", "a compressed archive"),
        (&[0; 64], "it starts with zeros"),
        (b"\x7fELF", "a program"),
        (b"GGU", "it starts with [47, 47, 55]"),
        (b"random bytes", "it starts with [72, 61, 6e, 64]"),
    ];
    for (bytes, says) in cases {
        let words = refusal(bytes);
        assert!(words.starts_with("not a GGUF file: ") && words.contains(says), "{words}");
    }
}

#[test]
fn versions_are_named() {
    let of = |version| refusal(&Raw { version, ..llama() }.bytes());
    assert!(of(1).contains("version 1 at byte 4 is not supported: llama.cpp dropped version 1 in 2023"));
    assert!(of(3_u32.swap_bytes()).contains("the file is big-endian, version 3"));
    assert!(of(4).contains("only versions 2 and 3 are"));
    assert!(of(0).contains("only versions 2 and 3 are"));
}

#[test]
fn duplicates_are_refused() {
    let twice = llama().again("llama.block_count", [U32.to_le_bytes(), 2_u32.to_le_bytes()].concat());
    assert!(refusal(&twice.bytes()).contains("the key occurs twice"));
    assert!(refusal(&llama().tensor("output.weight", &[32], T_F32).bytes()).contains("the name occurs twice"));
}

#[test]
fn a_hostile_text_stays_on_one_line() {
    let name = format!("\u{1b}[2J\u{202e}{}", "x".repeat(40));
    for raw in [
        Raw::of("llama").text("llama.rope.scaling.type", "a\nb\u{1b}[31mc\u{202e}d"),
        Raw::of("llama").again(&format!("evil\u{202e}{}", "k".repeat(5000)), vec![99, 0, 0, 0]),
        Raw::of("llama").tensor(&name, &[32], T_F32),
        Raw::of("a\nb").u32("a\nb.block_count", 0),
    ] {
        let words = refusal(&raw.bytes());
        assert!(words.len() < 400 && !words.contains(['\u{1b}', '\u{202e}', '\n']), "{words}");
    }
}

#[test]
fn a_vocabulary_alone_is_no_model() {
    let words = refusal(&Raw { tensors: Vec::new(), ..llama() }.bytes());
    assert!(words.contains("holds no model: it has a vocabulary and no tensors"), "{words}");
    assert!(refusal(&Raw::of("llama").bytes()).contains("it has no tensors"));
}

#[test]
fn tables_match_the_vocabulary() {
    let mut raw = llama();
    raw.tensors[0].dimensions[1] += 1;
    let words = refusal(&raw.bytes());
    assert!(words.contains(r#"tensor "token_embd.weight""#) && words.contains("33 rows for the 32 tokens"), "{words}");
}

/// Sums and products that stay just inside of 64 bits, or leave them.
#[test]
fn sizes_near_the_edge_of_64_bits_are_refused() {
    let dimensions = |sizes: &[u64]| refusal(&Raw::of("llama").tensor("w", sizes, T_F32).bytes());
    assert!(dimensions(&[1 << 32, 1 << 32]).contains("dimensions [4294967296, 4294967296] are too large"));
    assert!(dimensions(&[1 << 61]).contains("dimensions [2305843009213693952] are too large"));
    let half = Raw::of("llama").tensor("v", &[1 << 59], T_F32).tensor_at("w", &[1 << 59], T_F32, 1 << 61);
    assert!(refusal(&half.bytes()).contains("all tensors together are too large"));
}

#[test]
fn tensors_stand_one_after_the_other() {
    let at = |offset| refusal(&Raw::of("llama").tensor("v", &[64], T_F32).tensor_at("w", &[64], T_F32, offset).bytes());
    assert!(at(0).contains("data offset 0 overlaps tensors before it, which end at 256"), "{}", at(0));
    assert!(at(260).contains("data offset 260 is no multiple of the alignment 32"), "{}", at(260));
}

/// What single architectures divide by or assert.
#[test]
fn shapes_that_end_the_process_are_refused() {
    let experts = |groups, used| {
        let raw = Raw::of("llama").u32("llama.expert_count", 8).u32("llama.expert_used_count", 2);
        raw.u32("llama.expert_group_count", groups).u32("llama.expert_group_used_count", used)
    };
    for (raw, says) in [
        (experts(8, 1), "8 groups of 8 experts"),
        (experts(4, 4), "4 of 4 groups are used"),
        (Raw::of("mamba2").u32("mamba2.ssm.group_count", 0), "it is 0, and must be from 1 to 65536"),
        (Raw::of("grovemoe").u32("grovemoe.experts_per_group", 0), "it is 0, and must be from 1 to 1024"),
        (
            Raw::of("ernie4_5-moe").u32("ernie4_5-moe.interleave_moe_layer_step", 0),
            "it is 0, and must be from 1 to 512",
        ),
        (Raw::of("llama").again("", vec![4, 0, 0, 0, 1, 0, 0, 0]), "the key of metadata entry 1 is empty"),
        // 8 is Q8_0, in blocks of 32.
        (Raw::of("llama").tensor("w", &[33], 8), "rows of 33 elements are no multiple of Q8_0's block of 32"),
    ] {
        let words = refusal(&raw.bytes());
        assert!(words.contains(says), "{words}");
    }
}

#[test]
fn texts_have_limits_of_their_own() {
    let template = Raw::of("llama").value("tokenizer.chat_template", STRING, &(2_u64 << 20).to_le_bytes());
    assert!(refusal(&template.bytes()).contains("more than 1048576"));
    // Each is short enough; together they are not.
    let token = [&(1_u64 << 16).to_le_bytes()[..], &vec![b'x'; 1 << 16]].concat();
    let tokens = Raw::of("llama").array("tokenizer.ggml.tokens", STRING, 513, &token.repeat(513));
    assert!(refusal(&tokens.bytes()).contains("the length of all texts in"));
}

#[test]
fn a_count_that_promises_the_world_allocates_nothing() {
    // 61 bytes that claim 2^24 numbers, 2^20 texts, 2^16 entries.
    let raw = Raw::of("llama").array("a", STRING, 1 << 20, &[]);
    let words = refusal(&Raw { entry_count: Some(1 << 16), ..raw }.header());
    assert!(words.contains("the file ends at byte"), "{words}");
}

#[test]
fn every_cut_of_a_file_is_refused() {
    let whole = llama().bytes();
    let data_end = GgufHeader::read_bytes(&whole).unwrap();
    let needs =
        data_end.tensors.iter().map(|tensor| tensor.offset + tensor.bytes).max().unwrap() + data_end.data_offset;
    for length in 0..usize::try_from(needs).unwrap() {
        refusal(&whole[..length]);
    }
    GgufHeader::read_bytes(&whole[..usize::try_from(needs).unwrap()]).unwrap();
}
