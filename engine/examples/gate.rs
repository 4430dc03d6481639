//! What the gate costs: opens the files that are named, or sparse ones of 80 GB with vocabularies of several sizes that it
//! makes in a temporary folder, and prints times and the process's peak memory.
//!
//! `cargo build --workspace --example gate && target/debug/examples/gate [FILE]...`

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_engine::gguf::{GgufFiles, GgufWriter, TensorPlan, TensorType};

/// How often each file is opened; the fastest time is what it costs, the others had company.
const REPEATS: u32 = 9;

fn main() -> io::Result<()> {
    let named: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    for path in &named {
        open(path);
    }
    if named.is_empty() {
        let folder = std::env::temp_dir().join(format!("muster-gate-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let made = made(&folder);
        std::fs::remove_dir_all(&folder)?;
        made?;
    }
    Ok(())
}

fn made(folder: &Path) -> io::Result<()> {
    for (tokens, merges) in
        [(32_000, 0), (128_256, 280_147), (250_000, 250_000), (262_144, 514_906), (1 << 19, 1 << 20)]
    {
        let path = folder.join(format!("{tokens}-tokens-{merges}-merges.gguf"));
        write(&path, tokens, merges)?;
        // In a process of its own, whose memory is the gate's.
        std::process::Command::new(std::env::current_exe()?).arg(&path).status()?;
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

/// A header, and a hole for 80 GB of tensors.
fn write(path: &Path, tokens: u32, merges: u32) -> io::Result<()> {
    let count = usize::try_from(tokens).unwrap_or_default();
    let texts: Vec<String> = (0..tokens).map(|index| format!("tok{index:x}")).collect();
    let mut writer = GgufWriter::new();
    writer.text("general.architecture", "llama");
    writer.text("tokenizer.ggml.model", if merges > 0 { "gpt2" } else { "llama" });
    writer.texts("tokenizer.ggml.tokens", &texts);
    writer.i32s("tokenizer.ggml.token_type", &vec![1; count]);
    let merges: Vec<String> = (0..merges).map(|index| format!("tok{index:x} end")).collect();
    writer.texts("tokenizer.ggml.merges", &merges);
    if let Some(kind) = TensorType::from_name("Q8_0") {
        for layer in 0..1000 {
            writer.tensor(TensorPlan {
                name: format!("blk.{layer}.ffn_up.weight"),
                dimensions: vec![8192, 9216],
                kind,
            });
        }
    }
    let mut file = BufWriter::new(File::create(path)?);
    let header = writer.header();
    file.write_all(&header)?;
    file.flush()?;
    let data: u64 = writer.tensors().iter().map(|tensor| GgufWriter::padded(tensor.bytes())).sum();
    OpenOptions::new().write(true).open(path)?.set_len(header.len() as u64 + data)
}

fn open(path: &Path) {
    let before = peak_memory(true);
    let mut best = Duration::MAX;
    let mut words = String::new();
    for _ in 0..REPEATS {
        let start = Instant::now();
        let opened = GgufFiles::open(path);
        best = best.min(start.elapsed());
        words = match opened {
            Ok(files) => {
                let header: u64 = files.parts().map(|part| part.header.data_offset).sum();
                format!("passes, {} bytes with a header of {header}", files.file_size().get())
            }
            Err(error) => format!("refused: {error}"),
        };
    }
    let peak = peak_memory(false).zip(before).map(|(peak, before)| peak.saturating_sub(before));
    let peak = peak.map_or_else(|| "unknown".to_owned(), |peak| format!("{peak} KiB"));
    println!("{}: {best:?}, {peak} of memory more: {words}", path.display());
}

/// The largest resident memory since it was last set back to what it is, in KiB; Linux only.
fn peak_memory(set_back: bool) -> Option<u64> {
    if set_back {
        std::fs::write("/proc/self/clear_refs", "5").ok()?;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
