//! Prints the quality of a model in every type that its shapes allow, as a table in Markdown:
//! `cargo build --workspace --bins --examples`, then `target/debug/examples/quality_table`, which starts the
//! `engine-worker` beside it.
//!
//! Without arguments the bundled model on its own text. `quality_table [--text FILE] [--context N] [--chunks N]
//! [--threads N] [--imatrix FILE] [--types A,B] [--sixteen-bit] [MODEL]` takes any F16, BF16 or F32 model; without FILE, on the
//! project's text. Types that need an importance matrix are left out without one.

use std::error::Error;
use std::path::PathBuf;

use muster_engine::gguf::GgufHeader;
use muster_engine::maker::Quantization;
use muster_engine::quality_text::QualityText;
use muster_engine::worker::{QualityRequest, QuantizeRequest, WorkerCommand, quality, quantize};
use muster_proto::ContextTokens;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let programs = std::env::current_exe()?.parent().and_then(|folder| folder.parent()).ok_or("no folder")?.to_owned();
    let command = WorkerCommand::new(programs.join("engine-worker"));
    let scratch = tempfile::tempdir()?;
    let (mut model, mut text, mut imatrix, mut types, mut sixteen_bit) = (None, None, None, None, false);
    let (mut context, mut chunks, mut threads) = (None, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--text" => text = Some(PathBuf::from(value()?)),
            "--context" => context = Some(ContextTokens::new(value()?.parse()?)),
            "--chunks" => chunks = Some(value()?.parse()?),
            "--imatrix" => imatrix = Some(PathBuf::from(value()?)),
            "--threads" => threads = Some(value()?.parse()?),
            "--types" => types = Some(value()?),
            "--sixteen-bit" => sixteen_bit = true,
            _ => model = Some(PathBuf::from(argument)),
        }
    }
    let own = model.is_none();
    let source = model.unwrap_or_else(|| scratch.path().join("F16.gguf"));
    if own {
        std::fs::write(&source, muster_engine::bundled::MUSTER_TINY_F16)?;
    }
    let text = match text {
        Some(path) => QualityText {
            name: path.display().to_string(),
            content: std::fs::read_to_string(&path)?.into(),
            ..QualityText::built_in()
        },
        None if own => QualityText::bundled(),
        None => QualityText::built_in(),
    };
    let wanted: Vec<Quantization> = match types {
        Some(names) => names.split(',').filter_map(Quantization::from_name).collect(),
        None => Quantization::all().filter(|known| !known.needs_importance() || imatrix.is_some()).collect(),
    };
    println!("| type | bytes | bits per weight | mean KLD | median | 99 % | largest | same top | PPL ratio |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut basis = String::new();
    for known in wanted {
        let candidate = scratch.path().join(format!("{}.candidate.gguf", known.name()));
        let job = QuantizeRequest {
            source: source.clone(),
            target: candidate.clone(),
            quantization: known.into(),
            imatrix: imatrix.clone(),
            ..QuantizeRequest::default()
        };
        quantize(&command, job, |_| {}).await?;
        let header = GgufHeader::read(&candidate)?;
        let request = QualityRequest {
            context,
            chunks,
            threads,
            sixteen_bit,
            ..QualityRequest::new(source.clone(), candidate.clone(), text.clone())
        };
        let found = quality(&command, request, |_| {}).await?;
        let d = found.divergence;
        println!(
            "| {} | {} | {:.2} | {:.6} ± {:.6} | {:.6} | {:.6} | {:.4} | {:.2} % | {:.4} ± {:.4} |",
            known.name(),
            header.file_size.get(),
            header.bits_per_weight(),
            d.mean.value,
            d.mean.error,
            d.median,
            d.p99,
            d.largest,
            d.same_top.value * 100.0,
            d.log_ratio.value.exp(),
            d.log_ratio.value.exp() * d.log_ratio.error,
        );
        basis = format!(
            "{}: {} chunks of {}, {} scored; perplexity of the source {:.4} ± {:.4}",
            text.name, found.chunks, found.context, d.positions, d.source_perplexity.value, d.source_perplexity.error
        );
        std::fs::remove_file(&candidate)?;
    }
    println!("\n{basis}");
    Ok(())
}
