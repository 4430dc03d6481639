//! Measuring parts in a child process of their own: drivers hang, and a child can be killed.
//!
//! The child is this very executable with [`ARGUMENT`]; it reads one [`Request`] as a line of JSON and answers with lines of
//! [`Answer`]. Entry points: [`run`] for the parent, [`main`] for the child.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use muster_proto::{BenchmarkKind, Bytes, Device, PartQuantity, PartRate, Spread};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::watch::WorkerPid;
use super::{Job, NICENESS, disk, gpu, memory};

/// The first argument that makes the agent such a child.
pub const ARGUMENT: &str = "bench-parts";
/// What a child may take beyond its time: starting, loading a driver, compiling shaders.
pub const GRACE: Duration = Duration::from_secs(5);
/// What the volume of the model store keeps free.
const DISK_RESERVE: Bytes = Bytes::new(1 << 30);

/// Which parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Main memory and the disk.
    Host,
    /// GPUs.
    Gpu,
}

impl Part {
    /// For progress.
    pub fn words(self) -> &'static str {
        match self {
            Self::Host => "memory and disk: measuring",
            Self::Gpu => "GPUs: measuring",
        }
    }
}

/// What a child is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    part: Part,
    time_ms: u64,
    quick: bool,
    threads: Option<u32>,
    store: PathBuf,
    /// PCI addresses with llama.cpp's names of the devices there.
    devices: Vec<(String, String)>,
}

impl Request {
    /// For a benchmark.
    pub fn new(part: Part, job: &Job, time: Duration, devices: &[Device]) -> Self {
        let named = |device: &Device| Some((device.pci_bus_id.clone()?, device.name.clone()));
        Self {
            part,
            time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            quick: job.kind == BenchmarkKind::Quick,
            threads: job.threads,
            // The volume exists even where the store does not yet.
            store: job.store.ancestors().find(|path| path.exists()).unwrap_or(job.store).to_owned(),
            devices: devices.iter().filter_map(named).collect(),
        }
    }
}

/// What a child answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A rate.
    Rate(PartRate),
    /// Something could not be measured.
    Failed(String),
}

/// Asks a child, and kills it at the deadline; `tell` hears what it found until then. Dropping the future kills it too.
pub async fn run(program: &Path, request: &Request, deadline: Duration, pid: &WorkerPid, mut tell: impl FnMut(Answer)) {
    let asked = async {
        let mut command = Command::new(program);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        pid.set(child.id());
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("it has no pipes".to_owned());
        };
        input.write_all(&line).await.map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tell(serde_json::from_str(&line).map_err(|error| error.to_string())?);
        }
        match child.wait().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("it ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    };
    let ended = tokio::time::timeout(deadline, asked).await;
    let failed = match ended {
        Ok(Ok(())) => return,
        Ok(Err(reason)) => reason,
        Err(_) => format!("it said nothing for {deadline:?} and was ended"),
    };
    tell(Answer::Failed(failed));
}

/// The child.
pub fn main() -> ExitCode {
    let mut line = String::new();
    let request: Request =
        if let Ok(Ok(request)) = std::io::stdin().lock().read_line(&mut line).map(|_| serde_json::from_str(&line)) {
            request
        } else {
            eprintln!("error: {ARGUMENT} is for the agent itself: run `muster-agent bench`");
            return ExitCode::from(2);
        };
    #[cfg(unix)]
    let _ = rustix::process::nice(NICENESS);
    // Whoever asked is gone when the pipe ends; nobody needs the rest.
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
        std::process::exit(1);
    });
    let tell = |answer: Answer| {
        let Ok(line) = serde_json::to_string(&answer) else { return };
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    match request.part {
        Part::Host => host(&request, tell),
        Part::Gpu => {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return ExitCode::FAILURE };
            let time = Duration::from_millis(request.time_ms);
            runtime.block_on(gpu::measure(&request.devices, time, |found| {
                tell(match found {
                    gpu::Found::Rate(rate) => Answer::Rate(rate),
                    gpu::Found::Failed(reason) => Answer::Failed(reason),
                });
            }));
        }
    }
    ExitCode::SUCCESS
}

fn host(request: &Request, tell: impl Fn(Answer)) {
    let time = Duration::from_millis(request.time_ms);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = request.threads.and_then(|threads| usize::try_from(threads).ok()).unwrap_or(cores);
    let available = sysinfo::System::new().map_or(Bytes::ZERO, |mut system| {
        system.refresh_memory();
        Bytes::new(system.available_memory())
    });
    let rates = memory::bandwidth(threads, time.mul_f64(0.35), request.quick, available);
    let told = |part: &str, quantity, rates: Vec<f64>| match Spread::of(rates) {
        Some(rate) => tell(Answer::Rate(PartRate { part: part.into(), quantity, rate })),
        None => tell(Answer::Failed(format!("{part}: too little memory is free"))),
    };
    told("CPU", PartQuantity::MemoryBandwidth, rates);
    match disk::read_rates(&request.store, time.mul_f64(0.5), DISK_RESERVE) {
        Ok(rates) => told("store", PartQuantity::DiskRead, rates),
        Err(error) => tell(Answer::Failed(format!("disk: {error}"))),
    }
}
