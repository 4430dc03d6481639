//! Makes the header of every reference model in every quantization and sizes it in a dry run; prints what fails.
//!
//! `check_reference WORKER [MODEL…]` with the path of the program `engine-worker`; with models, only these. For each model
//! it prints the bytes of its tensors in `Q4_K_M`, `Q8_0` and `BF16`, and how long making and sizing took at most.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use muster_engine::maker::{ModelSpec, Quantization};
use muster_engine::reference;
use muster_engine::worker::{MakeRequest, SizeRequest, Weights, WorkerCommand, make_model, size};
use muster_proto::{ContextTokens, EngineSettings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(worker) = arguments.next() else {
        eprintln!("usage: check_reference WORKER [MODEL…]");
        return ExitCode::from(2);
    };
    let command = WorkerCommand::new(worker);
    let wanted: Vec<String> = arguments.collect();
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("no temporary folder: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut checked, mut refused, mut failed) = (0_u32, 0_u32, 0_u32);
    for model in reference::all().iter().filter(|model| wanted.is_empty() || wanted.contains(&model.id)) {
        let (mut slowest_make, mut slowest_size) = (Duration::ZERO, Duration::ZERO);
        let mut sizes = Vec::new();
        for quantization in Quantization::all() {
            checked += 1;
            let path = folder.path().join("model.gguf");
            let spec = ModelSpec::from(model);
            let request = MakeRequest { spec, quantization, path: path.clone(), weights: Weights::HeaderOnly };
            let start = Instant::now();
            let made = match make_model(&command, request).await {
                Ok(made) => made,
                // Q1_0 takes rows of 128, and llama.cpp names nothing in its place.
                Err(error) if error.to_string().contains("no tensor type fallback is defined") => {
                    refused += 1;
                    println!("{} {quantization}: llama.cpp itself cannot: {error}", model.id);
                    continue;
                }
                Err(error) => {
                    failed += 1;
                    println!("{} {quantization}: not made: {error}", model.id);
                    continue;
                }
            };
            slowest_make = slowest_make.max(start.elapsed());
            if ["Q4_K_M", "Q8_0", "BF16"].contains(&quantization.name()) {
                sizes.push(format!("{quantization} {}", made.tensor_bytes.get()));
            }
            let settings = EngineSettings { context: ContextTokens::new(512), ..EngineSettings::default() };
            let start = Instant::now();
            let sized = size(&command, SizeRequest { path, settings, devices: Vec::new() }).await;
            slowest_size = slowest_size.max(start.elapsed());
            match sized {
                Ok(sized) if sized.layers == model.shape.n_layer && sized.context_train == model.context() => {}
                Ok(sized) => {
                    failed += 1;
                    println!("{} {quantization}: sized as something else: {sized:?}", model.id);
                }
                Err(error) => {
                    failed += 1;
                    println!("{} {quantization}: not sized: {error}", model.id);
                    for line in error.log_tail() {
                        println!("    {line}");
                    }
                }
            }
        }
        println!("{}: {}; made in {slowest_make:.2?}, sized in {slowest_size:.2?}", model.id, sizes.join(", "));
    }
    println!("{checked} checked, {failed} failed, {refused} that llama.cpp cannot make of such a shape");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
