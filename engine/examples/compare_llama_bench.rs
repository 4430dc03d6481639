//! Compares Muster's measuring with upstream's own `llama-bench` on the same file and threads, in interleaved pairs:
//! `compare_llama_bench LLAMA_BENCH [PAIRS] [THREADS]` after `cargo build --workspace --bins --examples`. How to build
//! `llama-bench` with the same flags is in `docs/benchmarks.md`.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use muster_engine::maker::{ModelSpec, Quantization};
use muster_engine::reference;
use muster_engine::worker::{Generator, Layout, LoadRequest, MakeRequest, Weights, WorkerCommand, make_model};
use muster_proto::{ContextTokens, EngineSettings, FlashAttention};

const PREFILL: u32 = 512;
const DECODE: u32 = 128;
/// Turns of each within a pair.
const TURNS: usize = 4;
/// Runs of each within a turn, after a warm-up.
const RUNS: usize = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let bench = arguments.next().ok_or("usage: compare_llama_bench LLAMA_BENCH [PAIRS] [THREADS]")?;
    let pairs: usize = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: usize = arguments.next().map_or(Ok(cores), |text| text.parse())?;
    let programs = std::env::current_exe()?.parent().and_then(|folder| folder.parent()).ok_or("no folder")?.to_owned();
    let command = WorkerCommand::new(programs.join("engine-worker"));
    let scratch = tempfile::tempdir()?;
    for quantization in ["Q8_0", "Q4_K_M"] {
        let path = scratch.path().join(quantization);
        let request = MakeRequest {
            spec: model()?,
            quantization: quantization.parse::<Quantization>()?,
            weights: Weights::Random { seed: 1 },
            path: path.clone(),
        };
        make_model(&command, request).await?;
        let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            // A pair is several short turns each: what slows the machine down for some seconds slows both down.
            let (mut own_turns, mut upstream_turns) = (Vec::new(), Vec::new());
            for turn in 0..TURNS {
                // Who is first changes, so that a machine that slows down or wakes up favours nobody.
                if (pair + turn) % 2 == 0 {
                    own_turns.push(own(&command, &path, threads).await?);
                    upstream_turns.push(upstream(&bench, &path, threads)?);
                } else {
                    upstream_turns.push(upstream(&bench, &path, threads)?);
                    own_turns.push(own(&command, &path, threads).await?);
                }
            }
            let (own, upstream) = (medians(&own_turns), medians(&upstream_turns));
            println!(
                "{quantization} {pair}: prefill {:.1} against {:.1}, decode {:.2} against {:.2}",
                own.0, upstream.0, own.1, upstream.1
            );
            prefills.push(own.0 / upstream.0);
            decodes.push(own.1 / upstream.1);
        }
        println!(
            "{quantization}: Muster over llama-bench, median of {pairs} pairs: prefill {:.4}, decode {:.4}",
            median(prefills),
            median(decodes)
        );
    }
    Ok(())
}

/// A quarter of a 1B llama: larger than most caches, and quick enough for many pairs.
fn model() -> Result<ModelSpec, Box<dyn Error>> {
    let known = reference::all().iter().find(|model| model.architecture == "llama").ok_or("no llama is known")?;
    let mut spec = ModelSpec::from(known);
    spec.shape.n_layer = 8;
    spec.shape.n_embd = 1024;
    spec.shape.n_head = muster_engine::maker::PerLayer::Same(16);
    spec.shape.n_head_kv = muster_engine::maker::PerLayer::Same(4);
    (spec.shape.head_dim_k, spec.shape.head_dim_v, spec.shape.rope_dim) = (64, 64, Some(64));
    spec.shape.n_ff = muster_engine::maker::PerLayer::Same(3072);
    (spec.shape.n_vocab, spec.shape.n_ctx_train) = (16384, 4096);
    Ok(spec)
}

/// Prefill and decode as the benchmark measures them: each from an empty context, after a warm-up.
async fn own(command: &WorkerCommand, path: &Path, threads: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let settings = EngineSettings {
        context: ContextTokens::new(2 * PREFILL),
        gpu_layers: Some(0),
        flash_attention: FlashAttention::On,
        ..EngineSettings::default()
    };
    let threads = Some(u32::try_from(threads)?);
    let request = LoadRequest { path: path.to_owned(), settings, threads, layout: Layout::default() };
    let (generator, _) = Generator::start(command, request, |_| {}).await?;
    generator.measure(PREFILL, 1).await?;
    let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        prefills.push(generator.measure(PREFILL, 1).await?.0.get());
        decodes.push(generator.measure(1, DECODE).await?.1.get());
    }
    generator.stop().await;
    Ok((median(prefills), median(decodes)))
}

/// The same by `llama-bench`, whose threads wait as Muster's do (`--poll 0`).
fn upstream(bench: &str, path: &Path, threads: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let output = Command::new(bench)
        .args([
            "-p",
            &PREFILL.to_string(),
            "-n",
            &DECODE.to_string(),
            "-r",
            &RUNS.to_string(),
            "-fa",
            "1",
            "--poll",
            "0",
            "-lm",
            "none",
        ])
        .args(["-t", &threads.to_string(), "-ngl", "0", "-o", "json", "-m"])
        .arg(path)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let rate = |tokens: &str| -> Option<f64> {
        let row = rows.as_array()?.iter().find(|row| row[tokens].as_u64() > Some(0))?;
        let samples: Vec<f64> = row["samples_ts"].as_array()?.iter().filter_map(serde_json::Value::as_f64).collect();
        Some(median(samples))
    };
    Ok((rate("n_prompt").ok_or("no prefill in its answer")?, rate("n_gen").ok_or("no decode in its answer")?))
}

fn medians(turns: &[(f64, f64)]) -> (f64, f64) {
    (median(turns.iter().map(|turn| turn.0).collect()), median(turns.iter().map(|turn| turn.1).collect()))
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
