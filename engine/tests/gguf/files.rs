//! Models in several files.

use std::path::{Path, PathBuf};

use muster_engine::gguf::GgufFiles;

use crate::raw::{Raw, T_F32, llama};

/// A tiny model in three files, as llama.cpp's splitter writes them.
fn parts() -> Vec<Raw> {
    let whole = llama();
    let total = i32::try_from(whole.tensors.len()).unwrap();
    let chunks: Vec<_> = whole.tensors.chunks(5).map(<[_]>::to_vec).collect();
    let count = u16::try_from(chunks.len()).unwrap();
    let mut parts = Vec::new();
    for (number, tensors) in chunks.into_iter().enumerate() {
        let raw = if number == 0 { Raw { tensors: Vec::new(), ..whole.clone() } } else { Raw::new() };
        let raw = Raw { tensors, ..raw };
        parts.push(
            raw.u16("split.no", u16::try_from(number).unwrap())
                .u16("split.count", count)
                .i32("split.tensors.count", total),
        );
    }
    parts
}

fn write(folder: &Path, parts: &[Raw]) -> PathBuf {
    for (number, part) in parts.iter().enumerate() {
        let name = format!("m-{:05}-of-{:05}.gguf", number + 1, parts.len());
        std::fs::write(folder.join(name), part.bytes()).unwrap();
    }
    folder.join(format!("m-00001-of-{:05}.gguf", parts.len()))
}

fn refusal(path: &Path) -> String {
    let words = GgufFiles::open(path).unwrap_err().to_string();
    assert!(!words.chars().any(char::is_control), "{words}");
    words
}

#[test]
fn all_parts_are_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &parts());
    let files = GgufFiles::open(&path).unwrap();
    assert_eq!(files.parts().count(), 3);
    let single = folder.path().join("single.gguf");
    std::fs::write(&single, llama().bytes()).unwrap();
    let whole = GgufFiles::open(&single).unwrap();
    assert_eq!(files.tensor_bytes(), whole.tensor_bytes());
    let (merged, whole) = (files.into_header(), whole.into_header());
    assert_eq!(merged.parameters(), whole.parameters());
    assert_eq!(merged.tensor_bytes, whole.tensor_bytes);
    assert_eq!(merged.tensors.len(), whole.tensors.len());
}

#[test]
fn a_first_part_without_tensors_passes() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts();
    let moved = std::mem::take(&mut parts[0].tensors);
    parts[1].tensors.extend(moved);
    GgufFiles::open(&write(folder.path(), &parts)).unwrap();
}

#[test]
fn another_part_names_the_first() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &parts());
    let words = refusal(&folder.path().join("m-00002-of-00003.gguf"));
    assert!(words.contains("this is part 2 of 3 of a model; give m-00001-of-00003.gguf"), "{words}");
}

#[test]
fn a_missing_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &parts());
    std::fs::remove_file(folder.path().join("m-00003-of-00003.gguf")).unwrap();
    let words = refusal(&path);
    assert!(words.contains("m-00003-of-00003.gguf: part 3 of 3 is missing"), "{words}");
}

#[test]
fn a_renamed_part_says_how_to_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &parts());
    let renamed = folder.path().join("renamed.gguf");
    std::fs::rename(path, &renamed).unwrap();
    let words = refusal(&renamed);
    assert!(words.contains("only if its name ends in -00001-of-00003.gguf") && words.contains("--merge"), "{words}");
}

#[test]
fn parts_of_different_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |change: &dyn Fn(&mut Vec<Raw>), says: &str| {
        let mut parts = parts();
        change(&mut parts);
        let words = refusal(&write(folder.path(), &parts));
        assert!(words.contains(says), "{words}");
    };
    check(&|parts| parts.swap(1, 2), "it says that it is part 3 of 3");
    check(&|parts| parts[2] = parts[2].clone().i32("split.tensors.count", 99), "do not belong together");
    check(&|parts| parts[2] = parts[2].clone().text("general.architecture", "qwen2"), "its architecture is");
    check(&|parts| parts[2] = llama(), "it is a whole model, and should be part 3 of 3");
    check(&|parts| parts[2] = parts[2].clone().tensor("output.weight", &[32], T_F32), "is in an earlier part, too");
    check(
        &|parts| parts[2] = parts[2].clone().tensor("extra", &[32], T_F32),
        "the parts have 13 tensors, and should have 12",
    );
    check(&|parts| parts[1].data = Some(0), "m-00002-of-00003.gguf: the file is");
    check(&|parts| parts[0] = parts[0].clone().u16("split.count", 2000), "2000 parts, at most 1024");
}
