//! Compares the shipped profiles of all reference models with dry runs at random points: what `docs/benchmarks.md` quotes.
//!
//!     cargo build --workspace --example check_profiles && target/debug/examples/check_profiles BACKEND POINTS [NAME]
//!
//! With a NAME, profiles are made anew, of the models whose names it is part of. For each model so many points, half of them
//! with all layers on the GPU, the others with some, none, or experts on the host; one line for each figure that misses by more than 1 %, and at the
//! end the share of figures within it, for logits of one row a sequence and of whole micro-batches.

use std::process::ExitCode;
use std::time::Instant;

use muster_engine::maker::ModelSpec;
use muster_engine::profile::{DeviceShare, Needed, shipped};
use muster_engine::reference;
use muster_engine::worker::{
    MakeRequest, Outputs, PhantomBackend, PhantomDevice, ProfileBackend, ProfileDepth, ProfileRequest, SizeOptions,
    SizeRequest, Weights, WorkerCommand, make_model, profile, size,
};
use muster_proto::{Bytes, ContextTokens, EngineSettings, FlashAttention, KvType};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(muster_engine::WORKER_ARGUMENT) {
        return muster_engine::worker_main();
    }
    let mut arguments = std::env::args().skip(1);
    let backend = arguments.next().unwrap_or_else(|| "cuda".into());
    let points = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(4);
    let filter = arguments.next();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(&backend, points, filter.as_deref())))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("check_profiles: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(backend: &str, points: u32, filter: Option<&str>) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let command = WorkerCommand::this_executable()?;
    let kind = match backend {
        "vulkan" => PhantomBackend::Vulkan,
        "metal" => PhantomBackend::Metal,
        "rocm" => PhantomBackend::Rocm,
        _ => PhantomBackend::Cuda,
    };
    let gpu = DeviceShare::only("GPU0");
    let mut random = Random(11);
    let mut arithmetic = Vec::new();
    let mut misses: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::new());
    for model in reference::all().iter().filter(|model| filter.is_none_or(|part| model.id.contains(part))) {
        let quantization = model.default_quantization();
        let path = folder.path().join("model.gguf");
        let spec = ModelSpec::from(model);
        make_model(&command, MakeRequest { spec, quantization, path: path.clone(), weights: Weights::HeaderOnly })
            .await?;
        let profile = if filter.is_some() {
            let kind = ProfileBackend { backend: kind, capability: None };
            let request = ProfileRequest { path: path.clone(), backend: Some(kind), depth: ProfileDepth::Parts };
            let (before, start) = (cpu_seconds(), Instant::now());
            let made = profile(&command, request, |_| ()).await?;
            println!(
                "{}: {} bytes, {} dry runs, {:.2} s of CPU, {:.2} s, worst {:.5}",
                model.id,
                made.to_bytes().len(),
                made.dry_runs(),
                cpu_seconds() - before,
                start.elapsed().as_secs_f64(),
                made.worst_miss()
            );
            made
        } else {
            let Some(profile) = shipped::find(&model.id, quantization.name(), backend) else { continue };
            profile
        };
        for point in 0..points {
            let all_outputs = point % 2 == 1;
            let (kv_type, flash_attention) = match random.between(1.0, 4.0) {
                1 => (KvType::F16, FlashAttention::Auto),
                2 => (KvType::Q8_0, FlashAttention::Auto),
                3 => (KvType::Q4_0, FlashAttention::Auto),
                _ => (KvType::F16, FlashAttention::Off),
            };
            let settings = EngineSettings {
                context: ContextTokens::new(random.between(512.0, f64::from(profile.context_train().max(2048)))),
                parallel: random.between(0.5, 16.0).max(1),
                ubatch: random.between(64.0, 2048.0),
                kv_type,
                flash_attention,
                kv_unified: random.between(1.0, 3.0) == 1,
                ..EngineSettings::default()
            };
            let needed = Needed { devices: &gpu, total_context: None, all_outputs };
            let mut settings = settings;
            let layers = profile.total_layers();
            let part = if point % 4 < 2 { 0 } else { random.between(1.0, f64::from(layers) + 4.0) };
            let devices = match part {
                0 => &gpu[..],
                part if part < layers => {
                    settings.gpu_layers = Some(part);
                    &gpu[..]
                }
                part if part == layers => {
                    settings.expert_layers_on_host = random.between(1.0, f64::from(layers));
                    &gpu[..]
                }
                _ => &[][..],
            };
            let needed = Needed { devices, ..needed };
            // Where llama.cpp makes no such context the profile says so.
            let start = Instant::now();
            let Ok(mine) = profile.need(&settings, &needed) else { continue };
            arithmetic.push(start.elapsed().as_secs_f64() * 1e6);
            let request = SizeRequest {
                path: path.clone(),
                settings: settings.clone(),
                devices: devices.iter().map(|_| PhantomDevice::new("GPU0", kind, Bytes::from_gib(1 << 14))).collect(),
                options: SizeOptions {
                    outputs: if all_outputs { Outputs::MicroBatch } else { Outputs::PerSequence },
                    ..SizeOptions::default()
                },
            };
            let real = size(&command, request).await?.need;
            let pairs = mine.devices.iter().zip(&real.devices).chain([(&mine.host, &real.host)]);
            for (mine, real) in pairs {
                #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
                let miss = mine.total().get() as f64 / real.total().get() as f64 - 1.0;
                misses[2 * usize::from(part > 0) + usize::from(all_outputs)].push(miss.abs());
                if miss.abs() > 0.01 {
                    println!("{} {miss:+.4} outputs {all_outputs} {settings:?}\n  {mine:?}\n  {real:?}", model.id);
                }
            }
        }
    }
    arithmetic.sort_by(f64::total_cmp);
    let median = arithmetic.get(arithmetic.len() / 2).copied().unwrap_or(0.0);
    println!("a need takes {median:.1} µs of arithmetic at the median");
    for (misses, name) in misses.iter_mut().zip([
        "one row a sequence",
        "whole micro-batches",
        "partly or not on the GPU, one row a sequence",
        "partly or not on the GPU, whole micro-batches",
    ]) {
        misses.sort_by(f64::total_cmp);
        let within = misses.iter().filter(|miss| **miss <= 0.01).count();
        let at = |share: usize| misses.get(misses.len().saturating_sub(1) * share / 100).copied().unwrap_or(0.0);
        println!(
            "{backend}, {name}: {within} of {} figures within 1 %; median {:.5}, p90 {:.5}, p99 {:.5}, worst {:.5}",
            misses.len(),
            at(50),
            at(90),
            at(99),
            at(100)
        );
    }
    Ok(())
}

/// What workers that ended have computed (Linux).
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.rsplit(')').next().unwrap_or("").split(' ').filter_map(|word| word.parse().ok()).collect();
    // After the state, which is no number: `cutime` and `cstime`, in hundredths.
    fields.get(12).copied().unwrap_or(0.0) / 100.0 + fields.get(13).copied().unwrap_or(0.0) / 100.0
}

/// The same points in every run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn between(&mut self, least: f64, most: f64) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        #[expect(clippy::cast_precision_loss, reason = "24 bits")]
        let share = (self.0 >> 40) as f64 / f64::from(1 << 24);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
        let value = (least * (most / least).powf(share)).round() as u32;
        value
    }
}
