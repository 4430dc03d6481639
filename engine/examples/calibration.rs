//! How well this machine's own benchmark predicts other shapes and quantizations on its CPU:
//! `cargo build --workspace --bins --examples && target/debug/examples/calibration [SECONDS] [THREADS]`.
//!
//! A benchmark, then each model made, predicted and measured, then the benchmark again; predictions are from both
//! benchmarks, so that a machine that changes in between shows.

use std::error::Error;
use std::time::Duration;

use muster_engine::device_table;
use muster_engine::gguf::GgufHeader;
use muster_engine::maker::{ModelSpec, OutputMatrix, PerLayer, Quantization, Shape};
use muster_engine::speed::{Backend, Calibration, ModelCosts, SpeedQuestion, estimate};
use muster_engine::worker::{
    BenchEvent, BenchRequest, Generator, Layout, LoadRequest, MakeRequest, Weights, WorkerCommand, bench, make_model,
};
use muster_proto::{Benchmark, Conditions, ContextTokens, EngineSettings, FlashAttention, Timestamp};

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(60), |text| text.parse())?;
    let threads: Option<u32> = arguments.next().map(|text| text.parse()).transpose()?;
    let programs = std::env::current_exe()?.parent().and_then(|folder| folder.parent()).ok_or("no folder")?.to_owned();
    let command = WorkerCommand::new(programs.join("engine-worker"));
    let scratch = tempfile::tempdir()?;
    let budget = Duration::from_secs(seconds);
    let before = benchmark(&command, scratch.path(), budget, threads).await?;
    let mut measured = Vec::new();
    for case in &CASES {
        let path = scratch.path().join("model.gguf");
        let request = MakeRequest {
            spec: spec(case),
            quantization: case.1.parse::<Quantization>()?,
            weights: Weights::Random { seed: 7 },
            path: path.clone(),
        };
        make_model(&command, request).await?;
        let costs = ModelCosts::of(&GgufHeader::read(&path)?)?;
        measured.push((case, costs, measure(&command, &path, threads).await?));
    }
    let after = benchmark(&command, scratch.path(), budget, threads).await?;
    println!("{:28} {:>18} {:>18}", "model", "prefill", "decode");
    let known = device_table::by_key("cpu-desktop").ok_or("the data file has no desktop")?;
    for (name, benchmark) in [("the benchmark before", &before), ("the benchmark after", &after)] {
        let calibration = Calibration::from_benchmark(benchmark, "CPU", known).ok_or("no calibration")?;
        let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
        println!("predicted by {name}, measured, error:");
        for (case, costs, (prefill, decode)) in &measured {
            let mut question = SpeedQuestion::on(costs, known, Backend::Cpu);
            question.host_calibration = Some(&calibration);
            let speed = estimate(&question)?;
            let error = |predicted: f64, measured: f64| (predicted / measured - 1.0) * 100.0;
            let (p, d) = (speed.prefill.expected.get(), speed.decode.expected.get());
            println!(
                "{:28} {p:8.1} {prefill:8.1} {:+6.1} % {d:8.2} {decode:8.2} {:+6.1} %",
                format!("{} {} {}x{}", case.0, case.1, case.2, case.3),
                error(p, *prefill),
                error(d, *decode)
            );
            prefills.push(error(p, *prefill).abs());
            decodes.push(error(d, *decode).abs());
        }
        println!("median error: prefill {:.1} %, decode {:.1} %", median(prefills), median(decodes));
    }
    Ok(())
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
        types: std::collections::BTreeMap::new(),
        importance: false,
        published: None,
    }
}

async fn benchmark(
    command: &WorkerCommand,
    scratch: &std::path::Path,
    budget: Duration,
    threads: Option<u32>,
) -> Result<Benchmark, Box<dyn Error>> {
    let request =
        BenchRequest { scratch_dir: scratch.to_owned(), budget, threads, quick: false, sustained: Duration::ZERO };
    let mut points = Vec::new();
    bench(command, request, |event| match event {
        BenchEvent::Point(point) => {
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
                point.prefill.samples.len(),
                point.prefill_tokens,
                point.decode_tokens,
            );
            points.push(*point);
        }
        BenchEvent::Started { .. } | BenchEvent::Progress { .. } | BenchEvent::Sustained { .. } => {}
    })
    .await?;
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

async fn measure(
    command: &WorkerCommand,
    path: &std::path::Path,
    threads: Option<u32>,
) -> Result<(f64, f64), Box<dyn Error>> {
    let settings = EngineSettings {
        context: ContextTokens::new(1024),
        gpu_layers: Some(0),
        flash_attention: FlashAttention::On,
        ..EngineSettings::default()
    };
    let request = LoadRequest { path: path.to_owned(), settings, threads, layout: Layout::default() };
    let (generator, _) = Generator::start(command, request, |_| {}).await?;
    generator.measure(256, 4).await?;
    let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        prefills.push(generator.measure(512, 1).await?.0.get());
        decodes.push(generator.measure(1, 128).await?.1.get());
    }
    generator.stop().await;
    Ok((median(prefills), median(decodes)))
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
