//! How well this machine's own benchmark predicts other shapes and quantizations on its CPU, and how well its repeats agree:
//! `cargo build --workspace --bins --examples && target/debug/examples/calibration [ROUNDS] [SECONDS] [THREADS] [SAVED]`.
//!
//! Each round is a benchmark, then each of the other models measured. Predictions are from each benchmark alone, held
//! against the medians over all rounds, so that a machine whose speed drifts is caught at several times. What was measured
//! is written to SAVED (JSON); a SAVED that exists is judged anew without measuring.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_engine::device_table;
use muster_engine::gguf::GgufHeader;
use muster_engine::maker::{self, ModelSpec, OutputMatrix, PerLayer, Shape};
use muster_engine::speed::{Backend, Calibration, ModelCosts, SpeedQuestion, estimate};
use muster_engine::worker::{
    BenchEvent, BenchRequest, Generator, Layout, LoadRequest, MakeRequest, Weights, WorkerCommand, bench, make_model,
};
use muster_proto::{Benchmark, Conditions, ContextTokens, EngineSettings, FlashAttention, Timestamp};
use serde::{Deserialize, Serialize};

/// Architecture, quantization, layers, width, heads, heads of keys and values, feed-forward width, vocabulary, and experts
/// with those used.
type Case = (&'static str, &'static str, u32, u32, u32, u32, u32, u32, Option<(u32, u32)>);

const CASES: [Case; 10] = [
    ("llama", "Q5_K_M", 12, 1024, 16, 8, 2816, 16384, None),
    ("llama", "Q4_K_M", 16, 1536, 24, 8, 4096, 32000, None),
    ("llama", "Q6_K", 22, 1024, 16, 4, 3072, 8192, None),
    ("llama", "IQ4_XS", 10, 1280, 20, 4, 3584, 16384, None),
    ("llama", "Q4_0", 14, 1024, 16, 4, 4096, 16384, None),
    ("llama", "Q8_0", 6, 2048, 32, 8, 5632, 16384, None),
    ("qwen3", "Q4_K_M", 14, 1024, 16, 8, 3072, 32768, None),
    ("qwen3", "Q8_0", 20, 768, 12, 4, 2304, 16384, None),
    ("gemma3", "Q4_K_M", 13, 1024, 8, 4, 4096, 32768, None),
    ("qwen3moe", "Q4_K_M", 8, 1024, 16, 4, 0, 16384, Some((32, 4))),
];

/// What was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    benchmarks: Vec<Benchmark>,
    /// By case: prefill and decode of each round, in tokens a second.
    cases: Vec<Vec<(f64, f64)>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: u32| arguments.next().map_or(Ok(otherwise), |text| text.parse::<u32>());
    let (rounds, seconds, threads) = (number(3)?, number(30)?, number(0)?);
    let saved_at: Option<PathBuf> = std::env::args().nth(4).map(PathBuf::from);
    let programs = std::env::current_exe()?.parent().and_then(|folder| folder.parent()).ok_or("no folder")?.to_owned();
    let run = Run {
        command: WorkerCommand::new(programs.join("engine-worker")),
        scratch: tempfile::tempdir()?,
        threads: Some(threads).filter(|threads| *threads > 0),
    };
    let known = saved_at.as_ref().filter(|path| path.exists());
    let saved = if let Some(path) = known {
        serde_json::from_slice(&std::fs::read(path)?)?
    } else {
        let mut saved = Saved { cases: vec![Vec::new(); CASES.len()], ..Saved::default() };
        for round in 0..rounds {
            saved.benchmarks.push(run.benchmark(Duration::from_secs(seconds.into())).await?);
            for (case, rates) in CASES.iter().zip(&mut saved.cases) {
                rates.push(run.measure(&run.made(case, Weights::Random { seed: 7 }).await?).await?);
            }
            eprintln!("round {} of {rounds} done", round + 1);
        }
        saved
    };
    if let Some(path) = saved_at {
        std::fs::write(path, serde_json::to_vec_pretty(&saved)?)?;
    }
    predictions(&run, &saved).await?;
    repeats(&saved);
    Ok(())
}

/// Holds what each benchmark predicts against what was measured.
async fn predictions(run: &Run, saved: &Saved) -> Result<(), Box<dyn Error>> {
    let known = device_table::by_key("cpu-desktop").ok_or("the data file has no desktop")?;
    let mut all: [Vec<f64>; 2] = Default::default();
    let mut costs = Vec::new();
    for case in &CASES {
        costs.push(ModelCosts::of(&GgufHeader::read(&run.made(case, Weights::HeaderOnly).await?)?)?);
    }
    for (index, benchmark) in saved.benchmarks.iter().enumerate() {
        let calibration = Calibration::from_benchmark(benchmark, "CPU", known).ok_or("no calibration")?;
        println!("predicted by benchmark {index}, measured (median of {}), error:", saved.cases[0].len());
        let mut errors: [Vec<f64>; 2] = Default::default();
        for ((case, costs), rates) in CASES.iter().zip(&costs).zip(&saved.cases) {
            let mut question = SpeedQuestion::on(costs, known, Backend::Cpu);
            question.host_calibration = Some(&calibration);
            let speed = estimate(&question)?;
            let predicted = [speed.prefill.expected.get(), speed.decode.expected.get()];
            let measured =
                [median(rates.iter().map(|rates| rates.0).collect()), median(rates.iter().map(|r| r.1).collect())];
            print!("{:28}", format!("{} {} {}x{}", case.0, case.1, case.2, case.3));
            for phase in 0..2 {
                let error = (predicted[phase] / measured[phase] - 1.0) * 100.0;
                print!(" {:8.1} {:8.1} {error:+6.1} %", predicted[phase], measured[phase]);
                errors[phase].push(error.abs());
            }
            println!();
        }
        let medians = errors.map(median);
        println!("median error: prefill {:.1} %, decode {:.1} %", medians[0], medians[1]);
        all.iter_mut().zip(medians).for_each(|(all, median)| all.push(median));
    }
    let [prefill, decode] = all.map(median);
    println!("median over benchmarks: prefill {prefill:.1} %, decode {decode:.1} %");
    Ok(())
}

/// How far each point's median lies from the median over all benchmarks.
fn repeats(saved: &Saved) {
    let mut points: BTreeMap<String, [Vec<f64>; 2]> = BTreeMap::new();
    for point in saved.benchmarks.iter().flat_map(|benchmark| &benchmark.points) {
        let name = format!("{} {} at {}", point.model.name, point.model.quantization, point.depth);
        let rates = points.entry(name).or_default();
        rates[0].push(point.prefill.median.get());
        rates[1].push(point.decode.median.get());
    }
    println!("repeats of the benchmark: points, in how many, median and largest distance from their median");
    let mut all: [Vec<f64>; 2] = Default::default();
    for (name, rates) in points.iter().filter(|(_, rates)| rates[0].len() > 1) {
        let count = rates[0].len();
        print!("{name:32} {count:3}");
        for (phase, rates) in rates.iter().enumerate() {
            let middle = median(rates.clone());
            let distances: Vec<f64> = rates.iter().map(|rate| (rate / middle - 1.0).abs() * 100.0).collect();
            let largest = distances.iter().copied().fold(0.0, f64::max);
            let typical = median(distances);
            print!("  {middle:9.1} {typical:4.1} % {largest:5.1} %");
            all[phase].push(typical);
        }
        println!();
    }
    let [prefill, decode] = all.map(median);
    println!("median over points: prefill {prefill:.1} %, decode {decode:.1} %");
}

fn spec(case: &Case) -> ModelSpec {
    let (architecture, _, layers, width, heads, kv_heads, feed_forward, vocabulary, experts) = *case;
    let gemma = architecture == "gemma3";
    let head = width / heads;
    let shape = Shape {
        n_layer: layers,
        n_embd: width,
        n_head: PerLayer::Same(heads),
        n_head_kv: PerLayer::Same(kv_heads),
        head_dim_k: head,
        head_dim_v: head,
        n_ff: PerLayer::Same(feed_forward),
        n_vocab: vocabulary,
        n_ctx_train: 8192,
        tied: Some(true),
        qk_norm: architecture != "llama",
        norm_eps: Some(1e-6),
        rope_dim: Some(head),
        rope_base: Some(10_000.0),
        n_swa: gemma.then_some(512),
        n_expert: experts.map(|(count, _)| count),
        n_expert_used: experts.map(|(_, used)| used),
        n_ff_exp: experts.map(|_| 512),
        ..Shape::default()
    };
    ModelSpec {
        name: "calibration".into(),
        architecture: architecture.into(),
        shape,
        output: OutputMatrix::Tied,
        types: BTreeMap::new(),
        importance: false,
        published: None,
    }
}

/// What all measurements share.
struct Run {
    command: WorkerCommand,
    scratch: tempfile::TempDir,
    threads: Option<u32>,
}

impl Run {
    /// The file of a case; made where it is not there yet.
    async fn made(&self, case: &Case, weights: Weights) -> Result<PathBuf, Box<dyn Error>> {
        let kind = if weights == Weights::HeaderOnly { "header" } else { "gguf" };
        let path = self.scratch.path().join(format!("{}-{}-{}-{}.{kind}", case.0, case.1, case.2, case.3));
        if !path.exists() {
            let quantization = case.1.parse::<maker::Quantization>()?;
            let request = MakeRequest { spec: spec(case), quantization, weights, path: path.clone() };
            make_model(&self.command, request).await?;
        }
        Ok(path)
    }

    async fn benchmark(&self, budget: Duration) -> Result<Benchmark, Box<dyn Error>> {
        let request = BenchRequest {
            scratch_dir: self.scratch.path().to_owned(),
            budget,
            threads: self.threads,
            quick: false,
            sustained: Duration::ZERO,
        };
        let mut points = Vec::new();
        bench(&self.command, request, |event| {
            if let BenchEvent::Point(point) = event {
                point.put_into(&mut points);
            }
        })
        .await?;
        for point in &points {
            println!(
                "{} {} on {} at {}: prefill {} ± {:.1}, decode {} ± {:.2} ({} runs of {} and {})",
                point.model.name,
                point.model.quantization,
                point.device,
                point.depth,
                point.prefill.median,
                point.prefill.median_absolute_deviation,
                point.decode.median,
                point.decode.median_absolute_deviation,
                point.decode.samples.len(),
                point.prefill_tokens,
                point.decode_tokens,
            );
        }
        Ok(Benchmark {
            measured_at: Timestamp::from_unix_millis(0),
            took_ms: 0,
            engine_build: muster_engine::BUILD.into(),
            hardware_fingerprint: "this machine".into(),
            points,
            conditions: Conditions::default(),
            parts: vec![],
            on_battery: vec![],
        })
    }

    /// Prefill and decode of a file, each from an empty context.
    async fn measure(&self, path: &Path) -> Result<(f64, f64), Box<dyn Error>> {
        let settings = EngineSettings {
            context: ContextTokens::new(1024),
            gpu_layers: Some(0),
            flash_attention: FlashAttention::On,
            ..EngineSettings::default()
        };
        let request = LoadRequest { path: path.to_owned(), settings, threads: self.threads, layout: Layout::default() };
        let (generator, _) = Generator::start(&self.command, request, |_| {}).await?;
        generator.measure(256, 4).await?;
        let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            prefills.push(generator.measure(512, 1).await?.0.get());
            decodes.push(generator.measure(1, 128).await?.1.get());
        }
        generator.stop().await;
        Ok((median(prefills), median(decodes)))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}
