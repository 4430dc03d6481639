//! The benchmark: models of random weights in several sizes and quantizations, prefill and decode, repeated.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::{jobs, measure};
use crate::ffi;
use crate::random_model::{ModelFacts, RandomModelSpec, write_random_model};
use crate::wire::{self, from_worker::Reply};

/// Tokens in one prefill: a short question, and enough to fill the arithmetic units.
const PREFILL: u32 = 128;
/// Tokens in one decode run.
const DECODE: u32 = 24;

/// Removes a scratch model, however the step ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub fn run(request: &wire::Bench, id: u64, outbox: &Outbox) -> Result<Reply, String> {
    let start = Instant::now();
    let budget = Duration::from_millis(request.budget_ms);
    let folder = jobs::path_of(&request.scratch_dir);
    let (quantizations, repeats): (&[&str], usize) =
        if request.quick { (&["Q4_0", "Q8_0"], 3) } else { (&["Q4_0", "Q4_K", "Q8_0", "F16"], 5) };
    let sizes: [fn(&str) -> RandomModelSpec; 2] = [RandomModelSpec::tiny, RandomModelSpec::small];
    let gpus: Vec<String> =
        ffi::devices().into_iter().filter(|d| d.kind == 2 || d.kind == 3).map(|d| d.name).take(1).collect();
    let steps = sizes.len() * quantizations.len();
    for (step, (size, quantization)) in
        quantizations.iter().flat_map(|q| sizes.iter().map(move |size| (size, *q))).enumerate()
    {
        // Every size once, however slow the machine is.
        if step >= sizes.len() && start.elapsed() > budget {
            break;
        }
        let spec = size(quantization);
        let label = format!("{} {quantization}", spec.name);
        let fraction = step as f32 / steps as f32;
        outbox.progress(id, fraction, &format!("{label}: making"));
        let file = Scratch(folder.join(format!("bench-{}-{id}-{step}.gguf", std::process::id())));
        let facts = write_random_model(&file.0, &spec).map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })?;
        let places = std::iter::once(None).chain(gpus.iter().map(Some));
        for gpu in places {
            let device = gpu.map_or("CPU", String::as_str);
            outbox.progress(id, fraction, &format!("{label} on {device}: measuring"));
            let point = point(&file, request.threads, gpu.is_none(), repeats, (&spec, &facts), device)?;
            outbox.reply(id, Reply::BenchPoint(point)).map_err(|error| error.to_string())?;
        }
    }
    outbox.progress(id, 1.0, "done");
    Ok(Reply::Done(wire::Done {}))
}

fn point(
    file: &Scratch,
    threads: u32,
    cpu_only: bool,
    repeats: usize,
    (spec, facts): (&RandomModelSpec, &ModelFacts),
    device: &str,
) -> Result<wire::BenchPoint, String> {
    let settings = ffi::Settings {
        context: 512,
        parallel: 1,
        batch: 512,
        ubatch: 512,
        kv_type: 1,
        gpu_layers: -1,
        threads,
        cpu_only,
        phantoms: false,
        no_alloc: false,
        kv_unified: false,
        flash_attention: 1,
        expert_layers_on_host: 0,
        total_context: 0,
        all_outputs: false,
        fit: false,
        fit_min_context: 0,
        fit_margin: 0,
        fit_unmodified: false,
        encoder: false,
    };
    let mut model = ffi::Model::open(&file.0, &settings, &ffi::Layout::default(), |_| true)?;
    // First touch of weights and buffers is slower.
    measure::run(&mut model, 0, 512, 16, 2)?;
    let runs: Vec<measure::Rates> =
        (0..repeats).map(|_| measure::run(&mut model, 0, 512, PREFILL, DECODE)).collect::<Result<_, _>>()?;
    Ok(wire::BenchPoint {
        device: device.to_owned(),
        threads: cpu_only.then_some(model.facts().threads),
        model: spec.name.clone(),
        quantization: spec.quantization.clone(),
        bytes_per_token: facts.bytes_per_token.get(),
        parameters_per_token: facts.parameters_per_token,
        layers: facts.layers,
        prefill_tokens: PREFILL,
        decode_tokens: DECODE,
        prefill: runs.iter().map(|rates| rates.prefill).collect(),
        decode: runs.iter().map(|rates| rates.decode).collect(),
    })
}
