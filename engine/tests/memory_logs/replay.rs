//! Sizes the model of a log with the settings of the log, on phantoms of the log's devices.
//!
//! The model is made from what the log prints of it, as a header without weights. Which tensors have which type follows
//! llama.cpp's rules for the quantization that the log names; where a file was quantized otherwise, what the log counts of
//! types and the size that it prints decide. All logs are of builds before the one that is linked, whose graphs take more:
//! each is sized both ways.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use muster_engine::gguf::GgufHeader;
use muster_engine::maker::{ModelSpec, Quantization};
use muster_engine::worker::{
    Graphs, Layout, MakeRequest, Outputs, PhantomDevice, SizeOptions, SizeRequest, TensorOverride, Weights,
    WorkerCommand, make_model, size,
};
use muster_proto::{Bytes, ContextTokens, DeviceMemory, EngineSettings, FlashAttention, KvType};

use crate::row::{Parts, Row};
use crate::vintage::Vintage;

/// A log's estimates.
pub struct Replayed {
    /// As builds of that time made graphs, by device; main memory is `Host`.
    pub estimated: BTreeMap<String, Parts>,
    /// As the build that is linked makes them.
    pub this_build: BTreeMap<String, Parts>,
    /// What is different about the file or the log, in words.
    pub notes: Vec<String>,
    /// The longer of the two dry runs, with starting its worker.
    pub took: Duration,
}

/// Replays one log; an error is a reason in words.
pub async fn replay(command: &WorkerCommand, row: &Row, folder: &Path) -> Result<Replayed, String> {
    let mut notes = Vec::new();
    let path = folder.join(format!("{}.gguf", row.id()));
    make(command, row, &path, &mut notes).await?;
    let start = Instant::now();
    let estimated = sized(command, row, &path, Graphs::EarlierBuilds).await;
    let first = start.elapsed();
    let start = Instant::now();
    let this_build = sized(command, row, &path, Graphs::ThisBuild).await;
    let took = first.max(start.elapsed());
    let _ = std::fs::remove_file(&path);
    Ok(Replayed { estimated: estimated?, this_build: this_build?, notes, took })
}

async fn sized(
    command: &WorkerCommand,
    row: &Row,
    path: &Path,
    graphs: Graphs,
) -> Result<BTreeMap<String, Parts>, String> {
    let vintage = Vintage::of(row);
    let mut settings = settings(row)?;
    let mut devices = row.phantoms();
    let mut layout = Layout::default();
    if vintage.hidden_device
        && let Some(first) = devices.first().cloned()
    {
        devices.push(PhantomDevice { name: "hidden".into(), ..first });
        layout.split = vec![1.0, 0.0];
    }
    if row.hides_devices() && devices.len() == 2 {
        layout.split = split_of_caches(command, row, path, &settings, &devices).await?;
    }
    if let Some(layers) = settings.gpu_layers.filter(|layers| *layers > 0 && vintage.output_last) {
        settings.gpu_layers = Some(layers + 1);
        layout.overrides.push(TensorOverride { pattern: "^output".into(), device: "CPU".into() });
    }
    let options = SizeOptions {
        total_context: row.number("n_ctx").map(ContextTokens::new),
        outputs: Outputs::MicroBatch,
        graphs,
        earlier: vintage.build,
        gpu_without_layers: true,
        layout,
        ..SizeOptions::default()
    };
    let request = SizeRequest { path: path.to_owned(), settings, devices, options };
    let sized = size(command, request).await.map_err(|error| error.to_string())?;
    let parts = |memory: &DeviceMemory| Parts {
        model: mib(memory.model),
        context: mib(memory.context),
        compute: mib(memory.compute),
    };
    let mut by_device: BTreeMap<String, Parts> =
        sized.need.devices.iter().map(|device| (device.name.clone(), parts(device))).collect();
    let header = GgufHeader::read(path).map_err(|error| error.to_string())?;
    let tied = header.tensors.iter().all(|tensor| tensor.name != "output.weight");
    if row.maps_whole_files(tied) {
        for parts in by_device.values_mut() {
            parts.model = mib(header.tensor_bytes);
        }
    }
    by_device.insert("Host".into(), parts(&sized.need.host));
    Ok(by_device)
}

/// The layers of two devices, of which a log says only what caches each got: the fewest on the first that make its cache
/// as large. A setting that the log does not print, and no part of the judgement but by its rounding.
async fn split_of_caches(
    command: &WorkerCommand,
    row: &Row,
    path: &Path,
    settings: &EngineSettings,
    devices: &[PhantomDevice],
) -> Result<Vec<f32>, String> {
    let layers = row.number("n_layers_total").ok_or("the log does not say how many layers there are")?;
    let wanted = row.allocated().get(&devices[0].name).map_or(0.0, |parts| parts.context);
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    let split = |first: u32| vec![first as f32, (layers - first) as f32];
    let (mut low, mut high) = (0, layers);
    while low < high {
        let middle = u32::midpoint(low, high);
        let options = SizeOptions {
            total_context: row.number("n_ctx").map(ContextTokens::new),
            layout: Layout { split: split(middle), ..Layout::default() },
            ..SizeOptions::default()
        };
        let request =
            SizeRequest { path: path.to_owned(), settings: settings.clone(), devices: devices.to_vec(), options };
        let sized = size(command, request).await.map_err(|error| error.to_string())?;
        let context = sized.need.devices.iter().find(|device| device.name == devices[0].name);
        if context.map_or(0.0, |device| mib(device.context)) + 0.01 < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(split(low))
}

#[allow(clippy::cast_precision_loss, reason = "sizes of files are far below 2^52")]
fn mib(bytes: Bytes) -> f64 {
    bytes.get() as f64 / f64::from(1 << 20)
}

/// Makes the header of the log's model: by llama.cpp's rules for the quantization, and where that is not what the log
/// counted, with types by its counts, its size, and the embedding that it kept on the host.
async fn make(command: &WorkerCommand, row: &Row, path: &Path, notes: &mut Vec<String>) -> Result<(), String> {
    let quantization: Quantization =
        row.text("ftype").parse().map_err(|error: muster_engine::maker::UnknownQuantization| error.to_string())?;
    let spec = ModelSpec::from_facts(row.text("model_name"), row.text("arch"), &row.model_facts())
        .map_err(|error| error.to_string())?;
    let (wanted, precision) = row.model_bytes().ok_or("the log does not say the size of the model")?;
    let types = row.tensor_types();
    let (off, counts, embedding) = written(command, &spec, quantization, path, wanted).await?;
    if counts == types && off.abs() <= precision {
        return Ok(());
    }
    notes.push(format!(
        "by llama.cpp's rules it would be {:+.2} % off, with {}",
        off / wanted * 100.0,
        listed(&counts)
    ));
    notes.push(format!("the log counts {}", listed(&types)));
    let mut published = spec.with_published_types(types.clone(), Some(as_bytes(wanted)));
    if let Some(kind) = embedding.and_then(|elements| row.embedding_type(elements)) {
        published.types.insert("token_embd.weight".into(), kind);
    }
    match written(command, &published, quantization, path, wanted).await {
        Ok((off, ..)) if off.abs() <= precision => Ok(()),
        Ok((off, ..)) => {
            notes.push(format!("with these counts it is {:+.2} % off", off / wanted * 100.0));
            Ok(())
        }
        Err(reason) => {
            notes.push(format!("that model cannot be made: {reason}"));
            Ok(())
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of files are far below 2^52")]
fn as_bytes(bytes: f64) -> Bytes {
    Bytes::new(bytes as u64)
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

/// Makes a file; says how far its tensors' bytes are from those wanted, its types, and the elements of its embedding.
async fn written(
    command: &WorkerCommand,
    spec: &ModelSpec,
    quantization: Quantization,
    path: &Path,
    wanted: f64,
) -> Result<(f64, BTreeMap<String, u64>, Option<u64>), String> {
    let request = MakeRequest { spec: spec.clone(), quantization, path: path.to_owned(), weights: Weights::HeaderOnly };
    let made = make_model(command, request).await.map_err(|error| error.to_string())?;
    let header = GgufHeader::read(path).map_err(|error| error.to_string())?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for tensor in &header.tensors {
        *counts.entry(tensor.kind.name.to_uppercase()).or_default() += 1;
    }
    let embedding = header.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let off = mib(made.tensor_bytes) * f64::from(1 << 20) - wanted;
    Ok((off, counts, embedding.map(|tensor| tensor.dimensions.iter().product())))
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
        // Where experts were kept on the host, all of them were; the logs do not say of which layers.
        expert_layers_on_host: all.filter(|_| row.text("status_reason").starts_with("tensor_override")).unwrap_or(0),
    })
}
