//! The benchmark: models of random weights in several sizes and quantizations, prefill and decode, repeated.
//!
//! Steps are in the order of what they tell; each is predicted from those before it, shortened to what is left of the
//! budget, or left out. What time is left then goes into further rounds over all of them: a machine's speed drifts over
//! seconds, so samples of one point are taken far apart. It does not know what else runs on the machine: whoever started it
//! watches, and kills it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::{jobs, measure};
use crate::bench_models::{BenchShape, DEEP, EXPERTS, GPU, LARGE, MIDDLE, SMALL};
use crate::ffi;
use crate::gguf::GgufHeader;
use crate::maker::{self, Quantization};
use crate::wire::{self, from_worker::Reply};

/// Tokens in a prefill, as `llama-bench` takes them by default.
const PREFILL: u32 = 512;
/// Tokens in a decode run, as `llama-bench` takes them by default.
const DECODE: u32 = 128;
/// Tokens in one physical batch, llama.cpp's default.
const BATCH: u32 = 512;
/// Tokens in the context of a depth point of a GPU; filling it takes a CPU too long.
const DEPTH: u32 = 4096;
/// The same of a CPU.
const DEPTH_CPU: u32 = 2048;
/// A step may take so many times its fair share of the budget: what it leaves is the next ones'.
const GENEROSITY: f64 = 1.6;
/// So many steps, from the first, are what a benchmark is for.
const VITAL: usize = 13;
/// Share of the budget that the first round may take.
const FIRST_ROUND: f32 = 0.7;
/// More samples than these of a point tell nothing more.
const ENOUGH: usize = 20;
/// Bytes of made models that are kept for further rounds.
const KEPT: f64 = 2e9;
/// Tokens of a warm-up: they touch every weight and buffer.
const WARM_UP: u32 = 128;
/// Seconds for making and loading a byte of a model, before the first was made.
const MAKING: f64 = 4e-9;
/// Decoding in between that a sustained run is timed by.
const SUSTAINED_DECODE: u32 = 64;
/// How long one sample of a sustained run takes at least.
const SUSTAINED_SAMPLE: Duration = Duration::from_secs(2);
/// What a step of a file type leaves free on the disk.
const DISK_RESERVE: u64 = 1 << 30;

/// One model at one depth.
#[derive(Clone, Copy)]
struct Step {
    shape: &'static BenchShape,
    quantization: &'static str,
    depth: u32,
    cpu: bool,
    gpu: bool,
    /// It is here for how it decodes: its prefill is short.
    decodes: bool,
}

const fn step(shape: &'static BenchShape, quantization: &'static str) -> Step {
    Step { shape, quantization, depth: 0, cpu: true, gpu: true, decodes: false }
}

const fn on_cpu(shape: &'static BenchShape, quantization: &'static str) -> Step {
    Step { gpu: false, ..step(shape, quantization) }
}

const fn on_gpu(shape: &'static BenchShape, quantization: &'static str) -> Step {
    Step { cpu: false, ..step(shape, quantization) }
}

/// Decoding from memory, beyond a processor's caches.
const fn streamed(shape: &'static BenchShape, quantization: &'static str) -> Step {
    Step { decodes: true, ..on_cpu(shape, quantization) }
}

impl Step {
    fn key(&self) -> (&'static str, &'static str) {
        (self.shape.name, self.quantization)
    }

    fn is_on(&self, target: &Target) -> bool {
        if target.gpu.is_some() { self.gpu } else { self.cpu }
    }

    /// What it takes, in units that only compare steps.
    fn claim(&self) -> f64 {
        let of_all = if self.decodes { 0.4 } else { 1.0 + f64::from(self.depth) / 1024.0 };
        self.shape.parameters() * of_all
    }
}

/// What a few seconds are enough for.
const QUICK: [Step; 4] = [
    step(&SMALL, "Q8_0"),
    step(&MIDDLE, "Q4_K_M"),
    step(&MIDDLE, "Q8_0"),
    Step { depth: 512, ..step(&MIDDLE, "Q8_0") },
];

/// The most telling first: fixed costs, the four usual types, more than caches hold, attention, experts, many thin layers,
/// further types.
const STANDARD: [Step; 26] = [
    step(&SMALL, "Q8_0"),
    step(&MIDDLE, "Q4_K_M"),
    step(&MIDDLE, "Q8_0"),
    streamed(&LARGE, "Q8_0"),
    step(&MIDDLE, "F16"),
    step(&MIDDLE, "MXFP4"),
    Step { depth: DEPTH_CPU, ..on_cpu(&MIDDLE, "Q8_0") },
    Step { depth: DEPTH, ..on_gpu(&MIDDLE, "Q8_0") },
    streamed(&LARGE, "Q4_K_M"),
    on_gpu(&GPU, "Q4_K_M"),
    on_gpu(&GPU, "Q8_0"),
    step(&EXPERTS, "Q4_K"),
    streamed(&DEEP, "Q4_K"),
    streamed(&LARGE, "Q6_K"),
    streamed(&LARGE, "Q5_K"),
    on_gpu(&GPU, "F16"),
    on_gpu(&GPU, "MXFP4"),
    on_cpu(&MIDDLE, "Q4_0"),
    on_cpu(&MIDDLE, "IQ4_XS"),
    on_cpu(&MIDDLE, "Q3_K"),
    on_cpu(&MIDDLE, "Q6_K"),
    on_cpu(&MIDDLE, "Q5_K"),
    streamed(&LARGE, "IQ4_XS"),
    streamed(&LARGE, "Q3_K"),
    on_cpu(&MIDDLE, "Q5_0"),
    on_cpu(&MIDDLE, "IQ3_S"),
];

/// How much of a step is measured.
#[derive(Clone, Copy)]
struct Counts {
    prefill: u32,
    decode: u32,
    repeats: u32,
    depth: u32,
}

/// What is known of a device's speed so far, in parameters times tokens a second: the slowest.
#[derive(Clone, Copy, Default)]
struct Pace {
    prefill: Option<f64>,
    decode: Option<f64>,
}

/// A device to measure on.
struct Target {
    name: String,
    /// Which of llama.cpp's GPUs, of how many; none for the CPU.
    gpu: Option<(usize, usize)>,
    pace: Pace,
}

/// Removes a scratch model, however the step ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A made model.
struct Made {
    file: Scratch,
    facts: wire::BenchPoint,
    bytes: f64,
}

/// A step that was measured on a device, and may be again.
struct Visited {
    step: Step,
    at: usize,
    counts: Counts,
    point: wire::BenchPoint,
    /// Seconds of the longest visit.
    took: f64,
}

struct Bench<'a> {
    request: &'a wire::Bench,
    folder: PathBuf,
    id: u64,
    outbox: &'a Outbox,
    start: Instant,
    /// Seconds a byte of making and loading.
    making: f64,
    made: BTreeMap<(&'static str, &'static str), Made>,
    visited: Vec<Visited>,
}

pub fn run(request: &wire::Bench, id: u64, outbox: &Outbox) -> Result<Reply, String> {
    let folder = jobs::path_of(&request.scratch_dir);
    let mut bench = Bench {
        request,
        folder,
        id,
        outbox,
        start: Instant::now(),
        making: MAKING,
        made: BTreeMap::new(),
        visited: Vec::new(),
    };
    let mut targets = targets();
    let steps: &[Step] = if request.quick { &QUICK } else { &STANDARD };
    for index in 0..steps.len() {
        for at in 0..targets.len() {
            if steps[index].is_on(&targets[at]) {
                bench.step(steps, index, &mut targets, at)?;
            }
        }
        bench.forget(&steps[index + 1..]);
    }
    if !request.quick {
        while bench.round(&targets)? {}
    }
    bench.made.clear();
    if request.sustained_ms > 0
        && let Some(target) = targets.first()
    {
        bench.sustained(target)?;
    }
    outbox.progress(id, 1.0, "done");
    Ok(Reply::Done(wire::Done {}))
}

/// The GPUs that llama.cpp would use (integrated ones only where there is no other), then the CPU.
fn targets() -> Vec<Target> {
    let devices = ffi::devices();
    let named = |kind: i32| devices.iter().filter(move |device| device.kind == kind).map(|device| device.name.clone());
    let mut gpus: Vec<String> = named(2).collect();
    if gpus.is_empty() {
        gpus = named(3).collect();
    }
    let count = gpus.len();
    let target = |name, gpu| Target { name, gpu, pace: Pace::default() };
    let mut all: Vec<Target> =
        gpus.into_iter().enumerate().map(|(index, name)| target(name, Some((index, count)))).collect();
    all.push(target("CPU".into(), None));
    all
}

impl Bench<'_> {
    /// Seconds until this share of the budget is used up.
    fn left(&self, share: f64) -> f64 {
        self.request.budget_ms as f64 / 1e3 * share - self.start.elapsed().as_secs_f64()
    }

    /// Removes models that no later step loads, where further rounds would keep too many.
    fn forget(&mut self, later: &[Step]) {
        let mut kept = 0.0;
        let quick = self.request.quick;
        self.made.retain(|key, made| {
            let needed = later.iter().any(|step| step.key() == *key);
            let keep = needed || (!quick && kept + made.bytes <= KEPT);
            kept += if keep { made.bytes } else { 0.0 };
            keep
        });
    }

    /// Measures a step on one device, if the budget has room for it.
    fn step(&mut self, steps: &[Step], index: usize, targets: &mut [Target], at: usize) -> Result<(), String> {
        let step = steps[index];
        let key = step.key();
        let first_round = if self.request.quick { 1.0 } else { FIRST_ROUND };
        let fraction = index as f32 / steps.len() as f32 * first_round;
        // The telling steps share the budget by their claims; the others take what is left.
        let claim = |step: &Step, from: usize| {
            targets[from..].iter().filter(|target| step.is_on(target)).count() as f64 * step.claim()
        };
        let next = index + 1;
        let vital = &steps[next..VITAL.clamp(next, steps.len())];
        let rest = claim(&step, at) + vital.iter().map(|step| claim(step, 0)).sum::<f64>();
        let left = self.left(f64::from(first_round));
        let allowed = left.min(left * GENEROSITY * step.claim() / rest);
        let making = if self.made.contains_key(&key) { 0.0 } else { self.making * file_size(&step) };
        let known = targets[at].pace.prefill.is_some();
        let counted = counts(&step, targets[at].pace, allowed - making, self.request.quick);
        if known && counted.is_none() {
            return Ok(());
        }
        let label = format!("{} {}", step.shape.name, step.quantization);
        if !self.made.contains_key(&key) {
            if !self.room_for(file_size(&step)) {
                self.outbox.progress(self.id, fraction, &format!("{label}: left out, too little disk is free"));
                return Ok(());
            }
            self.outbox.progress(self.id, fraction, &format!("{label}: making"));
            let began = Instant::now();
            let made = self.make(&step)?;
            self.making = began.elapsed().as_secs_f64() / file_size(&step).max(1e6) * 1.3;
            self.made.insert(key, made);
        }
        let target = &mut targets[at];
        let depth = counted.map_or(step.depth, |counts| counts.depth);
        let depth = if depth > 0 { format!(" at depth {depth}") } else { String::new() };
        self.outbox.progress(self.id, fraction, &format!("{label} on {}{depth}: measuring", target.name));
        let Some(made) = self.made.get(&key) else { return Ok(()) };
        let began = Instant::now();
        match self.point(&step, made, target, counted, Duration::from_secs_f64(allowed.max(0.0))) {
            Ok((point, counts)) => {
                // Attention over a context is not a pace of weights.
                if counts.depth == 0 {
                    let parameters = made.facts.parameters_per_token as f64;
                    let slowest = |known: Option<f64>, rates: &[f64]| {
                        let new = rates.iter().copied().fold(f64::INFINITY, f64::min) * parameters;
                        Some(known.map_or(new, |known| known.min(new)))
                    };
                    target.pace = Pace {
                        prefill: slowest(target.pace.prefill, &point.prefill),
                        decode: slowest(target.pace.decode, &point.decode),
                    };
                }
                self.tell(&point)?;
                let took = began.elapsed().as_secs_f64();
                self.visited.push(Visited { step, at, counts, point, took });
                Ok(())
            }
            // A GPU that is full with the owner's work, or a type that its driver lacks, leaves the others measured.
            Err(error) if target.gpu.is_some() => {
                self.outbox.progress(self.id, fraction, &format!("{label} on {}: left out, {error}", target.name));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Visits every point once more that has room in the budget and is not known well yet; whether there was one. Points at
    /// a depth are not: filling the context takes most of their time.
    fn round(&mut self, targets: &[Target]) -> Result<bool, String> {
        let mut any = false;
        for index in 0..self.visited.len() {
            let Visited { step, at, counts, ref point, took } = self.visited[index];
            let known = point.decode.len() >= ENOUGH;
            if known || counts.depth > 0 || took > self.left(1.0) {
                continue;
            }
            let Some(made) = self.made.get(&step.key()) else { continue };
            let label = format!("{} {} on {}: measuring again", step.shape.name, step.quantization, targets[at].name);
            let spent = self.start.elapsed().as_secs_f32() / (self.request.budget_ms as f32 / 1e3);
            self.outbox.progress(self.id, spent.clamp(FIRST_ROUND, 1.0), &label);
            let began = Instant::now();
            let more = self.point(&step, made, &targets[at], Some(counts), Duration::from_secs_f64(2.0 * took));
            let took = began.elapsed().as_secs_f64();
            match more {
                Ok((more, _)) => {
                    let visited = &mut self.visited[index];
                    visited.point.prefill.extend(more.prefill);
                    visited.point.decode.extend(more.decode);
                    visited.took = visited.took.max(took);
                    self.tell(&self.visited[index].point)?;
                    any = true;
                }
                // The owner took the GPU's memory since.
                Err(_) if targets[at].gpu.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(any)
    }

    fn tell(&self, point: &wire::BenchPoint) -> Result<(), String> {
        self.outbox.reply(self.id, Reply::BenchPoint(point.clone())).map_err(|error| error.to_string())
    }

    fn room_for(&self, bytes: f64) -> bool {
        #[cfg(unix)]
        if let Ok(volume) = rustix::fs::statvfs(&self.folder) {
            return (volume.f_bavail * volume.f_frsize) as f64 > bytes + DISK_RESERVE as f64;
        }
        true
    }

    fn make(&self, step: &Step) -> Result<Made, String> {
        let name = format!("bench-{}-{}-{}-{}.gguf", std::process::id(), self.id, step.shape.name, step.quantization);
        let file = Scratch(self.folder.join(name));
        // The types of every matrix are said one by one where the quantization is one type; then the mixture is moot.
        let mixture: Quantization = if step.quantization == "Q4_K_M" { "Q4_K_M" } else { "F16" }
            .parse()
            .map_err(|error: maker::UnknownQuantization| error.to_string())?;
        maker::make(&step.shape.spec(step.quantization), mixture, Some(1), &file.0)?;
        let header = GgufHeader::read(&file.0).map_err(|error| error.to_string())?;
        let facts = wire::BenchPoint {
            model: step.shape.name.into(),
            quantization: step.quantization.into(),
            bytes_per_token: header.bytes_per_token().get(),
            parameters_per_token: header.parameters_per_token(),
            layers: step.shape.layers,
            ..wire::BenchPoint::default()
        };
        let bytes = std::fs::metadata(&file.0).map_or(0.0, |metadata| metadata.len() as f64);
        Ok(Made { file, facts, bytes })
    }

    fn open(&self, path: &Path, target: &Target, context: u32) -> Result<ffi::Model, String> {
        let layout = match target.gpu {
            Some((index, count)) if count > 1 => ffi::Layout {
                split: (0..count).map(|at| if at == index { 1.0 } else { 0.0 }).collect(),
                overrides: Vec::new(),
            },
            _ => ffi::Layout::default(),
        };
        ffi::Model::open(path, &settings(context, self.request.threads, target.gpu.is_none()), &layout, |_| true)
    }

    /// Times prefill and decode as `llama-bench` does: each from the same depth, decode without a prompt of its own. Also
    /// says how much of both. Without counts a few tokens tell how many fit the time.
    fn point(
        &self,
        step: &Step,
        made: &Made,
        target: &Target,
        counted: Option<Counts>,
        allowed: Duration,
    ) -> Result<(wire::BenchPoint, Counts), String> {
        let start = Instant::now();
        let batch = BATCH as usize;
        let mut model = self.open(&made.file.0, target, step.depth + PREFILL)?;
        let threads = model.facts().threads;
        let counts = match counted {
            Some(counted) => counted,
            None => self.probe(step, &mut model, allowed.saturating_sub(start.elapsed()))?,
        };
        let Counts { prefill, decode, repeats, depth } = counts;
        // First touch of weights and buffers is slower. The context before is part of it.
        measure::append(&mut model, 0, 0, depth.max(prefill.min(WARM_UP)), batch)?;
        if depth == 0 {
            model.clear(0);
        }
        measure::append(&mut model, 0, depth, 1, 1)?;
        let from = i32::try_from(depth).unwrap_or(0);
        let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            model.trim(0, from);
            prefills.push(measure::rate(prefill, measure::append(&mut model, 0, depth, prefill, batch)?));
            model.trim(0, from);
            decodes.push(measure::rate(decode, measure::append(&mut model, 0, depth, decode, 1)?));
            // Others came: what is slower than expected is not repeated.
            if start.elapsed() > allowed {
                break;
            }
        }
        let point = wire::BenchPoint {
            device: target.name.clone(),
            threads: target.gpu.is_none().then_some(threads),
            prefill_tokens: prefill,
            decode_tokens: decode,
            prefill: prefills,
            decode: decodes,
            depth,
            ..made.facts.clone()
        };
        Ok((point, counts))
    }

    /// How much fits into the time, by a few tokens; the least there is where nothing does.
    fn probe(&self, step: &Step, model: &mut ffi::Model, left: Duration) -> Result<Counts, String> {
        let (few, one) = (32, 2);
        measure::append(model, 0, 0, few, BATCH as usize)?;
        model.clear(0);
        let prefill = measure::rate(few, measure::append(model, 0, 0, few, BATCH as usize)?);
        let decode = measure::rate(one, measure::append(model, 0, few, one, 1)?);
        model.clear(0);
        let parameters = step.shape.parameters();
        let pace = Pace { prefill: Some(prefill * parameters), decode: Some(decode * parameters) };
        let least = Counts { prefill: 64, decode: 4, repeats: 1, depth: 0 };
        Ok(counts(step, pace, left.as_secs_f64(), self.request.quick).unwrap_or(least))
    }

    /// Loads a device for minutes: prefill, which heats most, with decode in between, which is timed.
    fn sustained(&mut self, target: &Target) -> Result<(), String> {
        let shape: &'static BenchShape = if target.gpu.is_some() { &GPU } else { &MIDDLE };
        let made = self.make(&step(shape, "Q4_K_M"))?;
        let mut model = self.open(&made.file.0, target, PREFILL + SUSTAINED_DECODE)?;
        let wanted = Duration::from_millis(self.request.sustained_ms);
        let (start, mut rates) = (Instant::now(), Vec::new());
        while start.elapsed() < wanted {
            let (began, mut tokens, mut time) = (Instant::now(), 0, Duration::ZERO);
            while began.elapsed() < SUSTAINED_SAMPLE {
                model.clear(0);
                measure::append(&mut model, 0, 0, PREFILL, BATCH as usize)?;
                time += measure::append(&mut model, 0, PREFILL, SUSTAINED_DECODE, 1)?;
                tokens += SUSTAINED_DECODE;
            }
            rates.push(measure::rate(tokens, time));
            let done = start.elapsed().as_secs_f32() / wanted.as_secs_f32().max(1e-3);
            let said = format!(
                "{} under load, {:.0} s of {:.0}",
                target.name,
                start.elapsed().as_secs_f32(),
                wanted.as_secs_f32()
            );
            self.outbox.progress(self.id, done.min(1.0), &said);
        }
        let reply = Reply::Sustained(wire::Sustained { device: target.name.clone(), rates });
        self.outbox.reply(self.id, reply).map_err(|error| error.to_string())
    }
}

/// Bytes of a step's file, nearly.
fn file_size(step: &Step) -> f64 {
    let name = if step.quantization == "Q4_K_M" { "Q5_K" } else { step.quantization };
    let bits =
        crate::gguf::TensorType::from_name(name).map_or(16.0, |kind| kind.bytes as f64 * 8.0 / kind.block as f64);
    step.shape.parameters() * bits / 8.0
}

/// The most that is expected to fit into so many seconds at a pace; `None` where that is not known or nothing fits.
fn counts(step: &Step, pace: Pace, seconds: f64, quick: bool) -> Option<Counts> {
    /// Tokens of a prefill, of a decode run, and repeats.
    type Tries = &'static [(u32, u32, u32)];
    const USUAL: Tries =
        &[(PREFILL, DECODE, 2), (PREFILL, 64, 2), (PREFILL, 32, 2), (256, 32, 2), (128, 16, 2), (64, 8, 2)];
    const AT_DEPTH: Tries = &[(PREFILL, 32, 3), (256, 32, 3), (128, 16, 3), (64, 8, 2)];
    const STREAMED: Tries = &[(128, 64, 2), (128, 32, 2), (64, 32, 2), (64, 16, 2), (64, 8, 1)];
    const QUICKLY: Tries = &[(PREFILL, 64, 3), (PREFILL, 32, 3), (256, 32, 3), (128, 16, 3), (128, 16, 2), (64, 8, 2)];
    let tries = match step {
        _ if quick => QUICKLY,
        Step { decodes: true, .. } => STREAMED,
        Step { depth, .. } if *depth > 0 => AT_DEPTH,
        _ => USUAL,
    };
    let parameters = step.shape.parameters();
    let counts = |(prefill, decode, repeats): (u32, u32, u32), depth| Counts { prefill, decode, repeats, depth };
    let (prefill, decode) = (pace.prefill?, pace.decode?);
    // Attention over a context costs about as much as the weights of a small model.
    let slower = |depth: u32| 1.0 + f64::from(depth) / 2048.0;
    let takes = |counts: &Counts| {
        let of = |tokens: u32, pace: f64| f64::from(tokens) * parameters / pace;
        let repeats = f64::from(counts.repeats);
        let warm =
            of(counts.prefill.min(WARM_UP).max(counts.depth), prefill) * (1.0 + f64::from(counts.depth) / 4096.0);
        warm + repeats * (of(counts.prefill, prefill) + of(counts.decode, decode)) * slower(counts.depth)
    };
    let depths: &[u32] = if step.depth > 1024 { &[1, 2, 4] } else { &[1] };
    depths
        .iter()
        .flat_map(|by| tries.iter().map(move |one| counts(*one, step.depth / by)))
        .find(|counts| takes(counts) <= seconds)
}

fn settings(context: u32, threads: u32, cpu_only: bool) -> ffi::Settings {
    ffi::Settings {
        context,
        parallel: 1,
        batch: BATCH,
        ubatch: BATCH,
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(prefill: f64, decode: f64) -> Pace {
        Pace { prefill: Some(prefill), decode: Some(decode) }
    }

    #[test]
    fn what_does_not_fit_is_shortened_and_then_left_out() {
        let large = step(&MIDDLE, "Q8_0");
        let fast = counts(&large, pace(1e12, 1e11), 10.0, false).expect("fits");
        assert_eq!((fast.prefill, fast.decode, fast.repeats), (PREFILL, DECODE, 2));
        let streamed = counts(&streamed(&LARGE, "Q8_0"), pace(1e12, 1e11), 10.0, false).expect("fits");
        assert_eq!((streamed.prefill, streamed.decode), (128, 64));
        let slow = counts(&large, pace(1e11, 1e10), 1.5, false).expect("fits shortened");
        assert!(slow.decode < DECODE);
        let parameters = MIDDLE.parameters();
        let of = |tokens: u32, pace: f64| f64::from(tokens) * parameters / pace;
        let warm = of(slow.prefill.min(WARM_UP), 1e11);
        let each = of(slow.prefill, 1e11) + of(slow.decode, 1e10);
        assert!(warm + f64::from(slow.repeats) * each <= 1.5);
        assert!(counts(&large, pace(1e9, 1e8), 1.0, false).is_none());
        let deep = Step { depth: DEPTH, ..large };
        let shallower = counts(&deep, pace(1e11, 1e11), 3.5, false).expect("fits at a smaller depth");
        assert!(shallower.depth < DEPTH && shallower.depth > 0, "{}", shallower.depth);
    }
}
