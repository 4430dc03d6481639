//! What a model takes on given devices, and how fast it runs there.

use std::fmt::Write as _;

use muster_proto::{
    Alternative, Bytes, Change, ComputeGraphs, Estimate, EstimatedDevice, EstimatedHost, EstimatedSpeed,
    OutputsReserved, TokensPerSecond, grouped,
};

use crate::bar::{Bar, FREE, Fill, bars, legend};
use crate::layout::{Facts, Grid, UNKNOWN, count, heading, plain, sentence, toned};
use crate::style::{Style, Tone};

const WEIGHTS: Fill = Fill { letter: '█', color: 34 };
const KV_CACHE: Fill = Fill { letter: '▓', color: 36 };
const COMPUTE: Fill = Fill { letter: '▒', color: 33 };
const DRIVER: Fill = Fill { letter: '░', color: 35 };

/// How main memory is called.
const HOST: &str = "host";

/// The answer: one sentence, a table and a bar for each device, the placement and the speed.
pub fn estimate_page(estimate: &Estimate, style: &Style) -> String {
    let tone = match (estimate.fits, estimate.full_offload_short_bytes) {
        (false, _) => Tone::Bad,
        (true, Some(_)) => Tone::Waiting,
        (true, None) => Tone::Good,
    };
    let mut page = model(estimate, style);
    page += &sentence(&estimate.sentence, tone, style);
    page.push('\n');
    page += &memory(estimate, style);
    page.push('\n');
    page += &memory_bars(estimate, style);
    page.push('\n');
    page += &facts(estimate, style);
    for warning in &estimate.warnings {
        page += &sentence(format!("note: {warning}"), Tone::Waiting, style);
    }
    page
}

fn model(estimate: &Estimate, style: &Style) -> String {
    let model = &estimate.model;
    let name = match &model.quantization {
        Some(quantization) => format!("{} {quantization}", model.name),
        None => model.name.clone(),
    };
    let mut about = format!(
        "{}, {} parameters, {}, trained for {} tokens",
        model.architecture,
        crate::models::parameters(model.parameters),
        model.file_bytes,
        grouped(model.context_train.get())
    );
    if model.experts > 0 {
        let _ = write!(about, ", {} experts", model.experts);
    }
    heading(name, style) + &sentence(about, Tone::Quiet, style)
}

fn memory(estimate: &Estimate, style: &Style) -> String {
    let mut grid = Grid::new(style, &["DEVICE", "WEIGHTS", "KV CACHE", "COMPUTE", "FREE", "MEMORY"])
        .right(&[1, 2, 3, 4, 5])
        .whole(&[1, 2, 3, 4, 5]);
    for device in &estimate.devices {
        let EstimatedDevice { name, description, backend, .. } = device;
        let about = match description {
            Some(description) => format!("{name}\n{description}, {backend}"),
            None => format!("{name}\n{backend}"),
        };
        let free = if device.short_bytes > Bytes::ZERO {
            toned(format!("-{}", device.short_bytes), Tone::Bad)
        } else {
            plain(device.free_bytes.to_string())
        };
        grid.row(vec![
            plain(about),
            plain(device.model_bytes.to_string()),
            plain(device.context_bytes.to_string()),
            plain(device.compute_bytes.to_string()),
            free,
            plain(device.memory_bytes.to_string()),
        ]);
    }
    let host = &estimate.host;
    let (free, memory) = match host.memory_bytes {
        Some(memory) => match memory.checked_sub(host.used()) {
            Some(free) => (plain(free.to_string()), plain(memory.to_string())),
            None => (toned(format!("-{}", host.used().saturating_sub(memory)), Tone::Bad), plain(memory.to_string())),
        },
        None => (toned(UNKNOWN, Tone::Quiet), toned(UNKNOWN, Tone::Quiet)),
    };
    grid.row(vec![
        plain(HOST),
        plain(host.model_bytes.to_string()),
        plain(host.context_bytes.to_string()),
        plain(host.compute_bytes.to_string()),
        free,
        memory,
    ]);
    grid.render()
}

fn memory_bars(estimate: &Estimate, style: &Style) -> String {
    let mut drawn: Vec<Bar> = estimate.devices.iter().map(device_bar).collect();
    // Without a device, main memory is what the question is about.
    if estimate.host.memory_bytes.is_some() || estimate.devices.is_empty() {
        drawn.push(host_bar(&estimate.host));
    }
    let mut meanings = vec![(WEIGHTS, "weights"), (KV_CACHE, "KV cache"), (COMPUTE, "compute")];
    if estimate.devices.iter().any(|device| device.driver_bytes.is_some_and(|bytes| bytes > Bytes::ZERO)) {
        meanings.push((DRIVER, "driver"));
    }
    meanings.push((FREE, "free"));
    bars(&drawn, style) + &legend(&meanings, style)
}

fn device_bar(device: &EstimatedDevice) -> Bar {
    let parts = vec![
        (WEIGHTS, device.model_bytes.get()),
        (KV_CACHE, device.context_bytes.get()),
        (COMPUTE, device.compute_bytes.get()),
        (DRIVER, device.driver_bytes.unwrap_or(Bytes::ZERO).get()),
    ];
    Bar {
        name: device.name.clone(),
        parts,
        free: device.free_bytes.get(),
        limit: (device.short_bytes > Bytes::ZERO).then_some(device.memory_bytes.get()),
        caption: format!("{} of {}", device.used(), device.memory_bytes),
    }
}

fn host_bar(host: &EstimatedHost) -> Bar {
    let memory = host.memory_bytes;
    Bar {
        name: HOST.into(),
        parts: vec![
            (WEIGHTS, host.model_bytes.get()),
            (KV_CACHE, host.context_bytes.get()),
            (COMPUTE, host.compute_bytes.get()),
        ],
        free: memory.map_or(0, |memory| memory.saturating_sub(host.used()).get()),
        limit: memory.filter(|memory| *memory < host.used()).map(Bytes::get),
        caption: memory.map_or_else(|| host.used().to_string(), |memory| format!("{} of {memory}", host.used())),
    }
}

fn facts(estimate: &Estimate, style: &Style) -> String {
    let settings = &estimate.settings;
    let mut facts = Facts::new(style);
    let sequences = match (settings.parallel, settings.kv_unified) {
        (1, _) => "one sequence".to_owned(),
        (parallel, true) => format!("{parallel} sequences that share it"),
        (parallel, false) => format!("{parallel} sequences, {} each", grouped(estimate.n_ctx.get() / parallel.max(1))),
    };
    facts.add(
        "context",
        plain(format!("{} tokens, {sequences}, {} KV cache", grouped(estimate.n_ctx.get()), settings.kv_type)),
    );
    facts.add("placement", plain(placement(estimate)));
    match &estimate.speed {
        Some(speed) => {
            facts.add("decode", plain(decode(speed)));
            let EstimatedSpeed { prefill_tokens_per_second, prefill_low, prefill_high, .. } = speed;
            facts.add("prefill", plain(rate(*prefill_tokens_per_second, *prefill_low, *prefill_high)));
            facts.add("", toned(format!("from {}", speed.basis), Tone::Quiet));
        }
        None => {
            facts.add("speed", toned("not known: name the device with --on, or a machine with --machine", Tone::Quiet));
        }
    }
    for alternative in &estimate.alternatives {
        facts.add("instead", plain(instead(alternative, estimate)));
    }
    for device in &estimate.devices {
        if let Some(bytes) = device.driver_bytes.filter(|bytes| *bytes > Bytes::ZERO) {
            let text =
                format!("about {bytes} on {}, beyond these buffers: learnt from logs, not computed", device.name);
            facts.add("driver", plain(text));
        }
    }
    let outputs = match settings.outputs {
        OutputsReserved::MicroBatch => "logits for each token of a micro-batch, as llama.cpp's programs reserve",
        OutputsReserved::Sequence => "logits for one token of each sequence, as Muster's engine reserves",
    };
    facts.add("compute", plain(format!("batch {}, micro-batch {}, {outputs}", settings.batch, settings.ubatch)));
    let sized_by = match settings.graphs {
        ComputeGraphs::ThisBuild => estimate.engine_build.clone(),
        ComputeGraphs::Earlier => {
            format!("{}, with the compute graphs of builds whose logs are public", estimate.engine_build)
        }
    };
    facts.add("sized by", toned(&sized_by, Tone::Quiet));
    facts.render()
}

fn placement(estimate: &Estimate) -> String {
    let Estimate { devices, gpu_layers, total_layers, partial_layers, .. } = estimate;
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let mut text = match (names.len(), total_layers - gpu_layers.min(total_layers)) {
        (0, _) => format!("all {total_layers} layers on the CPU"),
        (_, 0) => format!("all {total_layers} layers on {}", names.join(", ")),
        (_, _) if *gpu_layers == 0 => format!("all {total_layers} layers on the CPU, none on {}", names.join(", ")),
        (_, left) => format!("{gpu_layers} of {total_layers} layers on {}, {left} on the CPU", names.join(", ")),
    };
    if devices.len() > 1 {
        let layers: Vec<String> = devices.iter().map(|device| format!("{} {}", device.name, device.layers)).collect();
        let _ = write!(text, " ({})", layers.join(", "));
    }
    if *partial_layers > 0 {
        let _ = write!(text, "; {}", partial(estimate, *partial_layers));
    }
    if let Some(margin) = estimate.settings.margin_bytes {
        let _ = write!(text, "; by llama.cpp's fit, which leaves {margin} free");
    }
    text
}

/// `the experts of 12 layers in main memory`.
fn partial(estimate: &Estimate, layers: u32) -> String {
    let what = if estimate.model.experts > 0 { "the experts" } else { "a part" };
    format!("{what} of {} in main memory", count(layers as usize, "layer", "layers"))
}

fn decode(speed: &EstimatedSpeed) -> String {
    let text = rate(speed.decode_tokens_per_second, speed.decode_low, speed.decode_high);
    match speed.depth.get() {
        0 => text,
        depth => format!("{text} after {} tokens", grouped(depth)),
    }
}

/// `62.1 tok/s (55.0 to 70.2)`.
fn rate(rate: TokensPerSecond, low: TokensPerSecond, high: TokensPerSecond) -> String {
    let number = |rate: TokensPerSecond| rate.to_string().replace(" tok/s", "");
    format!("{rate} ({} to {})", number(low), number(high))
}

fn instead(alternative: &Alternative, estimate: &Estimate) -> String {
    let mut text = match &alternative.change {
        Change::Context { n_ctx } => format!("--ctx {}", n_ctx.get()),
        Change::KvCache { kv_type } => format!("--kv-type {kv_type}"),
        Change::Quantization { quantization } => quantization.clone(),
        Change::Offload { gpu_layers, partial_layers: 0 } => {
            format!("{gpu_layers} of {} layers on devices", estimate.total_layers)
        }
        Change::Offload { gpu_layers, partial_layers } => format!(
            "{gpu_layers} of {} layers on devices, {}",
            estimate.total_layers,
            partial(estimate, *partial_layers)
        ),
    };
    if let Some(spare) = alternative.spare_bytes {
        let _ = write!(text, ": {spare} to spare");
    }
    if let Some(speed) = &alternative.speed {
        let _ = write!(text, ", {}", decode(speed));
    }
    text
}
