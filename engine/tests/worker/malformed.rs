//! Files that are no models: refused with what and where, and nothing but a worker is ever at risk.

use std::path::Path;

use muster_engine::bundled::MUSTER_TINY_F16;
use muster_engine::gguf::{GgufHeader, GgufWriter, TensorPlan, TensorType};
use muster_engine::worker::{Generator, Layout, LoadRequest, SizeOptions, SizeRequest, WorkerError, size};

use crate::{command, settings, within};

fn refusal(bytes: &[u8]) -> String {
    let error = GgufHeader::read_bytes(bytes).expect_err("this should be refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// A small valid file, and the tests' way to damage it.
fn writer() -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer.text("general.architecture", "llama");
    writer
}

fn plan(name: &str, dimensions: &[u64], kind: &str) -> TensorPlan {
    TensorPlan { name: name.into(), dimensions: dimensions.to_vec(), kind: TensorType::from_name(kind).unwrap() }
}

fn with_tensor(tensor: TensorPlan) -> Vec<u8> {
    let mut writer = writer();
    writer.tensor(tensor);
    writer.header()
}

#[test]
fn the_bundled_model_passes() {
    let header = GgufHeader::read_bytes(MUSTER_TINY_F16).unwrap();
    assert_eq!(header.architecture(), "llama");
    assert_eq!(header.name(), Some("muster-tiny"));
    assert_eq!(header.licence(), Some("CC0-1.0"));
    assert_eq!(header.context_length().unwrap().get(), 1024);
    assert_eq!(header.parameters(), 3_672_320);
    assert_eq!(header.file_type().as_deref(), Some("F16"));
    assert_eq!(header.layers(), Some(4));
    assert!((16.0..16.1).contains(&header.bits_per_weight()));
    assert_eq!(header.bytes_per_token(), header.tensor_bytes);
}

#[test]
fn each_refusal_says_what_and_where() {
    assert!(refusal(b"").contains("not a GGUF"));
    assert!(refusal(b"PK\x03\x04").contains("50, 4b"));
    assert!(refusal(b"GGUF\x01\0\0\0").contains("version 1"));
    assert!(refusal(b"GGUF\x03\0\0\0").contains("number of tensors that starts at byte 8"));

    let mut huge = MUSTER_TINY_F16[..4096].to_vec();
    huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refusal(&huge).contains("the number of tensors at byte 8 is 18446744073709551615"));
    let mut huge = MUSTER_TINY_F16[..4096].to_vec();
    huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refusal(&huge).contains("the number of metadata entries at byte 16"));
    let mut huge = MUSTER_TINY_F16[..4096].to_vec();
    huge[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refusal(&huge).contains("key of metadata entry 0 at byte 24"));

    assert!(refusal(&GgufWriter::new().header()).contains("general.architecture"));
    let beyond = refusal(&with_tensor(plan("w", &[64, 64], "F32")));
    assert!(beyond.contains(r#"tensor "w""#) && beyond.contains("beyond the file's end"), "{beyond}");
    assert!(refusal(&with_tensor(plan("w", &[1 << 31, 1 << 30], "F32"))).contains("too large"));
    assert!(refusal(&with_tensor(plan("w", &[33], "Q8_0"))).contains("block of 32"));
    assert!(refusal(&with_tensor(plan("w", &[0], "F32"))).contains("empty dimension"));
    assert!(refusal(&with_tensor(plan(&"w".repeat(64), &[1], "F32"))).contains("name of tensor 0"));

    let mut twice = writer();
    twice.text("general.architecture", "llama");
    assert!(refusal(&twice.header()).contains("occurs twice"));
    let mut aligned = writer();
    aligned.u32("general.alignment", 33);
    assert!(refusal(&aligned.header()).contains("power of two"));
    // llama.cpp asserts the type.
    let mut aligned = writer();
    aligned.text("general.alignment", "32");
    assert!(refusal(&aligned.header()).contains("must be a u32"));
    let mut keys = writer();
    for key in 0..300 {
        keys.u32(&format!("{key:060000}"), 1);
    }
    let long = refusal(&keys.header());
    assert!(long.contains("too long") && long.len() < 300, "{long}");
}

#[test]
fn a_header_without_end_is_refused_while_it_is_read() {
    use std::io::{Seek as _, Write as _};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endless.gguf");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(b"GGUF\x03\0\0\0").unwrap();
    file.write_all(&[0_u64.to_le_bytes(), 1000_u64.to_le_bytes()].concat()).unwrap();
    // Arrays of 2^24 empty texts each, in holes.
    for key in 0..100 {
        let key = format!("{key:04}");
        file.write_all(&(key.len() as u64).to_le_bytes()).unwrap();
        file.write_all(key.as_bytes()).unwrap();
        file.write_all(&[9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat()).unwrap();
        file.write_all(&(1_u64 << 24).to_le_bytes()).unwrap();
        file.seek_relative(8 << 24).unwrap();
    }
    file.set_len(100 << 30).unwrap();
    let error = GgufHeader::read(&path).unwrap_err().to_string();
    assert!(error.contains("length of the header") && error.contains("more than 268435456"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.gguf");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(GgufHeader::read(&path).is_err());
}

#[test]
fn overlapping_tensors_are_refused() {
    let mut writer = writer();
    writer.tensor(plan("a", &[64], "F32"));
    writer.tensor(plan("b", &[64], "F32"));
    let mut bytes = Vec::new();
    writer
        .write(&mut bytes, |tensor, out| {
            std::io::Write::write_all(out, &vec![0; usize::try_from(tensor.bytes()).unwrap()])
        })
        .unwrap();
    GgufHeader::read_bytes(&bytes).unwrap();
    // The offset of the second tensor ends the header, before its padding.
    let offset = bytes.windows(8).rposition(|window| window == 256_u64.to_le_bytes()).unwrap();
    bytes[offset..offset + 8].copy_from_slice(&224_u64.to_le_bytes());
    assert!(refusal(&bytes).contains(r#"tensor "b""#));
}

#[test]
fn every_truncation_is_refused_quickly() {
    for length in (0..60_000).step_by(997).chain([MUSTER_TINY_F16.len() - 1]) {
        refusal(&MUSTER_TINY_F16[..length]);
    }
}

#[test]
fn a_sparse_file_of_forty_gibibytes_is_read_in_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.gguf");
    let mut writer = writer();
    for layer in 0..400 {
        writer.tensor(plan(&format!("blk.{layer}.w"), &[8192, 8192], "F16"));
    }
    let header = writer.header();
    std::fs::write(&path, &header).unwrap();
    let data: u64 = writer.tensors().iter().map(|tensor| GgufWriter::padded(tensor.bytes())).sum();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(header.len() as u64 + data).unwrap();
    let start = std::time::Instant::now();
    let read = GgufHeader::read(&path).unwrap();
    assert!(start.elapsed() < std::time::Duration::from_millis(200));
    assert_eq!(read.tensor_bytes.get(), data);
}

async fn both_refuse(path: &Path) -> String {
    let request = SizeRequest {
        path: path.to_owned(),
        settings: settings(256, 1),
        devices: Vec::new(),
        options: SizeOptions::default(),
    };
    let sized = within(size(&command(), request)).await.unwrap_err();
    let request =
        LoadRequest { path: path.to_owned(), settings: settings(256, 1), threads: None, layout: Layout::default() };
    let loaded = within(Generator::start(&command(), request, |_| {})).await.unwrap_err();
    match (sized, loaded) {
        (WorkerError::Refused { reason }, WorkerError::Refused { reason: same }) => {
            assert_eq!(reason, same);
            reason
        }
        (sized, loaded) => panic!("{sized:?} {loaded:?}"),
    }
}

#[tokio::test]
async fn a_worker_refuses_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.gguf");
    let reason = both_refuse(&path).await;
    assert!(reason.contains("bad.gguf") && reason.contains("No such file"), "{reason}");
    std::fs::write(&path, &MUSTER_TINY_F16[..3_000_000]).unwrap();
    let reason = both_refuse(&path).await;
    assert!(reason.contains("beyond the file's end at 3000000"), "{reason}");
    // In order for the gate, and yet no model: llama.cpp's own words.
    std::fs::write(&path, writer().header()).unwrap();
    let reason = both_refuse(&path).await;
    assert!(reason.contains("llama.context_length") || reason.contains("key not found"), "{reason}");
    let mut unknown = GgufWriter::new();
    unknown.text("general.architecture", "perpetual-motion");
    std::fs::write(&path, unknown.header()).unwrap();
    let reason = both_refuse(&path).await;
    assert!(reason.contains("perpetual-motion"), "{reason}");
}

#[tokio::test]
async fn whatever_a_byte_is_changed_to_this_process_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.gguf");
    for (position, value) in [(24, 0xff), (60, 0x09), (120, 0xff), (200, 0x80), (300, 0x0c), (400, 0xff), (700, 0x41)] {
        let mut bytes = MUSTER_TINY_F16.to_vec();
        bytes[position] ^= value;
        std::fs::write(&path, &bytes).unwrap();
        let request = SizeRequest {
            path: path.clone(),
            settings: settings(256, 1),
            devices: Vec::new(),
            options: SizeOptions::default(),
        };
        match within(size(&command(), request)).await {
            Ok(_) | Err(WorkerError::Refused { .. } | WorkerError::Died { .. }) => {}
            Err(other) => panic!("byte {position}: {other:?}"),
        }
    }
}
