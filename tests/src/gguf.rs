//! Model files for tests: large ones of random weights, and broken ones.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use muster_engine::bundled::MUSTER_TINY_F16;
use muster_engine::random_model::{RandomModelSpec, write_random_model};
use muster_proto::Bytes;

/// Writes a model of random weights whose file has at least `size` bytes.
pub fn random_model(path: &Path, size: Bytes, seed: u64) {
    let spec = RandomModelSpec { seed, ..RandomModelSpec::of_file_size(size, "Q8_0") };
    write_random_model(path, &spec).expect("a random model");
}

/// Flips one bit of the byte at `offset`. Doing it twice undoes it.
pub fn corrupt(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file to corrupt");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("inside the file");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("writable");
}

/// Writes broken variants of the bundled model into `folder`: what is wrong, and the file.
pub fn malformed(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let whole = MUSTER_TINY_F16;
    let with = |offset: usize, bytes: &[u8]| {
        let mut copy = whole.to_vec();
        copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        copy
    };
    // The head: magic, version u32, tensors u64, metadata entries u64, then the first key: length u64 and text.
    let huge = (u64::MAX / 2).to_le_bytes();
    // A tensor: name, number of dimensions u32, each dimension u64, type u32, offset u64. This one has two dimensions.
    let name = b"blk.0.attn_q.weight";
    let tensor = whole.windows(name.len()).position(|window| window == name).expect("a known tensor") + name.len();
    let (dimensions, first, kind, offset) = (tensor, tensor + 4, tensor + 20, tensor + 24);
    let broken: Vec<(&'static str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("text", b"this is not a model at all, it is a text\n".repeat(100)),
        ("cut in the head", whole[..17].to_vec()),
        ("cut in the metadata", whole[..9_000].to_vec()),
        ("cut in the weights", whole[..5_000_000].to_vec()),
        ("flipped magic", with(0, b"GGUG")),
        ("unknown version", with(4, &4_000_u32.to_le_bytes())),
        ("huge tensor count", with(8, &huge)),
        ("huge metadata count", with(16, &huge)),
        ("huge key", with(24, &huge)),
        ("five dimensions", with(dimensions, &5_u32.to_le_bytes())),
        ("huge dimension", with(first, &huge)),
        ("unknown tensor type", with(kind, &9_999_u32.to_le_bytes())),
        ("tensor outside of the file", with(offset, &(1_u64 << 40).to_le_bytes())),
    ];
    fs::create_dir_all(folder).expect("a folder");
    let write = |(what, bytes): (&'static str, Vec<u8>)| {
        let path = folder.join(format!("{}.gguf", what.replace(' ', "-")));
        fs::write(&path, bytes).expect("a file of the test");
        (what, path)
    };
    broken.into_iter().map(write).collect()
}
