//! The benchmark: models of random weights in several sizes and quantizations, prefill and decode, repeated.
//!
//! Steps are in the order of what they tell; each is predicted from those before it, shortened to what is left of the
//! budget, or left out. It does not know what else runs on the machine: whoever started it watches, and kills it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::{jobs, measure};
use crate::bench_models::{BenchShape, EXPERTS, GPU, LARGE, MIDDLE, SMALL};
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
/// Tokens in the context of a depth point.
const DEPTH: u32 = 4096;
/// A step may take so many times its fair share of the budget: what it leaves is the next ones'.
const GENEROSITY: f64 = 1.6;
/// So many steps, from the first, are what a benchmark is for.
const VITAL: usize = 6;
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
}

const fn step(shape: &'static BenchShape, quantization: &'static str) -> Step {
    Step { shape, quantization, depth: 0, cpu: true, gpu: true }
}

const fn on_cpu(shape: &'static BenchShape, quantization: &'static str) -> Step {
    Step { shape, quantization, depth: 0, cpu: true, gpu: false }
}

const fn on_gpu(shape: &'static BenchShape, quantization: &'static str) -> Step {
    Step { shape, quantization, depth: 0, cpu: false, gpu: true }
}

/// What a few seconds are enough for.
const QUICK: [Step; 4] = [
    step(&SMALL, "Q8_0"),
    step(&MIDDLE, "Q4_K_M"),
    step(&MIDDLE, "Q8_0"),
    Step { depth: 512, ..step(&MIDDLE, "Q8_0") },
];

/// The most telling first: fixed costs, the four usual types, attention, experts, more than caches hold, further types.
const STANDARD: [Step; 20] = [
    step(&SMALL, "Q8_0"),
    step(&MIDDLE, "Q4_K_M"),
    step(&MIDDLE, "Q8_0"),
    step(&MIDDLE, "F16"),
    step(&MIDDLE, "MXFP4"),
    Step { depth: DEPTH, ..step(&MIDDLE, "Q8_0") },
    on_gpu(&GPU, "Q4_K_M"),
    on_gpu(&GPU, "Q8_0"),
    step(&EXPERTS, "Q4_K"),
    on_cpu(&MIDDLE, "Q6_K"),
    on_cpu(&MIDDLE, "Q4_0"),
    on_cpu(&LARGE, "Q8_0"),
    on_cpu(&MIDDLE, "IQ4_XS"),
    on_cpu(&MIDDLE, "Q5_K"),
    on_cpu(&MIDDLE, "Q3_K"),
    on_gpu(&GPU, "F16"),
    on_gpu(&GPU, "MXFP4"),
    on_cpu(&MIDDLE, "Q5_0"),
    on_cpu(&MIDDLE, "IQ3_S"),
    on_cpu(&SMALL, "Q4_K_M"),
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
}

pub fn run(request: &wire::Bench, id: u64, outbox: &Outbox) -> Result<Reply, String> {
    let folder = jobs::path_of(&request.scratch_dir);
    let mut bench = Bench { request, folder, id, outbox, start: Instant::now(), making: MAKING, made: BTreeMap::new() };
    let mut targets = targets();
    let steps: &[Step] = if request.quick { &QUICK } else { &STANDARD };
    for (index, step) in steps.iter().enumerate() {
        for at in 0..targets.len() {
            let on = if targets[at].gpu.is_some() { step.gpu } else { step.cpu };
            if on {
                bench.step(steps, index, &mut targets, at)?;
            }
        }
        // What later steps do not load again.
        let later = &steps[index + 1..];
        bench.made.retain(|key, _| later.iter().any(|step| (step.shape.name, step.quantization) == *key));
    }
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
    fn left(&self) -> f64 {
        self.request.budget_ms as f64 / 1e3 - self.start.elapsed().as_secs_f64()
    }

    /// Measures a step on one device, if the budget has room for it.
    fn step(&mut self, steps: &[Step], index: usize, targets: &mut [Target], at: usize) -> Result<(), String> {
        let step = steps[index];
        let key = (step.shape.name, step.quantization);
        let fraction = index as f32 / steps.len() as f32;
        // The telling steps share the budget by their parameters; the others take what is left.
        let claim = |step: &Step| step.shape.parameters() * (1.0 + f64::from(step.depth) / 2048.0);
        let here = claim(&step) * (targets.len() - at) as f64;
        let next = index + 1;
        let vital = &steps[next..VITAL.clamp(next, steps.len())];
        let later: f64 = vital.iter().map(|step| claim(step) * targets.len() as f64).sum();
        let allowed = self.left().min(self.left() * GENEROSITY * claim(&step) / (here + later));
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
        match self.point(&step, made, target, counted, Duration::from_secs_f64(allowed.max(0.0))) {
            Ok((point, pace)) => {
                let slower = |known: Option<f64>, new: f64| Some(known.map_or(new, |known| known.min(new)));
                target.pace =
                    Pace { prefill: slower(target.pace.prefill, pace.0), decode: slower(target.pace.decode, pace.1) };
                self.outbox.reply(self.id, Reply::BenchPoint(point)).map_err(|error| error.to_string())
            }
            // A GPU that is full with the owner's work, or a type that its driver lacks, leaves the others measured.
            Err(error) if target.gpu.is_some() => {
                self.outbox.progress(self.id, fraction, &format!("{label} on {}: left out, {error}", target.name));
                Ok(())
            }
            Err(error) => Err(error),
        }
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
        Ok(Made { file, facts })
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
    /// says the paces. Without counts a few tokens tell how many fit the time.
    fn point(
        &self,
        step: &Step,
        made: &Made,
        target: &Target,
        counted: Option<Counts>,
        allowed: Duration,
    ) -> Result<(wire::BenchPoint, (f64, f64)), String> {
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
        measure::append(&mut model, 0, 0, depth.max(prefill), batch)?;
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
        let parameters = made.facts.parameters_per_token as f64;
        let slowest = |rates: &[f64]| rates.iter().copied().fold(f64::INFINITY, f64::min) * parameters;
        // Attention over a context is not a pace of weights.
        let pace = if depth > 0 { (f64::INFINITY, f64::INFINITY) } else { (slowest(&prefills), slowest(&decodes)) };
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
        Ok((point, pace))
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
    const TRIES: [(u32, u32, u32); 8] = [
        (PREFILL, DECODE, 5),
        (PREFILL, DECODE, 3),
        (PREFILL, 64, 3),
        (PREFILL, 32, 3),
        (256, 32, 3),
        (128, 16, 3),
        (128, 16, 2),
        (64, 8, 2),
    ];
    let tries = if quick { &TRIES[2..] } else { &TRIES[..] };
    let parameters = step.shape.parameters();
    let counts = |(prefill, decode, repeats): (u32, u32, u32), depth| Counts { prefill, decode, repeats, depth };
    let (prefill, decode) = (pace.prefill?, pace.decode?);
    // Attention over a context costs about as much as the weights of a small model.
    let slower = |depth: u32| 1.0 + f64::from(depth) / 2048.0;
    let takes = |counts: &Counts| {
        let of = |tokens: u32, pace: f64| f64::from(tokens) * parameters / pace;
        let repeats = f64::from(counts.repeats);
        let warm = of(counts.prefill.max(counts.depth), prefill) * (1.0 + f64::from(counts.depth) / 4096.0);
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
        assert_eq!((fast.prefill, fast.decode, fast.repeats), (PREFILL, DECODE, 5));
        let slow = counts(&large, pace(1e11, 1e10), 1.5, false).expect("fits shortened");
        assert!(slow.decode < DECODE);
        let parameters = MIDDLE.parameters();
        let warm = f64::from(slow.prefill) * parameters / 1e11;
        let each = warm + f64::from(slow.decode) * parameters / 1e10;
        assert!(warm + f64::from(slow.repeats) * each <= 1.5);
        assert!(counts(&large, pace(1e9, 1e8), 1.0, false).is_none());
        let deep = Step { depth: DEPTH, ..large };
        let shallower = counts(&deep, pace(1e11, 1e11), 3.5, false).expect("fits at a smaller depth");
        assert!(shallower.depth < DEPTH && shallower.depth > 0, "{}", shallower.depth);
    }
}
