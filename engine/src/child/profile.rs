//! A sizing profile: the model opened to count, once for each placement, with many contexts on it.

use std::time::Instant;

use super::jobs::{DryRun, check_header, path_of, settings_of};
use super::outbox::Outbox;
use crate::profile::shape::{Rules, Shape, Wanted};
use crate::wire::{self, from_worker::Reply};
use crate::ffi;

pub fn run(request: &wire::Profile, _id: u64, _outbox: &Outbox) -> Result<Reply, String> {
    use std::io::Write as _;
    let mut out = std::fs::File::create(std::env::var("PROBE_OUT").map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let path = path_of(&request.path);
    check_header(&path)?;
    let kind = request.phantom.as_ref().ok_or("a phantom")?;
    let devices: u32 = std::env::var("PROBE_DEVICES").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let layers: Option<u32> = std::env::var("PROBE_LAYERS").ok().and_then(|v| v.parse().ok());
    let experts: u32 = std::env::var("PROBE_EXPERTS").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    let phantoms: Vec<_> = (0..devices).map(|i| ffi::Phantom { name: format!("{}{i}", kind.name), backend: kind.backend, total: 1 << 46, free: 1 << 46, capability: kind.capability, integrated: kind.integrated }).collect();
    ffi::register_phantoms(&phantoms)?;
    let base = wire::Settings { context: 4096, parallel: 1, batch: 2048, ubatch: 512, kv_type: 1, gpu_layers: layers, kv_unified: false, flash_attention: 1, expert_layers_on_host: experts };
    let dry = DryRun { phantoms: true, options: wire::SizeOptions::default() };
    let start = Instant::now();
    let mut model = ffi::Model::open(&path, &settings_of(&base, 0, Some(dry)), |_| true)?;
    writeln!(out, "OPEN {:?} {:?} {:?}", start.elapsed(), model.facts(), model.sizing_facts()).ok();
    let facts = model.sizing_facts();
    let rules = Rules { window: facts.window, bidirectional: !facts.causal, all_outputs: facts.all_outputs, cacheless: !facts.cache };
    let start = Instant::now();
    let tensors = model.tensors()?;
    let sums: u64 = tensors.iter().map(|t| t.bytes).sum();
    writeln!(out, "TENSORS {} {sums} {:?} {:?}", tensors.len(), start.elapsed(), model.memory()).ok();
    let mut seed = 1_u64;
    let mut random = move || { seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); (seed >> 40) as f64 / (1_u64 << 24) as f64 };
    let mut log = move |lo: f64, hi: f64| (lo * (hi / lo).powf(random())).round() as u32;
    let count: usize = std::env::var("PROBE_COUNT").ok().and_then(|v| v.parse().ok()).unwrap_or(60);
    for (fa, kv) in [(2, 1), (2, 2), (2, 3), (3, 1)] {
        for i in 0..count {
            let parallel = match i % 4 { 0 | 1 => 1, _ => log(1.5, 16.5) };
            let wanted = Wanted { context: log(512.0, 262_144.0), parallel, batch: 2048, ubatch: log(64.0, 2048.0), unified: i % 4 == 3, all_outputs: i % 2 == 1 };
            let shape = Shape::of(&wanted, &rules);
            let settings = wire::Settings { context: 1, parallel, ubatch: wanted.ubatch, kv_type: kv, flash_attention: fa, kv_unified: wanted.unified, ..base };
            let options = wire::SizeOptions { total_context: Some(wanted.context), all_outputs: wanted.all_outputs, ..Default::default() };
            let settings = settings_of(&settings, 0, Some(DryRun { phantoms: true, options }));
            let start = Instant::now();
            let again = model.reserve(&settings, &ffi::Shape { tokens: shape.tokens as u32, outputs: shape.outputs as u32, cells: shape.cells as u32, streams: shape.streams as u32 }, devices as usize)?;
            let t2 = start.elapsed();
            let (mut context, mut compute) = (Vec::new(), Vec::new());
            for r in &again { context.push(r.context); compute.push(r.compute); }
            let start = Instant::now();
            if std::env::var("PROBE_CHECK").is_ok() {
                let fresh = ffi::Model::open(&path, &settings, |_| true)?.memory();
                for (f, r) in fresh.iter().zip(&again) { if f.compute != r.compute || f.context != r.context { writeln!(out, "DIFFER {f:?} {r:?}").ok(); } }
            }
            let t1 = start.elapsed();
            writeln!(out, "SAMPLE {{\"fa\":{fa},\"kv\":{kv},\"t\":{},\"o\":{},\"s\":{},\"st\":{},\"k\":{},\"kw\":{},\"compute\":{compute:?},\"context\":{context:?},\"us\":[{},{}]}}",
                shape.tokens, shape.outputs, shape.sequences, shape.streams, shape.cells, shape.window_cells, t1.as_micros(), t2.as_micros()).ok();
        }
    }
    Ok(Reply::Profiled(wire::Profiled { profile: Vec::new() }))
}
