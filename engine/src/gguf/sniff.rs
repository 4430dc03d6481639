//! [`looks_like`]: what a file that is no GGUF seems to be, from its first bytes.

/// How many first bytes are looked at.
pub(super) const SNIFFED: u64 = 64;

const CONVERT: &str = "convert it with llama.cpp's convert_hf_to_gguf.py";
const AGAIN: &str = "download the file itself";

/// What a file of which `start` are the first bytes seems to be, and what to do.
pub(super) fn looks_like(start: &[u8]) -> String {
    let text = start.trim_ascii_start().to_ascii_lowercase();
    let begins = |magic: &[u8]| start.starts_with(magic);
    let says = |words: &str| text.starts_with(words.as_bytes());
    if start.is_empty() {
        "it is empty".to_owned()
    } else if begins(b"lmgg") || begins(b"fmgg") || begins(b"tjgg") || begins(b"algg") {
        "it is in the GGML format that came before GGUF, which llama.cpp dropped in 2023; download a GGUF".to_owned()
    } else if begins(b"FUGG") {
        "its magic is written backwards, as by a converter on a big-endian machine; convert it again".to_owned()
    } else if is_safetensors(start) {
        format!("it is a safetensors file; {CONVERT}")
    } else if begins(b"PK\x03\x04") {
        format!("it is a zip archive, as PyTorch checkpoints are; {CONVERT}")
    } else if begins(b"\x80\x02") || begins(b"\x80\x04") {
        format!("it is a Python pickle, as old PyTorch checkpoints are; {CONVERT}")
    } else if says("version https://git-lfs") {
        format!("it is a Git LFS pointer; run git lfs pull or {AGAIN}")
    } else if says("<!doctype") || says("<html") || says("<?xml") {
        format!("it is a web page, not the file that the page offers; {AGAIN}")
    } else if says("{") || says("[") {
        format!("it is JSON, as a hub answers in place of a file that needs a login; {AGAIN}")
    } else if says("entry not found") || says("repository not found") || says("access to model") || says("invalid") {
        format!("it is a hub's error message; {AGAIN}")
    } else if begins(b"\x89HDF") {
        format!("it is an HDF5 file; {CONVERT}")
    } else if begins(b"\x1f\x8b") || begins(b"\x28\xb5\x2f\xfd") || begins(b"7z\xbc\xaf") || begins(b"BZh") {
        "it is a compressed archive; unpack it".to_owned()
    } else if begins(b"\x08\0\0\0TFL3") || begins(b"\x1c\0\0\0TFL3") {
        "it is a TensorFlow Lite model, which llama.cpp does not run".to_owned()
    } else if begins(b"\x7fELF") || begins(b"MZ") {
        "it is a program".to_owned()
    } else if start.iter().all(|byte| *byte == 0) {
        "it starts with zeros, like a download that reserved its space and never ran".to_owned()
    } else {
        let bytes = &start[..start.len().min(4)];
        format!("it starts with {bytes:02x?} in place of {:02x?}", super::MAGIC)
    }
}

/// Eight bytes of length, then JSON.
fn is_safetensors(start: &[u8]) -> bool {
    matches!(start, [_, _, _, _, _, 0, 0, 0, b'{', ..])
}
