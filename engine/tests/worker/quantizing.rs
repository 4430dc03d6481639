//! Quantizing: every type, every refusal, and that nothing half-made is ever left.

use std::path::{Path, PathBuf};

use muster_engine::gguf::GgufHeader;
use muster_engine::maker::Quantization;
use muster_engine::random_model::{RandomModelSpec, write_random_model};
use muster_engine::worker::{QuantizeRequest, WorkerCommand, WorkerError, quantize};
use muster_proto::Bytes;

use crate::{bundled, command, quantized, within};

#[tokio::test]
async fn quantizing_tells_its_progress_and_writes_a_smaller_model() {
    let (folder, source) = bundled();
    let target = folder.path().join("q4.gguf");
    let request = QuantizeRequest {
        source,
        target: target.clone(),
        quantization: "Q4_K_M".into(),
        threads: Some(2),
        ..QuantizeRequest::default()
    };
    let mut steps = Vec::new();
    within(quantize(&command(), request.clone(), |step| steps.push(step))).await.unwrap();
    assert!(steps.is_sorted_by(|one, other| one.fraction <= other.fraction), "{steps:?}");
    assert!(steps.iter().any(|step| step.tensor.starts_with("blk.")), "{steps:?}");
    assert!((steps.last().unwrap().fraction - 1.0).abs() < 1e-6);
    let header = GgufHeader::read(&target).unwrap();
    assert_eq!(header.file_type().as_deref(), Some("Q4_K_M"));
    assert_eq!(header.file_size, Bytes::new(2_391_072));
    assert_eq!(header.parameters(), 3_672_320);
    // A second time would overwrite a model.
    assert!(matches!(within(quantize(&command(), request, |_| {})).await, Err(WorkerError::Refused { .. })));
    assert!(target.exists());
}

#[tokio::test]
async fn a_cancelled_quantization_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.gguf");
    write_random_model(&source, &RandomModelSpec::small("F16")).unwrap();
    let target = folder.path().join("target.gguf");
    let request =
        QuantizeRequest { source, target: target.clone(), quantization: "Q4_K_M".into(), ..QuantizeRequest::default() };
    let (begun, mut first) = tokio::sync::mpsc::unbounded_channel();
    let job = command();
    let job = quantize(&job, request, |step| {
        let _ = begun.send(step);
    });
    within(async {
        tokio::select! {
            _ = first.recv() => {}
            done = job => panic!("it ended before its first progress was seen: {done:?}"),
        }
    })
    .await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the source is left");
}

#[tokio::test]
async fn an_unknown_quantization_is_refused() {
    let (folder, source) = bundled();
    let request = QuantizeRequest {
        source,
        target: folder.path().join("x"),
        quantization: "Q9_Z".into(),
        ..QuantizeRequest::default()
    };
    let error = within(quantize(&command(), request, |_| {})).await.unwrap_err();
    assert!(error.to_string().contains("Q9_Z"), "{error}");
}

fn request(source: &Path, quantization: &str) -> QuantizeRequest {
    QuantizeRequest {
        source: source.to_owned(),
        target: source.with_file_name("target.gguf"),
        quantization: quantization.into(),
        ..QuantizeRequest::default()
    }
}

async fn refused(command: &WorkerCommand, request: QuantizeRequest) -> String {
    let folder = request.target.parent().unwrap().to_owned();
    let before = std::fs::read_dir(&folder).unwrap().count();
    let error = within(quantize(command, request, |_| {})).await.unwrap_err();
    assert!(matches!(error, WorkerError::Refused { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), before, "something was left: {error}");
    error.to_string()
}

/// An importance matrix in llama.cpp's older format that fits the model: each column worth what its number says.
fn imatrix(source: &Path, skip: &str) -> PathBuf {
    let header = GgufHeader::read(source).unwrap();
    let matrices: Vec<_> =
        header.tensors.iter().filter(|tensor| tensor.dimensions.len() > 1 && tensor.name != skip).collect();
    let mut bytes = u32::try_from(matrices.len()).unwrap().to_le_bytes().to_vec();
    for tensor in matrices {
        let columns = u32::try_from(tensor.dimensions[0]).unwrap();
        bytes.extend(u32::try_from(tensor.name.len()).unwrap().to_le_bytes());
        bytes.extend(tensor.name.as_bytes());
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend(columns.to_le_bytes());
        bytes.extend((0..columns).flat_map(|column| ((column % 7 + 1) as f32).to_le_bytes()));
    }
    bytes.extend(12_u32.to_le_bytes());
    let path = source.with_file_name("imatrix.dat");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn every_type_is_made_with_an_importance_matrix_and_the_header_says_so() {
    let (_folder, source) = bundled();
    let matrix = imatrix(&source, "");
    let mut sizes = Vec::new();
    for name in Quantization::all().map(Quantization::name) {
        let target = source.with_file_name(format!("{name}.gguf"));
        let request =
            QuantizeRequest { target: target.clone(), imatrix: Some(matrix.clone()), ..request(&source, name) };
        within(quantize(&command(), request, |_| {})).await.unwrap();
        let header = GgufHeader::read(&target).unwrap();
        assert_eq!(header.file_type().as_deref(), Some(name));
        assert_eq!(header.get_u64("quantize.imatrix.chunks_count"), Some(12), "{name}");
        sizes.push(header.bits_per_weight());
    }
    assert!(sizes[0] > 31.9 && sizes.last().unwrap() < &4.0, "{sizes:?}");
}

#[tokio::test]
async fn only_a_type_that_needs_an_importance_matrix_says_so_and_before_it_begins() {
    let (_folder, source) = bundled();
    for name in Quantization::all().filter(|known| known.needs_importance()).map(Quantization::name) {
        let words = refused(&command(), request(&source, name)).await;
        assert!(words.contains(name) && words.contains("needs an importance matrix"), "{words}");
    }
    for name in Quantization::all().filter(|known| !known.needs_importance()).map(Quantization::name) {
        // Its first progress comes after the check.
        let (begun, mut first) = tokio::sync::mpsc::unbounded_channel();
        let (worker, request) = (command(), request(&source, name));
        let target = request.target.clone();
        let job = quantize(&worker, request, |step| drop(begun.send(step)));
        within(async {
            tokio::select! {
                _ = first.recv() => {}
                done = job => done.unwrap_or_else(|error| panic!("{name}: {error}")),
            }
        })
        .await;
        let _ = std::fs::remove_file(target);
    }
    let holed = imatrix(&source, "blk.2.ffn_up.weight");
    let words = refused(&command(), QuantizeRequest { imatrix: Some(holed), ..request(&source, "IQ2_XXS") }).await;
    assert!(words.contains("no entry for blk.2.ffn_up.weight"), "{words}");
}

#[tokio::test]
async fn an_importance_matrix_that_is_none_or_of_another_model_is_refused() {
    let (folder, source) = bundled();
    let path = folder.path().join("matrix");
    let mut wrong = QuantizeRequest { imatrix: Some(path.clone()), ..request(&source, "Q4_K_M") };
    for (bytes, words) in [
        (&b"GGUF\x03\0\0\0"[..], "it ends at byte 8"),
        (&[0xff; 40], "neither llama.cpp's GGUF"),
        (b"\x01\0\0\0\xff\xff\xff\x7f", "at most 1024"),
        (b"\x01\0\0\0\x01\0\0\0w\x01\0\0\0\x01\0\0\0\0\0\x80\x3f", "none of its entries names a tensor"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let said = refused(&command(), wrong.clone()).await;
        assert!(said.contains(words), "{said}");
    }
    let other = folder.path().join("other.gguf");
    // As wide as none of the bundled model's matrices.
    let wide = RandomModelSpec { embedding: 512, heads: 8, ..RandomModelSpec::tiny("F16") };
    write_random_model(&other, &wide).unwrap();
    wrong.imatrix = Some(imatrix(&other, ""));
    let said = refused(&command(), wrong.clone()).await;
    assert!(said.contains("of another model"), "{said}");
    wrong.imatrix = Some(folder.path().join("not there"));
    let said = refused(&command(), wrong).await;
    assert!(said.contains("not there"), "{said}");
}

#[tokio::test]
async fn what_is_quantized_already_is_only_quantized_again_when_asked_for() {
    let (_folder, source) = bundled();
    let quantized = quantized(&source, "Q8_0").await;
    let words = refused(&command(), request(&quantized, "Q4_K_M")).await;
    assert!(words.contains("quantized already (Q8_0;") && words.contains("take the F16"), "{words}");
    let asked = QuantizeRequest { requantize: true, ..request(&quantized, "Q4_K_M") };
    within(quantize(&command(), asked.clone(), |_| {})).await.unwrap();
    assert_eq!(GgufHeader::read(&asked.target).unwrap().file_type().as_deref(), Some("Q4_K_M"));
}

#[tokio::test]
async fn one_type_for_all_tensors_where_asked() {
    let (_folder, source) = bundled();
    let pure = QuantizeRequest { pure: true, ..request(&source, "Q4_K_M") };
    within(quantize(&command(), pure.clone(), |_| {})).await.unwrap();
    let header = GgufHeader::read(&pure.target).unwrap();
    let matrices = header.tensors.iter().filter(|tensor| tensor.dimensions.len() > 1);
    assert!(matrices.map(|tensor| tensor.kind.name).all(|kind| kind == "Q4_K"));
}

/// A limit on the length of files fails a write as a full disk does, without filling one.
#[cfg(unix)]
#[tokio::test]
async fn a_disk_that_fills_is_an_error_and_nothing_stays() {
    let (_folder, source) = bundled();
    let worker = command();
    let mut limited = WorkerCommand::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f 1000; exec '{}' \"$@\"", worker.program.display());
    limited.args = ["-c", &script, "sh"].into_iter().map(Into::into).chain(worker.args).collect();
    let words = refused(&limited, request(&source, "Q8_0")).await;
    assert!(words.contains("cannot write") && words.contains("disk full"), "{words}");
}
