//! Quantizing a file: what would come of it is known and judged before anything is written, and the result gets its name
//! only when it is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use muster_proto::Bytes;

use super::jobs::{check_header, path_of};
use super::outbox::Outbox;
use crate::ffi::{PlannedTensor, Quantize};
use crate::gguf::{GgufHeader, Tensor, TensorType};
use crate::imatrix::Imatrix;
use crate::wire::{self, from_worker::Reply};

/// How often the growing file is looked at. A large tensor takes minutes.
const LOOK: Duration = Duration::from_millis(250);
/// Types that hold weights as they were trained.
const UNQUANTIZED: [&str; 4] = ["F32", "F16", "BF16", "F64"];
/// What a header may gain: the keys of the quantization and its importance matrix.
const HEADER_ROOM: u64 = 1 << 16;

pub fn run(request: &wire::Quantize, id: u64, outbox: &Outbox) -> Result<Reply, String> {
    let (source, target, partial) = (path_of(&request.source), path_of(&request.target), path_of(&request.partial));
    let header = check_header(&source)?;
    let imatrix = request.imatrix.as_deref().map(|path| Imatrix::read(&path_of(path))).transpose()?;
    let chunks = imatrix.as_ref().map_or(0, |imatrix| imatrix.chunks);
    let entries: Vec<(String, Vec<f32>)> =
        imatrix.map(|imatrix| imatrix.entries.into_iter().collect()).unwrap_or_default();
    let job = Quantize {
        source: &source,
        target: &partial,
        file_type: request.file_type,
        threads: request.threads,
        requantize: request.requantize,
        pure: request.pure,
        imatrix: &entries,
        imatrix_chunks: chunks,
    };
    let tensors: BTreeMap<&str, &Tensor> = header.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    check_imatrix(&entries, &tensors)?;
    let plan = job.plan().map_err(|reason| format!("llama.cpp cannot quantize this file: {}", short(&reason)))?;
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    check_needs(&plan, request.file_type, &names)?;
    if !request.requantize {
        check_unquantized(&header, &plan, &tensors)?;
    }
    let needs = header.data_offset + HEADER_ROOM + plan.iter().map(|planned| size_of(planned, &tensors)).sum::<u64>();
    check_room(&partial, needs)?;

    let result = perform(&job, &partial, needs, id, outbox);
    let finished = result.and_then(|()| finish(&partial, &target));
    if finished.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    finished?;
    outbox.progress(id, 1.0, "");
    Ok(Reply::Done(wire::Done {}))
}

/// Runs llama.cpp, and tells how much of the file is there by its length.
fn perform(job: &Quantize<'_>, partial: &Path, whole: u64, id: u64, outbox: &Outbox) -> Result<(), String> {
    let tensor = Mutex::new(String::new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut told = None;
            while !done.load(Ordering::Acquire) {
                let written = std::fs::metadata(partial).map_or(0, |file| file.len());
                let name = tensor.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                // Silence means that it hangs, so nothing is said when nothing moved.
                if told.as_ref() != Some(&(written, name.clone())) {
                    outbox.progress(id, (written as f32 / whole as f32).min(0.999), &name);
                    told = Some((written, name));
                }
                thread::park_timeout(LOOK);
            }
        });
        let result = job.perform(|name| {
            name.clone_into(&mut tensor.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            watcher.thread().unpark();
        });
        done.store(true, Ordering::Release);
        watcher.thread().unpark();
        result
    })
    .map_err(|reason| failure_words(&reason, partial))
}

/// Judges what llama.cpp wrote like what anybody else wrote, and gives it its name once it would survive a loss of power.
fn finish(partial: &Path, target: &Path) -> Result<(), String> {
    GgufHeader::read(partial).map_err(|error| format!("the quantized file is damaged: {error}"))?;
    let sync = || File::open(partial)?.sync_all();
    sync().map_err(|error| format!("cannot write {}: {error}", partial.display()))?;
    if target.exists() {
        return Err(format!("{} exists already", target.display()));
    }
    std::fs::rename(partial, target).map_err(|error| format!("cannot write {}: {error}", target.display()))
}

/// Bytes of a tensor as it will be, with its padding.
fn size_of(planned: &PlannedTensor, tensors: &BTreeMap<&str, &Tensor>) -> u64 {
    let Some(tensor) = tensors.get(planned.name.as_str()) else { return 0 };
    let bytes = match planned.kind.as_deref().and_then(type_of) {
        Some(kind) => tensor.elements() / kind.block * kind.bytes,
        None => tensor.bytes,
    };
    bytes.next_multiple_of(32)
}

/// ggml writes the names of its types in upper and lower case.
fn type_of(name: &str) -> Option<TensorType> {
    TensorType::from_name(&name.to_ascii_uppercase())
}

fn check_unquantized(
    header: &GgufHeader,
    plan: &[PlannedTensor],
    tensors: &BTreeMap<&str, &Tensor>,
) -> Result<(), String> {
    let changes = plan.iter().filter(|planned| planned.kind.is_some());
    let mut quantized = changes
        .filter_map(|planned| tensors.get(planned.name.as_str()))
        .filter(|tensor| !UNQUANTIZED.contains(&tensor.kind.name));
    let Some(first) = quantized.next() else { return Ok(()) };
    Err(format!(
        "the source is quantized already ({}; {} is {}): doing it again would add the losses of both; take the F16, BF16 or \
         F32 file instead, or ask for it explicitly",
        header.file_type().unwrap_or_default(),
        first.name,
        first.kind.name
    ))
}

/// An importance matrix of another model would be ignored or, worse, fail in the middle.
fn check_imatrix(entries: &[(String, Vec<f32>)], tensors: &BTreeMap<&str, &Tensor>) -> Result<(), String> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut matching = 0;
    for (name, values) in entries {
        let Some(tensor) = tensors.get(name.as_str()) else { continue };
        matching += 1;
        let wanted = tensor.dimensions[0].saturating_mul(tensor.dimensions.get(2).copied().unwrap_or(1));
        if values.len() as u64 != wanted && !name.ends_with("token_embd.weight") {
            return Err(format!(
                "the importance matrix is of another model: it has {} values for {name}, which has {wanted}",
                values.len()
            ));
        }
    }
    if matching == 0 {
        return Err("the importance matrix is of another model: none of its entries names a tensor of this one".into());
    }
    Ok(())
}

/// Tensors that llama.cpp refuses to quantize without an entry of the importance matrix: `tensor_requires_imatrix` in
/// `llama-quant.cpp`. Asked before hours of work, where llama.cpp would ask at the tensor.
fn needs_entry(planned: &PlannedTensor, file_type: i32) -> bool {
    const Q2_K_S: i32 = 21;
    let exempt = ["token_embd.weight", "per_layer_token_embd.weight", "output.weight"];
    let kind = planned.kind.as_deref().unwrap_or_default().to_ascii_uppercase();
    !exempt.contains(&planned.name.as_str())
        && (["IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"].contains(&kind.as_str())
            || kind == "Q2_K" && file_type == Q2_K_S)
}

fn check_needs(plan: &[PlannedTensor], file_type: i32, entries: &[&str]) -> Result<(), String> {
    let mut missing =
        plan.iter().filter(|planned| needs_entry(planned, file_type) && !entries.contains(&planned.name.as_str()));
    let Some(first) = missing.next() else { return Ok(()) };
    let (name, kind, more) = (&first.name, first.kind.as_deref().unwrap_or_default(), missing.count());
    Err(if entries.is_empty() {
        format!(
            "this quantization needs an importance matrix ({name} and {more} more become {kind}): make one with \
             llama.cpp's llama-imatrix, or choose a type that needs none"
        )
    } else {
        format!("the importance matrix has no entry for {name} and {more} more, which become {kind} or alike")
    })
}

fn check_room(partial: &Path, needs: u64) -> Result<(), String> {
    let folder = partial.parent().unwrap_or(Path::new("."));
    match free(folder) {
        Some(free) if free < needs => Err(format!(
            "the disk of {} is too full: the file will take {}, {} is free",
            folder.display(),
            Bytes::new(needs),
            Bytes::new(free)
        )),
        _ => Ok(()),
    }
}

/// Bytes that a file may still take there; `None` where the system does not say.
fn free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let space = rustix::fs::statvfs(folder).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// llama.cpp's words less its function's name.
fn short(reason: &str) -> &str {
    reason.rsplit_once("failed to quantize: ").map_or(reason, |(_, words)| words)
}

/// A failed write says nothing but that a stream failed.
fn failure_words(reason: &str, partial: &Path) -> String {
    if !reason.contains("iostream error") {
        return format!("llama.cpp cannot quantize this file: {}", short(reason));
    }
    let folder = partial.parent().unwrap_or(Path::new("."));
    let free = free(folder).map(|free| format!(" ({} is free)", Bytes::new(free))).unwrap_or_default();
    format!("cannot write {}: is its disk full{free}, or a limit reached?", partial.display())
}
