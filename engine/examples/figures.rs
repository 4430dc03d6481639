//! Prints what the engine takes on this machine with the bundled model: `cargo run -p muster-engine --example figures`
//! after `cargo build -p muster-engine`, whose `engine-worker` it starts from the same folder.

use std::error::Error;
use std::time::{Duration, Instant};

use muster_engine::worker::{
    BenchEvent, BenchRequest, ChatRequest, GenerationEvent, Generator, Layout, LoadRequest, QuantizeRequest, Sampling,
    SizeOptions, SizeRequest, WorkerCommand, bench, quantize, size,
};
use muster_proto::{ContextTokens, EngineSettings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let programs = std::env::current_exe()?.parent().and_then(|folder| folder.parent()).ok_or("no folder")?.to_owned();
    let command = WorkerCommand::new(programs.join("engine-worker"));
    let scratch = tempfile::tempdir()?;
    let f16 = scratch.path().join("f16.gguf");
    std::fs::write(&f16, muster_engine::bundled::MUSTER_TINY_F16)?;
    let settings = EngineSettings { context: ContextTokens::new(1024), ..EngineSettings::default() };

    let start = Instant::now();
    let target = scratch.path().join("q4.gguf");
    let job = QuantizeRequest {
        source: f16.clone(),
        target: target.clone(),
        quantization: "Q4_K_M".into(),
        ..QuantizeRequest::default()
    };
    quantize(&command, job, |_| {}).await?;
    println!("quantize to Q4_K_M: {:?}", start.elapsed());

    for (name, path) in [("F16", &f16), ("Q4_K_M", &target)] {
        let start = Instant::now();
        let request = SizeRequest {
            path: path.clone(),
            settings: settings.clone(),
            devices: Vec::new(),
            options: SizeOptions::default(),
        };
        let sized = size(&command, request).await?;
        println!("{name}: size {:?}, {}", start.elapsed(), sized.need.total());
        let start = Instant::now();
        let request =
            LoadRequest { path: path.clone(), settings: settings.clone(), threads: None, layout: Layout::default() };
        let (generator, loaded) = Generator::start(&command, request, |_| {}).await?;
        println!("{name}: start {:?}, load {:?}, resident {:?}", start.elapsed(), loaded.load_time, loaded.resident);
        let (prefill, decode) = generator.measure(512, 64).await?;
        println!("{name}: measured prefill {prefill}, decode {decode}");
        let start = Instant::now();
        let mut stream = generator.chat(ChatRequest {
            messages_json: r#"[{"role": "user", "content": "What is Muster?"}]"#.into(),
            sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
            ..ChatRequest::default()
        });
        while let Some(event) = stream.next().await {
            if let GenerationEvent::Finished { prompt_tokens, completion_tokens, prefill_ms, decode_ms, .. } = event? {
                println!(
                    "{name}: answered in {:?}: {prompt_tokens} tokens in {prefill_ms:.1} ms, {completion_tokens} in {decode_ms:.1} ms",
                    start.elapsed()
                );
            }
        }
        generator.stop().await;
    }

    let start = Instant::now();
    let request = BenchRequest {
        scratch_dir: scratch.path().to_owned(),
        budget: Duration::from_secs(8),
        threads: None,
        quick: true,
        sustained: Duration::ZERO,
    };
    bench(&command, request, |event| {
        if let BenchEvent::Point(point) = event {
            println!(
                "{} {}: prefill {}, decode {}",
                point.model.name, point.model.quantization, point.prefill.median, point.decode.median
            );
        }
    })
    .await?;
    println!("quick benchmark: {:?}", start.elapsed());
    Ok(())
}
