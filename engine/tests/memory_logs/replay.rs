//! Sizes the model of a log with the settings of the log, on phantoms of the log's devices.
//!
//! The model is made from what the log prints of it, as a header without weights. Which tensors have which type follows
//! llama.cpp's rules for the quantization that the log names; where a file was quantized otherwise, the tensors named in
//! `tests/data/memory_log_types.json` make the difference, and the counts of types and the size of the file, which the log
//! prints, check that.

use std::collections::BTreeMap;
use std::path::Path;

use muster_engine::gguf::GgufHeader;
use muster_engine::maker::{ModelSpec, OutputMatrix, Quantization};
use muster_engine::worker::{MakeRequest, Outputs, SizeOptions, SizeRequest, Weights, WorkerCommand, make_model, size};
use muster_proto::{Bytes, ContextTokens, DeviceMemory, EngineSettings, FlashAttention, KvType};

use crate::row::{Parts, Row};

/// A log beside its estimate.
pub struct Replayed {
    /// By device; main memory is `Host`.
    pub estimated: BTreeMap<String, Parts>,
    /// What is different about the file or the log, in words.
    pub notes: Vec<String>,
}

/// Replays one log; an error is a reason in words.
pub async fn replay(command: &WorkerCommand, row: &Row, folder: &Path) -> Result<Replayed, String> {
    let mut notes = Vec::new();
    let path = folder.join(format!("{}.gguf", row.id()));
    make(command, row, &path, &mut notes).await?;
    let request =
        SizeRequest { path: path.clone(), settings: settings(row)?, devices: row.phantoms(), options: options(row) };
    let sized = size(command, request).await.map_err(|error| error.to_string());
    let _ = std::fs::remove_file(&path);
    let sized = sized?;
    let parts = |memory: &DeviceMemory| Parts {
        model: mib(memory.model),
        context: mib(memory.context),
        compute: mib(memory.compute),
    };
    let mut estimated: BTreeMap<String, Parts> =
        sized.need.devices.iter().map(|device| (device.name.clone(), parts(device))).collect();
    estimated.insert("Host".into(), parts(&sized.need.host));
    Ok(Replayed { estimated, notes })
}

#[allow(clippy::cast_precision_loss, reason = "sizes of files are far below 2^52")]
fn mib(bytes: Bytes) -> f64 {
    bytes.get() as f64 / f64::from(1 << 20)
}

/// Types of single tensors, by id of a log: see the header of this file.
fn fitted_types(id: &str) -> BTreeMap<String, String> {
    let all: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(include_str!("../data/memory_log_types.json")).expect("the data of this repository");
    all.into_iter().find(|(ids, _)| ids.split(' ').any(|one| one == id)).map(|(_, types)| types).unwrap_or_default()
}

/// Makes the header of the log's model. A file may ship its output matrix though the model is tied, so both are tried.
async fn make(command: &WorkerCommand, row: &Row, path: &Path, notes: &mut Vec<String>) -> Result<(), String> {
    let quantization: Quantization =
        row.text("ftype").parse().map_err(|error: muster_engine::maker::UnknownQuantization| error.to_string())?;
    let mut spec = ModelSpec::from_facts(row.text("model_name"), row.text("arch"), &row.model_facts())
        .map_err(|error| error.to_string())?;
    spec.types = fitted_types(row.id());
    if !spec.types.is_empty() {
        notes.push(format!("{} tensors quantized otherwise than llama.cpp would", spec.types.len()));
    }
    let (wanted, precision) = row.model_bytes().ok_or("the log does not say the size of the model")?;
    let types = row.tensor_types();
    let mut best: Option<(f64, OutputMatrix)> = None;
    let first = spec.output;
    let second = if first == OutputMatrix::Tied { OutputMatrix::Separate } else { OutputMatrix::Tied };
    for output in [first, second] {
        let request = MakeRequest {
            spec: spec.clone().with_output(output),
            quantization,
            path: path.to_owned(),
            weights: Weights::HeaderOnly,
        };
        let made = match make_model(command, request).await {
            Ok(made) => made,
            Err(_) if best.is_some() => break,
            Err(error) => return Err(error.to_string()),
        };
        #[allow(clippy::cast_precision_loss, reason = "sizes of files are far below 2^52")]
        let off = (made.tensor_bytes.get() as f64 - wanted).abs();
        if best.is_none_or(|(least, _)| off < least) {
            best = Some((off, output));
        }
        if off <= precision {
            break;
        }
    }
    let (off, output) = best.ok_or("no model was made")?;
    if output != first {
        notes.push(format!("output matrix {output:?}, other than the reference model"));
    }
    let spec = spec.with_output(output);
    make_model(command, MakeRequest { spec, quantization, path: path.to_owned(), weights: Weights::HeaderOnly })
        .await
        .map_err(|error| error.to_string())?;
    let header = GgufHeader::read(path).map_err(|error| error.to_string())?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for tensor in &header.tensors {
        *counts.entry(tensor.kind.name.to_uppercase()).or_default() += 1;
    }
    // Until 2024 a factor of rotary embedding was computed instead of stored.
    if !types.is_empty() && counts != types {
        notes.push(format!("tensor types {counts:?}, logged {types:?}"));
    }
    if off > precision {
        notes.push(format!("tensors are {:+.2} % of the logged size off", off / wanted * 100.0));
    }
    Ok(())
}

fn settings(row: &Row) -> Result<EngineSettings, String> {
    let context = row.number("n_ctx").ok_or("the log does not say n_ctx")?;
    let all = row.number("n_layers_total");
    let batch = row.number("n_batch").unwrap_or(2048);
    let kv_type = match row.text("type_k") {
        "f16" | "" => KvType::F16,
        "q8_0" => KvType::Q8_0,
        "q4_0" => KvType::Q4_0,
        other => return Err(format!("Muster has no KV cache of type {other}")),
    };
    let flash_attention = match (row.text("flash_attn"), row.text("flash_attn_resolved")) {
        ("1" | "enabled", _) | ("auto", "enabled") => FlashAttention::On,
        // A build that says nothing of it is of a time when it was off unless asked for.
        ("0" | "disabled" | "", _) | ("auto", "disabled") => FlashAttention::Off,
        _ => FlashAttention::Auto,
    };
    Ok(EngineSettings {
        context: ContextTokens::new(context),
        parallel: row.number("n_seq_max").unwrap_or(1),
        batch,
        ubatch: row.number("n_ubatch").unwrap_or(512).min(batch),
        kv_type,
        gpu_layers: row.number("n_gpu_layers_offloaded").filter(|layers| Some(*layers) != all),
        // Before there was a choice, all sequences shared one cache.
        kv_unified: row.flag("kv_unified").unwrap_or(true),
        flash_attention,
        expert_layers_on_host: 0,
    })
}

fn options(row: &Row) -> SizeOptions {
    SizeOptions {
        total_context: row.number("n_ctx").map(ContextTokens::new),
        outputs: Outputs::MicroBatch,
        ..SizeOptions::default()
    }
}
